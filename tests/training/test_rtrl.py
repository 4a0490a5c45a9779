"""RTRL against full BPTT by the reference backend, and against sums worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from recurra.errors import ConfigError, ShapeError
from recurra.nn.ind_rnn import IndRNN
from recurra.nn.lru import LRU
from recurra.nn.lstm import LSTM
from recurra.nn.min_gru import MinGRU
from recurra.nn.min_lstm import MinLSTM
from recurra.nn.recurrent import Recurrent
from recurra.nn.rg_lru import RGLRU
from recurra.training.rtrl import RTRL

EXACT = {"rtol": 1e-10, "atol": 1e-12}
F64 = torch.float64
PLAIN = {"dtype": F64, "backend": "reference"}

LAYERS: dict[str, Callable[[], Recurrent]] = {
    "MinGRU": lambda: MinGRU(3, 4, **PLAIN),
    "MinGRU, any sign": lambda: MinGRU(3, 4, positive=False, **PLAIN),
    "MinGRU, no bias": lambda: MinGRU(3, 4, bias=False, **PLAIN),
    "MinGRU, residual": lambda: MinGRU(4, 4, residual=True, **PLAIN),
    "MinGRU, listed size": lambda: MinGRU(3, [4], **PLAIN),
    "MinGRU, one unit": lambda: MinGRU(1, 1, **PLAIN),
    "MinGRU, learned start": lambda: MinGRU(3, 4, learn_initial_state=True, **PLAIN),
    "MinLSTM": lambda: MinLSTM(3, 4, **PLAIN),
    "MinLSTM, any sign, no bias": lambda: MinLSTM(3, 4, bias=False, positive=False, **PLAIN),
    "MinLSTM, learned start": lambda: MinLSTM(3, 4, learn_initial_state=True, **PLAIN),
    "IndRNN": lambda: IndRNN(3, 4, **PLAIN),
    "IndRNN, tanh": lambda: IndRNN(3, 4, activation="tanh", **PLAIN),
    "IndRNN, no bias": lambda: IndRNN(3, 4, bias=False, **PLAIN),
    "IndRNN, learned start": lambda: IndRNN(3, 4, learn_initial_state=True, **PLAIN),
    "RGLRU": lambda: RGLRU(3, 4, **PLAIN),
    "RGLRU, two heads": lambda: RGLRU(3, 6, num_heads=2, **PLAIN),
    "RGLRU, three heads, no bias": lambda: RGLRU(2, 6, bias=False, num_heads=3, **PLAIN),
    "RGLRU, a head for each unit": lambda: RGLRU(3, 4, num_heads=4, **PLAIN),
    "RGLRU, learned start": lambda: RGLRU(3, 6, num_heads=2, learn_initial_state=True, **PLAIN),
}


def _layer(name: str, seed: int = 0) -> Recurrent:
    """A layer whose parameters are all different, biases and starts too."""
    torch.manual_seed(seed)
    layer = LAYERS[name]()
    with torch.no_grad():
        for value in layer.parameters():
            value.add_(0.4 * torch.randn_like(value))
    return layer


def _losses(output: Tensor, weights: Tensor) -> Tensor:
    """(T,) losses that are not linear in the output (T, B, H)."""
    return (output.tanh() * weights).sum((1, 2))


def _data(layer: Recurrent, time: int, batch: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """x (T, B, I), weights of the loss (T, B, H), reset (T, B)."""
    rng = torch.Generator().manual_seed(seed)
    size = layer.cells[0].hidden_size
    return (
        torch.randn(time, batch, layer.input_size, generator=rng, dtype=F64),
        torch.randn(time, batch, size, generator=rng, dtype=F64),
        torch.rand(time, batch, generator=rng) < 0.2,
    )


def _grads(layer: Recurrent) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in layer.named_parameters()}


def _bptt(layer: Recurrent, x: Tensor, weights: Tensor, reset: Tensor | None) -> list[Tensor]:
    """Gradients of the sum of all losses, over the whole sequence."""
    output, _ = layer(x, reset=None if reset is None else reset.t())
    total = _losses(output, weights).sum()
    return list(torch.autograd.grad(total, list(layer.parameters())))


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=20)
@given(
    time=st.integers(1, 7), batch=st.integers(1, 3), resets=st.booleans(), seed=st.integers(0, 99)
)
def test_gradients_added_up_over_steps_are_those_of_full_bptt(name, time, batch, resets, seed):
    layer = _layer(name, seed)
    x, weights, reset = _data(layer, time, batch, seed + 1)
    expected = _bptt(layer, x, weights, reset if resets else None)
    output, _ = layer(x, reset=reset.t() if resets else None)
    rtrl = RTRL(layer, batch)
    for t in range(time):
        y = rtrl.push(x[t], reset[t] if resets else None)
        torch.testing.assert_close(y, output[t], **EXACT)
        _losses(y[None], weights[t : t + 1]).sum().backward()
    for value, wanted in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(value.grad, wanted, **EXACT)


@pytest.mark.parametrize("name", LAYERS)
def test_a_long_memory_is_not_cut(name):
    layer = _layer(name)
    x, weights, _ = _data(layer, 70, 2)
    weights[:-1] = 0  # the loss is that of the last step alone
    rtrl = RTRL(layer, 2)
    for x_t in x[:-1]:
        rtrl.push(x_t)
    _losses(rtrl.push(x[-1])[None], weights[-1:]).sum().backward()
    for value, wanted in zip(layer.parameters(), _bptt(layer, x, weights, None), strict=True):
        torch.testing.assert_close(value.grad, wanted, **EXACT)


def test_losses_may_also_be_summed_before_backward():
    layer = _layer("RGLRU, two heads")
    x, weights, reset = _data(layer, 6, 2)
    rtrl = RTRL(layer, 2)
    output = torch.stack([rtrl.push(*step) for step in zip(x, reset, strict=True)])
    _losses(output, weights).sum().backward()
    expected = _bptt(layer, x, weights, reset)
    for value, wanted in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(value.grad, wanted, **EXACT)


def _accumulator(u: float) -> IndRNN:
    """h' = relu(w x + u h) with w = 1: on inputs of 1, h_T = 1 + u + u² + ..."""
    layer = IndRNN(1, 1, bias=False, dtype=F64)
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1)
        layer.weight_hh_l0.fill_(u)
    return layer


