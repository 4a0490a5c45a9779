from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.training.toy import same_bits, weights
from torch import Tensor, nn

from recurra.errors import ArgumentError, ConfigError, DataError, ShapeError
from recurra.nn.gru import GRU
from recurra.nn.lstm import LSTM
from recurra.nn.rnn import RNN
from recurra.training.bptt import StreamBatch, StreamBatches, detach_state, run_window
from recurra.training.loop import train
from recurra.training.nested import list_tensors
from recurra.training.settings import TrainingSettings

LAYERS = [RNN, LSTM, GRU]
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def test_streams_of_a_ramp_continue_row_by_row():
    streams = StreamBatches(torch.arange(21), batch_size=2, k1=4)
    rows = [streams.batch(step) for step in range(streams.updates)]
    inputs = torch.cat([batch.inputs for batch in rows], 1)
    assert inputs.tolist() == [list(range(10)), list(range(10, 20))]
    assert all(torch.equal(batch.targets, batch.inputs + 1) for batch in rows)
    assert [batch.inputs.shape[1] for batch in rows] == [4, 4, 2]
    assert [batch.carry for batch in rows] == [4, 4, None]


def test_windows_reach_back_k2_steps_from_the_update():
    streams = StreamBatches(torch.arange(21), batch_size=2, k1=4, k2=6)
    rows = [streams.batch(step) for step in range(streams.updates)]
    assert [batch.inputs[1].tolist() for batch in rows] == [
        [10, 11, 12, 13],
        [12, 13, 14, 15, 16, 17],
        [14, 15, 16, 17, 18, 19],
    ]
    assert [batch.targets[1].tolist() for batch in rows] == [
        [11, 12, 13, 14],
        [15, 16, 17, 18],
        [19, 20],
    ]
    assert [batch.carry for batch in rows] == [2, 2, None]


def test_state_is_reset_when_the_streams_start_again_and_nowhere_else():
    streams = StreamBatches(torch.arange(21), batch_size=2, k1=4)
    for step in (0, 3, 6):
        assert streams.batch(step).reset.tolist() == [[True, False, False, False]] * 2
    for step in (1, 2, 4, 5):
        assert streams.batch(step).reset is None


def test_every_window_from_the_beginning_of_the_streams_starts_afresh():
    streams = StreamBatches(torch.arange(21), batch_size=2, k1=2, k2=6)
    rows = [streams.batch(step) for step in range(streams.updates)]
    assert [batch.reset is not None for batch in rows] == [True, True, True, False, False]
    assert [batch.carry for batch in rows] == [None, None, 2, 2, None]
    assert rows[2].reset.tolist() == [[True] + [False] * 5] * 2


def test_resets_given_for_documents_stay_with_their_positions():
    starts = torch.zeros(21, dtype=torch.bool)
    starts[[5, 10, 16]] = True
    streams = StreamBatches(torch.arange(21), batch_size=2, k1=4, reset=starts)
    assert streams.batch(0).reset.tolist() == [[True, False, False, False]] * 2
    assert streams.batch(1).reset.nonzero().tolist() == [[0, 1], [1, 2]]
    assert streams.batch(2).reset is None
    streams.batch(0).reset.fill_(True)
    assert streams.batch(0).reset.sum() == 2  # the caller's copy, not ours
    longer = StreamBatches(torch.arange(21), batch_size=2, k1=4, k2=6, reset=starts)
    assert longer.batch(2).reset.nonzero().tolist() == [[0, 1], [1, 2]]  # history has them too


@given(
    steps=st.integers(2, 60),
    batch_size=st.integers(1, 5),
    k1=st.one_of(st.none(), st.integers(1, 20)),
    more=st.integers(0, 20),
)
def test_every_target_is_counted_once_but_fewer_than_a_batch_at_the_end(
    steps, batch_size, k1, more
):
    k2 = None if k1 is None else k1 + more
    series = torch.arange(steps)
    if (steps - 1) // batch_size == 0:
        with pytest.raises(DataError, match=f"{steps} positions do not give {batch_size} streams"):
            StreamBatches(series, batch_size=batch_size, k1=k1, k2=k2)
        return
    streams = StreamBatches(series, batch_size=batch_size, k1=k1, k2=k2)
    batches = [streams.batch(step) for step in range(streams.updates)]
    counted = torch.cat([batch.targets.flatten() for batch in batches])
    assert sorted(counted.tolist()) == list(range(1, len(counted) + 1))
    assert steps - 1 - len(counted) < batch_size
    for batch in batches:
        own = batch.inputs[:, batch.inputs.shape[1] - batch.targets.shape[1] :]
        assert torch.equal(own + 1, batch.targets)


