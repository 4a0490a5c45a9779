from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recurra.errors import ConfigError, DataError, ShapeError
from recurra.training.bptt import StreamBatches, detach_state


def test_streams_of_a_ramp_continue_row_by_row():
    streams = StreamBatches(torch.arange(21), batch_size=2, bptt_length=4)
    rows = [streams.batch(step) for step in range(streams.chunks)]
    inputs = torch.cat([batch.inputs for batch in rows], 1)
    assert inputs.tolist() == [list(range(10)), list(range(10, 20))]
    assert all(torch.equal(batch.targets, batch.inputs + 1) for batch in rows)
    assert [batch.inputs.shape[1] for batch in rows] == [4, 4, 2]


def test_state_is_reset_when_the_streams_start_again_and_nowhere_else():
    streams = StreamBatches(torch.arange(21), batch_size=2, bptt_length=4)
    for step in (0, 3, 6):
        assert streams.batch(step).reset.tolist() == [[True, False, False, False]] * 2
    for step in (1, 2, 4, 5):
        assert streams.batch(step).reset is None


def test_resets_given_for_documents_stay_with_their_positions():
    starts = torch.zeros(21, dtype=torch.bool)
    starts[[5, 10, 16]] = True
    streams = StreamBatches(torch.arange(21), batch_size=2, bptt_length=4, reset=starts)
    assert streams.batch(0).reset.tolist() == [[True, False, False, False]] * 2
    assert streams.batch(1).reset.nonzero().tolist() == [[0, 1], [1, 2]]
    assert streams.batch(2).reset is None
    streams.batch(0).reset.fill_(True)
    assert streams.batch(0).reset.sum() == 2  # the caller's copy, not ours


@given(
    steps=st.integers(2, 60),
    batch_size=st.integers(1, 5),
    bptt_length=st.one_of(st.none(), st.integers(1, 20)),
)
def test_every_position_is_read_once_but_fewer_than_a_batch_at_the_end(
    steps, batch_size, bptt_length
):
    if (steps - 1) // batch_size == 0:
        with pytest.raises(DataError, match=f"{steps} positions do not give {batch_size} streams"):
            StreamBatches(torch.arange(steps), batch_size=batch_size, bptt_length=bptt_length)
        return
    streams = StreamBatches(torch.arange(steps), batch_size=batch_size, bptt_length=bptt_length)
    read = torch.cat([streams.batch(step).inputs.flatten() for step in range(streams.chunks)])
    assert sorted(read.tolist()) == list(range(len(read)))
    assert steps - 1 - len(read) < batch_size


def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match=r"shape \(2, 3, 4\)"):
        StreamBatches(torch.zeros(2, 3, 4), batch_size=1)
    with pytest.raises(ShapeError, match="targets has 4 entries, sequence has 5"):
        StreamBatches(torch.zeros(5), batch_size=1, targets=torch.zeros(4))
    with pytest.raises(ConfigError, match="batch_size=0"):
        StreamBatches(torch.zeros(5), batch_size=0)


def make_problem() -> tuple[nn.GRU, torch.Tensor]:
    torch.manual_seed(5)
    return nn.GRU(3, 4, batch_first=True).double(), torch.randn(25, 3, dtype=torch.float64)


def loss_and_gradients(
    gru: nn.GRU, streams: StreamBatches, detach: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Outputs of one pass through the streams, and the gradients of their summed loss."""
    gru.zero_grad()
    state, outputs, total = None, [], torch.zeros((), dtype=torch.float64)
    for step in range(streams.chunks):
        batch = streams.batch(step)
        output, state = gru(batch.inputs, state)
        state = detach_state(state) if detach else state
        outputs.append(output)
        total = total + output.square().sum()
    total.backward()
    return outputs, [p.grad.clone() for p in gru.parameters()]


def test_truncated_over_the_whole_length_is_full_backpropagation():
    gru, series = make_problem()
    by_length = StreamBatches(series, batch_size=2, bptt_length=12)
    full = StreamBatches(series, batch_size=2, bptt_length=None)
    assert by_length.chunks == full.chunks == 1
    inputs = torch.stack([series[:12], series[12:24]])
    gru.zero_grad()
    gru(inputs)[0].square().sum().backward()
    for streams in (by_length, full):
        _, gradients = loss_and_gradients(gru, streams, detach=True)
        for gradient, parameter in zip(gradients, gru.parameters(), strict=True):
            assert torch.equal(gradient, parameter.grad)


def test_carried_state_gives_the_forward_pass_of_one_long_run():
    gru, series = make_problem()
    whole, _ = loss_and_gradients(gru, StreamBatches(series, batch_size=2), detach=True)
    parts, _ = loss_and_gradients(
        gru, StreamBatches(series, batch_size=2, bptt_length=5), detach=True
    )
    torch.testing.assert_close(torch.cat(parts, 1), whole[0], rtol=1e-12, atol=1e-14)


def test_only_detaching_cuts_the_gradient_between_chunks():
    gru, series = make_problem()
    chunks = StreamBatches(series, batch_size=2, bptt_length=5)
    _, full = loss_and_gradients(gru, StreamBatches(series, batch_size=2), detach=True)
    _, joined = loss_and_gradients(gru, chunks, detach=False)
    _, truncated = loss_and_gradients(gru, chunks, detach=True)
    torch.testing.assert_close(joined, full, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(truncated[1], full[1], rtol=1e-3)


def test_detached_state_has_memory_of_its_own():
    output = torch.randn(4, 6, 3, requires_grad=True) * 2
    state = detach_state({"h": output[:, -1]})
    assert not state["h"].requires_grad
    assert state["h"].is_contiguous()
    assert state["h"].untyped_storage().nbytes() == 4 * 3 * 4