def test_gradient_of_a_geometric_sum():
    layer = _accumulator(0.5)
    rtrl, one = RTRL(layer), torch.ones(1, 1, dtype=F64)
    for _ in range(20):
        y = rtrl.push(one)
    y.backward()
    assert y.item() == pytest.approx(sum(0.5**k for k in range(20)), rel=1e-14)
    assert layer.weight_hh_l0.grad.item() == pytest.approx(
        sum(k * 0.5 ** (k - 1) for k in range(1, 20)), rel=1e-14
    )
    assert layer.weight_ih_l0.grad.item() == pytest.approx(y.item(), rel=1e-14)


def test_updates_between_steps_are_seen_and_old_traces_kept():
    layer = _accumulator(0.5)
    rtrl, one = RTRL(layer), torch.ones(1, 1, dtype=F64)
    h, by_u = 0.0, 0.0
    for step in range(10):
        u = 0.5 + 0.03 * step
        with torch.no_grad():
            layer.weight_hh_l0.fill_(u)
        layer.weight_hh_l0.grad = None
        rtrl.push(one).backward()
        h, by_u = 1 + u * h, h + u * by_u
        assert layer.weight_hh_l0.grad.item() == pytest.approx(by_u, rel=1e-14)


def test_a_learned_start_is_read_when_a_row_starts():
    layer = _layer("IndRNN, learned start")
    x, _, _ = _data(layer, 1, 2)
    rtrl = RTRL(layer, 2)
    with torch.no_grad():
        layer.h_0_l0.add_(1)
    torch.testing.assert_close(rtrl.push(x[0]), layer(x)[0][0], **EXACT)


def _held(rtrl: RTRL, output: Tensor) -> tuple[int, int]:
    """Nodes of the output's graph, and bytes of all that it and the learner keep."""
    nodes, seen = [output.grad_fn], []
    while nodes:
        node = nodes.pop()
        seen.append(node)
        nodes += [after for after, _ in node.next_functions if after is not None]
    saved = [t for node in seen for t in getattr(node, "saved_tensors", ())]
    own = [rtrl._h, *rtrl._traces.values()]
    assert not any(t.requires_grad or t.grad_fn for t in own)
    return len(seen), sum(t.untyped_storage().nbytes() for t in [*saved, *own])


@pytest.mark.parametrize("name", ["MinGRU", "IndRNN, learned start", "RGLRU, two heads"])
def test_what_is_held_does_not_grow_with_time(name):
    layer = _layer(name)
    x, _, _ = _data(layer, 60, 2)
    rtrl = RTRL(layer, 2)
    held = [_held(rtrl, rtrl.push(x_t)) for x_t in x]
    assert len(set(held)) == 1


def test_traces_have_one_number_for_each_parameter_and_row_and_head_units_for_rglru():
    def count(layer: Recurrent) -> int:
        rtrl = RTRL(layer, 5)
        rtrl.push(torch.zeros(5, 3, dtype=F64))
        return sum(trace.numel() for trace in rtrl._traces.values())

    assert count(_layer("MinGRU")) == 5 * (8 * 3 + 8)
    assert count(_layer("IndRNN")) == 5 * (4 * 3 + 4 + 4)
    assert count(_layer("RGLRU, two heads")) == 5 * (3 * (6 * 3 + 6) + 2 * 2 * 9 + 12 + 6)


def test_reset_clears_nan_and_leaves_other_rows_alone():
    layer = _layer("MinLSTM")
    x, weights, _ = _data(layer, 4, 2)
    spoiled = x.clone()
    spoiled[1, 0] = torch.nan
    rtrl = RTRL(layer, 2)
    for t in range(2):
        rtrl.push(spoiled[t])
    reset = torch.tensor([True, False])
    _losses(rtrl.push(x[2], reset)[None], weights[2:3]).sum().backward()
    found = _grads(layer)
    flags = torch.zeros(3, 2, dtype=torch.bool)
    flags[2] = reset
    only_last = torch.cat([torch.zeros_like(weights[:2]), weights[2:3]])
    for value, wanted in zip(found.values(), _bptt(layer, x[:3], only_last, flags), strict=True):
        torch.testing.assert_close(value, wanted, **EXACT)