def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match=r"shape \(2, 3, 4\)"):
        StreamBatches(torch.zeros(2, 3, 4), batch_size=1)
    with pytest.raises(ShapeError, match=r"targets has shape \(4,\), sequence has 5 positions"):
        StreamBatches(torch.zeros(5), batch_size=1, targets=torch.zeros(4))
    with pytest.raises(ConfigError, match="batch_size=0"):
        StreamBatches(torch.zeros(5), batch_size=0)
    with pytest.raises(ConfigError, match="k1=0 and k2=None; expected integers of at least 1"):
        StreamBatches(torch.zeros(5), batch_size=1, k1=0)
    with pytest.raises(ConfigError, match="k2=3 is less than k1=4,"):
        StreamBatches(torch.zeros(9), batch_size=1, k1=4, k2=3)
    with pytest.raises(ConfigError, match=r"k2=3 is less than k1=8 \(whole streams\)"):
        StreamBatches(torch.zeros(9), batch_size=1, k2=3)


@pytest.mark.parametrize(
    ("sequence", "options", "message"),
    [
        (torch.zeros(9), {"k1": 1.5}, r"k1=1\.5 and k2=None; expected integers of at least 1"),
        (torch.zeros(9), {"k1": 2, "k2": "4"}, r"k1=2 and k2='4'; expected integers"),
        (torch.zeros(9), {"k1": True}, r"k1=True and k2=None; expected integers"),
        (torch.zeros(9), {"batch_size": 2.0}, r"batch_size=2\.0, k1=None"),
        (list(range(9)), {}, r"sequence is a list; expected a tensor, \(N,\).*as_tensor\(seq"),
        (None, {}, r"sequence is a NoneType; expected a tensor"),
        (torch.zeros(9), {"targets": [1] * 9}, r"targets is a list; expected a tensor or None"),
        (torch.zeros(9), {"reset": [False] * 9}, r"reset is a list; .*as_tensor\(reset\)"),
        (torch.zeros(9), {"targets": torch.tensor(1)}, r"targets has shape \(\), sequence has 9 p"),
        (
            torch.zeros(9),
            {"reset": torch.zeros(9, 2)},
            r"reset has shape \(9, 2\); expected \(9,\), True where a new",
        ),
    ],
)
def test_what_is_no_tensor_and_no_number_of_steps_is_named(sequence, options, message):
    with pytest.raises((ConfigError, ShapeError), match=f"StreamBatches: .*{message}"):
        StreamBatches(sequence, **{"batch_size": 1, **options})


