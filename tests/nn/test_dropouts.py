"""Dropout inside the recurrence: what is drawn, when, and that no backend changes it."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recurra import nn
from recurra.kernels import dispatch, reference
from recurra.kernels.sequence import Features, Sequence

KINDS = ["RNN", "LSTM", "GRU", "IndRNN", "LEM", "SLSTM"]
PARTS = {"LSTM": 2, "LEM": 2, "SLSTM": 4}  # of the state; 1 elsewhere
every_kind = pytest.mark.parametrize("kind", KINDS)
ALL = {"zoneout": 0.3, "recurrent_dropout": 0.4, "variational_dropout": 0.2}


def _make(kind: str, *arguments, **options) -> torch.nn.Module:
    torch.manual_seed(3)
    layer = getattr(nn, kind)(*arguments, **options)
    if kind == "SLSTM":  # it is drawn without recurrence, and then a mask changes nothing
        for name, value in layer.named_parameters():
            if name.startswith("weight_hh"):
                torch.nn.init.uniform_(value, -0.5, 0.5)
    return layer


def _seeded(layer: torch.nn.Module, *arguments, **options):
    torch.manual_seed(8)
    return layer(*arguments, **options)


def _flat(state) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    return [leaf for part in state for leaf in _flat(part)]


@pytest.fixture
def calls(monkeypatch) -> list[Sequence]:
    """The calls that reach the backends: `recorder` stands for another one than the reference."""
    seen: list[Sequence] = []

    def run(sequence: Sequence):
        seen.append(sequence)
        return reference.run(sequence)

    recorder = SimpleNamespace(why_not=reference.why_not, run=run)
    both = {"reference": SimpleNamespace(why_not=reference.why_not, run=run), "recorder": recorder}
    monkeypatch.setattr(dispatch, "BACKENDS", both)
    return seen


@pytest.mark.parametrize("batch_first", [False, True])
def test_training_draws_masks_for_each_layer_and_direction(calls, batch_first) -> None:
    layer = _make(
        "LSTM",
        3,
        [40, 50],
        bidirectional=True,
        batch_first=batch_first,
        proj_size=30,
        zoneout=(0.25, 0.5),
        recurrent_dropout=0.4,
    )
    batch, time = 20, 7
    _seeded(layer, torch.zeros((batch, time, 3) if batch_first else (time, batch, 3)))
    assert [call.reverse for call in calls] == [False, True, False, True]
    over_time = (batch, time) if batch_first else (time, batch)
    drawn = []
    for call, hidden in zip(calls, [40, 40, 50, 50], strict=True):
        mask, (keep_h, keep_c) = call.masks.h, call.zoneout.keep
        assert mask.shape == (batch, 30)
        assert keep_h.shape == (*over_time, 30)
        assert keep_c.shape == (*over_time, hidden)
        assert set(keep_h.unique().tolist()) == set(keep_c.unique().tolist()) == {0.0, 1.0}
        torch.testing.assert_close(mask.unique(), torch.tensor([0.0, 1 / 0.6]))
        assert float((mask == 0).float().mean()) == pytest.approx(0.4, abs=0.07)
        assert float(keep_h.mean()) == pytest.approx(0.25, abs=0.04)
        assert float(keep_c.mean()) == pytest.approx(0.5, abs=0.04)
        drawn.append((mask, keep_h))
    for (mask, keep), (other_mask, other_keep) in itertools.pairwise(drawn):
        assert not torch.equal(mask, other_mask)
        assert not torch.equal(keep, other_keep)


@pytest.mark.parametrize("batch_first", [False, True])
def test_every_layers_input_is_dropped_alike_at_every_step(calls, batch_first) -> None:
    layer = _make("GRU", 30, 40, 2, batch_first=batch_first, variational_dropout=0.2)
    ones = torch.ones((5, 7, 30) if batch_first else (7, 5, 30))
    _seeded(layer, ones)
    first, second = (call.x if batch_first else call.x.transpose(0, 1) for call in calls)
    assert torch.equal(first, first[:, :1].expand_as(first))
    torch.testing.assert_close(first.unique(), torch.tensor([0.0, 1.25]))
    assert float((first[:, 0] == 0).float().mean()) == pytest.approx(0.2, abs=0.1)
    assert not torch.equal(first[0], first[1]), "rows have masks of their own"
    dropped = second[:, 0] == 0
    assert 0.1 < float(dropped.float().mean()) < 0.3
    assert torch.equal(second == 0, dropped.unsqueeze(1).expand_as(second))


@every_kind
def test_the_same_seed_draws_the_same_for_every_backend(calls, kind) -> None:
    x, results = torch.randn(7, 5, 3), []
    for backend in ("reference", "recorder"):
        layer = _make(kind, 3, 4, 2, dropout=0.3, bidirectional=True, backend=backend, **ALL)
        results.append(_flat(_seeded(layer, x)))
    for left, right in zip(*results, strict=True):
        assert torch.equal(left, right)
    for left, right in zip(calls[:4], calls[4:], strict=True):
        assert torch.equal(left.x, right.x)
        assert torch.equal(left.masks.h, right.masks.h)
        for keep, other in zip(left.zoneout.keep, right.zoneout.keep, strict=True):
            assert torch.equal(keep, other)


@every_kind
def test_evaluation_draws_nothing_and_keeps_the_expectation(calls, kind) -> None:
    layer, x = _make(kind, 3, 4, 2, **ALL).eval(), torch.randn(7, 5, 3)
    before = torch.get_rng_state()
    layer(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert calls[0].x is x
    for call in calls:
        assert call.masks is None
        assert set(call.zoneout.keep) == {0.3}
        assert len(call.zoneout.keep) == PARTS.get(kind, 1)


def test_expected_zoneout_by_hand() -> None:
    layer = _make("LSTM", 3, 4, zoneout=(0.1, 0.7)).eval()
    x, h, c = torch.randn(6, 2, 3), torch.zeros(2, 4), torch.zeros(2, 4)
    output, (h_n, c_n) = layer(x)
    for t in range(6):
        gates = x[t] @ layer.weight_ih_l0.t() + layer.bias_ih_l0
        i, f, g, o = (gates + h @ layer.weight_hh_l0.t() + layer.bias_hh_l0).chunk(4, 1)
        stepped = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = 0.1 * h + 0.9 * o.sigmoid() * stepped.tanh()
        c = 0.7 * c + 0.3 * stepped
        torch.testing.assert_close(output[t], h)
    torch.testing.assert_close((h_n[0], c_n[0]), (h, c))


@every_kind
def test_zero_asks_for_nothing_and_draws_nothing(calls, kind) -> None:
    zeros = dict.fromkeys(ALL, 0.0) | ({"zoneout": (0, 0.0)} if kind == "LSTM" else {})
    layer, x = _make(kind, 3, 4, 2, **zeros), torch.randn(7, 5, 3)
    before = torch.get_rng_state()
    layer(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(calls) == 2
    for call in calls:
        assert (call.masks, call.zoneout) == (None, None)
        assert call.features() == Features(5, 7, reverse=call.reverse)


def test_a_part_that_is_never_kept_has_no_tensor(calls) -> None:
    _make("LSTM", 3, 4, zoneout=(0.0, 0.5))(torch.zeros(7, 2, 3))
    keep_h, keep_c = calls[0].zoneout.keep
    assert keep_h == 0.0
    assert keep_c.shape == (7, 2, 4)


@every_kind
def test_all_dropped_on_h_is_a_network_without_recurrence(kind) -> None:
    layer, x = _make(kind, 3, 4, recurrent_dropout=1.0), torch.randn(7, 5, 3)
    output, _ = layer(x)
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
    torch.testing.assert_close(output, layer.eval()(x)[0])


@every_kind
@pytest.mark.parametrize("training", [True, False])
def test_all_kept_returns_the_state_passed_in(kind, training) -> None:
    layer, x = _make(kind, 3, 4, zoneout=1.0).train(training), torch.randn(7, 5, 3)
    _, state = _make(kind, 3, 4)(x)
    output, final = layer(x, state)
    for left, right in zip(_flat(final), _flat(state), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(output, _flat(state)[0].expand_as(output))


@every_kind
def test_lengths_resets_and_packed_rows_go_with_all_of_them(kind) -> None:
    layer = _make(kind, 3, 4, 2, bidirectional=True, dropout=0.3, **ALL).double()
    x, lengths = torch.randn(7, 3, 3).double(), torch.tensor([4, 7, 2])
    x[torch.arange(7).unsqueeze(1) >= lengths] = torch.nan
    reset = torch.rand(3, 7) < 0.3
    output, final = _seeded(layer, x, lengths=lengths, reset=reset)
    (output.sum() + sum(part.sum() for part in _flat(final))).backward()
    for parameter in layer.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
    assert not output[2:, 2].any()
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    unpacked, own = _seeded(layer, packed, reset=reset)
    torch.testing.assert_close(pad_packed_sequence(unpacked)[0], output)
    torch.testing.assert_close(_flat(own), _flat(final))


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_one_sequence_without_batch_axis_is_a_batch_of_one(kind, batch_first) -> None:
    layer, x = _make(kind, 3, 4, 2, batch_first=batch_first, **ALL), torch.randn(7, 3)
    axis = 0 if batch_first else 1
    output, final = _seeded(layer, x)
    expected, own = _seeded(layer, x.unsqueeze(axis))
    torch.testing.assert_close(output, expected.squeeze(axis))
    torch.testing.assert_close(_flat(final), [part.squeeze(1) for part in _flat(own)])


def test_short_dtypes_draw_what_float32_draws(calls) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        layer = _make("GRU", 3, 100, zoneout=0.001, dtype=dtype)
        _seeded(layer, torch.zeros(30, 20, 3, dtype=dtype))
    kept = [call.zoneout.keep[0] for call in calls]
    assert [keep.dtype for keep in kept] == [torch.float32, torch.bfloat16, torch.float64]
    assert torch.equal(kept[0], kept[1].float())
    assert torch.equal(kept[0], kept[2].float())
    assert float(kept[0].mean()) == pytest.approx(0.001, rel=0.5)


@every_kind
def test_torch_func_draws_for_each_sample_when_told_so(kind) -> None:
    layer, x = _make(kind, 3, 4, **ALL), torch.ones(6, 5, 3)
    run = torch.func.vmap(lambda row: layer(row)[0], randomness="different")
    output = run(x)
    assert output.shape == (6, 5, 4)
    assert not torch.equal(output[0], output[1])


@every_kind
def test_autocast_takes_masks_and_zoneout_along(kind) -> None:
    layer, x = _make(kind, 3, 4, 2, bidirectional=True, **ALL), torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output, final = layer(x)
    assert {leaf.dtype for leaf in _flat((output, final))} == {torch.bfloat16}