def test_steps_without_grad_move_the_traces_on():
    layer = _layer("MinGRU")
    x, weights, _ = _data(layer, 5, 2)
    weights[:-1] = 0
    rtrl = RTRL(layer, 2)
    with torch.no_grad():
        assert not any(rtrl.push(x_t).requires_grad for x_t in x[:-1])
    _losses(rtrl.push(x[-1])[None], weights[-1:]).sum().backward()
    for value, wanted in zip(layer.parameters(), _bptt(layer, x, weights, None), strict=True):
        torch.testing.assert_close(value.grad, wanted, **EXACT)


def test_an_output_changed_in_place_changes_no_state():
    layer = _layer("MinGRU")
    x, _, _ = _data(layer, 2, 1)
    rtrl = RTRL(layer)
    rtrl.push(x[0]).detach().zero_()
    torch.testing.assert_close(rtrl.push(x[1]), layer(x)[0][1], **EXACT)


def test_gradients_go_on_through_a_parametrization_and_skip_what_is_frozen():
    layer = _layer("MinGRU")
    weight_norm(layer, "weight_ih_l0")
    layer.bias_ih_l0.requires_grad_(False)
    x, weights, _ = _data(layer, 5, 2)
    trained = [value for value in layer.parameters() if value.requires_grad]
    expected = torch.autograd.grad(_losses(layer(x)[0], weights).sum(), trained)
    rtrl = RTRL(layer, 2)
    for t in range(5):
        _losses(rtrl.push(x[t])[None], weights[t : t + 1]).sum().backward()
    assert len(trained) == 2
    assert layer.bias_ih_l0.grad is None
    for value, wanted in zip(trained, expected, strict=True):
        torch.testing.assert_close(value.grad, wanted, **EXACT)


def test_float32_stays_float32():
    layer = MinGRU(3, 4)
    y = RTRL(layer, 2).push(torch.zeros(2, 3))
    y.sum().backward()
    assert y.dtype == layer.weight_ih_l0.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Linear(3, 4), "layer is a Linear"),
        (LSTM(3, 4), "no RTRL for the recurrence of LSTM; expected one of IndRNN, MinGRU"),
        (LRU(3, 4), "no RTRL for the recurrence of LRU"),
        (MinGRU(3, 4, num_layers=2), "the MinGRU has 2 layers"),
        (MinGRU(3, 4, bidirectional=True), "bidirectional=True"),
        (MinGRU(3, 4, zoneout=0.1), "zoneout=0.1"),
        (MinGRU(3, 4, variational_dropout=0.2), "variational_dropout=0.2"),
        (IndRNN(3, 4, recurrent_dropout=0.3), "recurrent_dropout=0.3"),
        (MinGRU(3, 4, clip_state_grad=1.0), "clip_state_grad=1.0"),
    ],
)
def test_layers_that_it_cannot_follow_are_refused(layer, words):
    with pytest.raises(ConfigError, match=words):
        RTRL(layer)


@pytest.mark.parametrize("batch_size", [0, -1, True, 1.5, None])
def test_batch_size_must_be_a_positive_integer(batch_size):
    with pytest.raises(ConfigError, match=f"batch_size is {batch_size!r}"):
        RTRL(MinGRU(3, 4), batch_size)


@pytest.mark.parametrize(
    "x", [torch.zeros(3), torch.zeros(1, 3), torch.zeros(2, 1, 3), torch.zeros(2, 3, dtype=F64)]
)
def test_x_must_be_one_step_of_the_batch(x):
    with pytest.raises(ShapeError, match=r"expected \(2, 3\), torch.float32 on cpu"):
        RTRL(MinGRU(3, 4), 2).push(x)


def test_x_that_requires_a_gradient_is_refused():
    with pytest.raises(ConfigError, match=r"Push x\.detach\(\)"):
        RTRL(MinGRU(3, 4), 2).push(torch.zeros(2, 3, requires_grad=True))


@pytest.mark.parametrize("reset", [torch.zeros(2), torch.zeros(2, 1).bool(), torch.zeros(3).bool()])
def test_reset_must_be_one_flag_for_each_row(reset):
    rtrl = RTRL(MinGRU(3, 4), 2)
    with pytest.raises(ShapeError, match=r"expected bool of shape \(2,\)"):
        rtrl.push(torch.zeros(2, 3), reset)


def test_lists_are_told_from_tensors():
    rtrl = RTRL(MinGRU(3, 4), 2)
    with pytest.raises(ShapeError, match=r"x is a list; expected a tensor of shape \(2, 3\)"):
        rtrl.push([[0.0] * 3] * 2)
    with pytest.raises(ShapeError, match=r"reset is a list; expected a bool tensor of shape \(2,"):
        rtrl.push(torch.zeros(2, 3), reset=[True, False])