class Model(nn.Module):
    """Two recurrent layers of one kind, and a head."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = kind(3, 4, num_layers=2, batch_first=True, dtype=torch.float64)
        self.head = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: Tensor, state: object, reset: Tensor | None) -> tuple[Tensor, object]:
        output, state = self.layer(x, state, reset=reset)
        return self.head(output), state


def make_series(steps: int = 47) -> Tensor:
    return torch.randn(steps, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum()


def updates(model: nn.Module, streams: StreamBatches) -> list[tuple[Tensor, list[Tensor], object]]:
    """Output, gradients and carried state of each update of one pass, at constant weights."""
    state, seen = None, []
    for step in range(streams.updates):
        batch = streams.batch(step)
        output, state = run_window(model, batch, state)
        seen.append((output, gradients(model, squared_error(output, batch.targets)), state))
    return seen


def unrolled(
    model: Model, series: Tensor, targets: Tensor, starts: Tensor, cut: int | None
) -> list[Tensor]:
    """Outputs (B, output) of each step of (B, T, 3) series, one step at a time.

    A row whose `starts` is set gets zeros for its state; before step `cut` the state is detached.
    """
    state, outputs = None, []
    for t in range(series.shape[1]):
        if state is not None:
            tensors = state if isinstance(state, tuple) else (state,)
            tensors = [h.masked_fill(starts[None, :, t, None], 0.0) for h in tensors]
            if t == cut:
                tensors = [h.detach() for h in tensors]
            state = tuple(tensors) if isinstance(state, tuple) else tensors[0]
        output, state = model(series[:, t : t + 1], state, None)
        outputs.append(output[:, 0])
    return outputs


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(
    ("k1", "k2"), [(5, 5), (5, 7), (5, 10), (4, 17), (5, 22), (1, 1), (1, 3), (23, 23), (5, 99)]
)
def test_each_update_has_the_gradient_of_a_loop_that_detaches_where_its_window_begins(kind, k1, k2):
    model, series = Model(kind), make_series()
    starts = torch.zeros(47, dtype=torch.bool)
    starts[[3, 13, 14, 24, 35]] = True
    streams = StreamBatches(series, batch_size=2, k1=k1, k2=k2, reset=starts)
    rows = torch.stack([series[:23], series[23:46]])
    targets = torch.stack([series[1:24], series[24:47]])
    row_starts = torch.stack([starts[:23], starts[23:46]])
    for update, (output, found, _) in enumerate(updates(model, streams)):
        first, end = update * k1, min((update + 1) * k1, 23)
        cut = first if k1 == k2 else end - k2
        wanted = torch.stack(unrolled(model, rows, targets, row_starts, cut)[first:end], 1)
        torch.testing.assert_close(output, wanted, **EXACT)
        expected = gradients(model, squared_error(wanted, targets[:, first:end]))
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("k1", [1, 5, 23])
def test_reaching_back_over_everything_is_the_full_gradient(kind, k1):
    model, series = Model(kind), make_series()
    rows, targets = (series[i : i + 46].reshape(2, 23, 3) for i in (0, 1))
    full = gradients(model, squared_error(model(rows, None, None)[0], targets))
    for streams in (
        StreamBatches(series, batch_size=2, k1=k1, k2=23),
        StreamBatches(series, batch_size=2),
    ):
        parts = [found for _, found, _ in updates(model, streams)]
        total = [torch.stack(each).sum(0) for each in zip(*parts, strict=True)]
        torch.testing.assert_close(total, full, **EXACT)
    truncated = [found for _, found, _ in updates(model, StreamBatches(series, batch_size=2, k1=5))]
    assert not torch.allclose(sum(each[1] for each in truncated), full[1], rtol=1e-3)


@given(st.data())
def test_outputs_at_constant_weights_are_those_of_one_long_run(data):
    steps, batch_size = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 3))
    assume((steps - 1) // batch_size > 0)
    k1 = data.draw(st.integers(1, 12))
    k2 = data.draw(st.integers(k1, 30))
    starts = torch.tensor(data.draw(st.lists(st.booleans(), min_size=steps, max_size=steps)))
    model, series = Model(LSTM), make_series(steps)
    streams = StreamBatches(series, batch_size=batch_size, k1=k1, k2=k2, reset=starts)
    shape = (batch_size, streams.length)
    used = batch_size * streams.length
    with torch.no_grad():
        whole, _ = model(series[:used].reshape(*shape, 3), None, starts[:used].reshape(shape))
        state, outputs = None, []
        for step in range(2 * streams.updates):  # the second pass starts afresh
            output, state = run_window(model, streams.batch(step), state)
            outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), torch.cat([whole, whole], 1), **EXACT)


@torch.no_grad()
def test_carried_state_is_the_one_that_the_weights_of_its_update_gave():
    model, series = Model(LSTM), make_series()
    streams = StreamBatches(series, batch_size=1, k1=3, k2=4)
    _, carried = run_window(model, streams.batch(1), run_window(model, streams.batch(0), None)[1])
    expected = model(series[None, :5], None, None)[1]
    torch.testing.assert_close(carried, expected, **EXACT)
    for parameter in model.parameters():
        parameter.mul_(0.5)
    output, _ = run_window(model, streams.batch(2), carried)
    wanted, _ = model(series[None, 5:9], expected, None)
    torch.testing.assert_close(output, wanted[:, 1:], **EXACT)


@pytest.mark.parametrize("k2", [5, 8])
def test_reset_inside_a_window_cuts_the_gradient(k2):
    model, series = Model(GRU), make_series()
    starts = torch.zeros(47, dtype=torch.bool)
    starts[8] = True
    batch = StreamBatches(series, batch_size=1, k1=5, k2=k2, reset=starts).batch(1)
    inputs = batch.inputs.clone().requires_grad_()
    output, _ = run_window(model, batch._replace(inputs=inputs), None)
    reached = inputs.new_tensor(k2 - 5 + 3, dtype=torch.long)  # step 8, counted from the window
    (slope,) = torch.autograd.grad(output[:, -1].sum(), inputs)
    assert not slope[:, :reached].any()
    assert slope[:, reached:].abs().amin() > 0


def test_the_model_is_called_once_where_windows_do_not_overlap_and_at_most_twice():
    model, calls = Model(GRU), []

    def run(inputs: Tensor, state: object, reset: Tensor | None) -> tuple[Tensor, object]:
        calls.append(inputs.shape[1])
        return model(inputs, state, reset)

    for k2, wanted in ((5, [5, 5, 5, 5, 3]), (7, [3, 2, 5, 2, 5, 2, 3, 4, 7])):
        streams, state = StreamBatches(make_series(), batch_size=2, k1=5, k2=k2), None
        calls.clear()
        for step in range(streams.updates):
            _, state = run_window(run, streams.batch(step), state)
        assert calls == wanted


class Nested(nn.Module):
    """An LSTM below a GRU, with a state that nests theirs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.lstm = LSTM(3, 4, batch_first=True, dtype=torch.float64)
        self.gru = GRU(4, 3, batch_first=True, dtype=torch.float64)

    def forward(self, x: Tensor, state: dict | None, reset: Tensor | None) -> tuple[Tensor, dict]:
        state = state or {"below": (None, "none"), "above": None}
        h, below = self.lstm(x, state["below"][0], reset=reset)
        h, above = self.gru(h, state["above"], reset=reset)
        return h, {"below": (below, "none"), "above": above}


@pytest.mark.parametrize("k2", [4, 6])
def test_carried_state_of_any_nesting_is_detached_and_has_memory_of_its_own(k2):
    model, series = Nested(), make_series()
    streams = StreamBatches(series, batch_size=2, k1=4, k2=k2)
    seen = updates(model, streams)
    with torch.no_grad():
        whole, _ = model(series[:46].reshape(2, 23, 3), None, None)
    torch.testing.assert_close(torch.cat([output for output, _, _ in seen], 1), whole, **EXACT)
    assert [state is None for _, _, state in seen] == [False] * 5 + [True]
    for output, _, state in seen[:-1]:
        for tensor in list_tensors(state):
            assert not tensor.requires_grad
            assert tensor.untyped_storage().nbytes() == 8 * tensor.numel()
            assert tensor.untyped_storage().data_ptr() != output.untyped_storage().data_ptr()
        assert state["below"][1] == "none"


def test_batches_and_models_that_do_not_fit_are_refused():
    inputs, model = torch.zeros(2, 6, 3, dtype=torch.float64), Model(GRU)
    for counted, carry in ((7, 6), (0, 6), (3, 0), (3, 7)):
        batch = StreamBatch(inputs, torch.zeros(2, counted, 3), None, carry)
        with pytest.raises(ConfigError, match=f"targets for {counted} of them and carry={carry};"):
            run_window(model, batch, None)
    batch = StreamBatch(inputs, torch.zeros(2, 3, 3), None, 6)
    with pytest.raises(ShapeError, match=r"output of shape \(2, 3\) for inputs of shape \(2, 6, 3"):
        run_window(lambda x, state, reset: (x[:, -1], state), batch, None)
    for wrong, said in ((None, "a NoneType"), (inputs, "a Tensor"), ((1, 2), r"of \(int, int\)")):
        with pytest.raises(ArgumentError, match=rf"run returned .*{said}; expected \(output, st"):
            run_window(lambda x, state, reset, wrong=wrong: wrong, batch, None)
    with pytest.raises(ArgumentError, match=r"run is a GRU; .* layer\(x, state, reset=reset\)"):
        run_window(GRU(3, 4), batch, None)
    with pytest.raises(ArgumentError, match=r"batch is a Tensor; expected a StreamBatch"):
        run_window(model, inputs, None)


@pytest.mark.parametrize("part", [(slice(None), -1), (2,)])
def test_detached_state_has_memory_of_its_own(part):
    output = torch.randn(4, 6, 3, requires_grad=True) * 2
    state = detach_state({"h": output[part]})
    assert not state["h"].requires_grad
    assert state["h"].is_contiguous()
    assert state["h"].untyped_storage().nbytes() == 4 * output[part].numel()


class StreamTask:
    """Training on streams: a state is carried, but not from a window to one that starts afresh."""

    def __init__(self, k1: int, k2: int, stop_at: int = -1) -> None:
        self.model: nn.Module = Model(LSTM)
        self.streams = StreamBatches(make_series(), batch_size=2, k1=k1, k2=k2)
        self.stop_at = stop_at

    def batch(self, step: int, rng: torch.Generator) -> StreamBatch:
        if step == self.stop_at:
            raise InterruptedError
        return self.streams.batch(step)

    def loss(self, batch: StreamBatch, state: object) -> tuple[Tensor, object]:
        output, state = run_window(self.model, batch, state)
        return (output - batch.targets).square().mean(), state

    def validate(self) -> float | None:
        return None


@pytest.mark.parametrize(("k1", "k2"), [(5, 5), (3, 8), (2, 23)])
def test_training_on_windows_stopped_anywhere_ends_in_the_same_bits(tmp_path, k1, k2):
    settings = TrainingSettings(steps=25, checkpoint_every_s=0, device="cpu")
    whole, resumed = StreamTask(k1, k2), StreamTask(k1, k2)
    train(whole, settings, progress=False)
    for step in range(1, 25):
        with pytest.raises(InterruptedError):
            train(StreamTask(k1, k2, step), settings, folder=tmp_path, resume=True, progress=False)
    train(resumed, settings, folder=tmp_path, resume=True, progress=False)
    assert same_bits(weights(whole.model), weights(resumed.model))
