"""What our layers have beyond torch's: lengths, resets, sizes per layer, parameters seen live."""

from __future__ import annotations

import copy
import io

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.utils import parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence

from recurra import nn
from recurra.kernels import dispatch

KINDS = ["RNN", "LSTM", "GRU", "IndRNN", "LEM", "SLSTM", "MLSTM"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def _make(kind: str, *arguments, **options) -> torch.nn.Module:
    torch.manual_seed(3)
    return getattr(nn, kind)(*arguments, **options)


def _weight(kind: str) -> str:
    """A parameter of the first layer that is not drawn as zeros: recurrent where there is one."""
    return "weight_ih_l0" if kind in ("SLSTM", "MLSTM") else "weight_hh_l0"


def _flat(state) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    return [leaf for part in state for leaf in _flat(part)]


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_row_of_a_ragged_batch_is_as_alone(kind, bidirectional) -> None:
    layer = _make(kind, 3, 4, 2, bidirectional=bidirectional, batch_first=True)
    x, lengths = torch.randn(4, 6, 3), torch.tensor([3, 6, 0, 1], dtype=torch.int32)
    x[torch.arange(6) >= lengths.unsqueeze(1)] = torch.nan
    output, final = layer(x, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        assert not output[row, length:].any()
        if length == 0:
            assert not any(part[:, row].any() for part in _flat(final))
            continue
        alone, own = layer(x[row, :length])
        torch.testing.assert_close(output[row, :length], alone)
        torch.testing.assert_close([p[:, row] for p in _flat(final)], _flat(own))


@every_kind
@pytest.mark.parametrize("batch_first", [False, True])
def test_reset_flags_are_batch_by_time_in_either_layout(kind, batch_first) -> None:
    layer = _make(kind, 3, 4, 2, batch_first=batch_first)
    x = torch.randn(2, 5, 3)
    reset = torch.tensor([[False, False, True, False, False], [False] * 5])

    def run(rows: Tensor, **extra) -> Tensor:
        output, _ = layer(rows if batch_first else rows.transpose(0, 1), **extra)
        return output if batch_first else output.transpose(0, 1)

    output = run(x, reset=reset)
    torch.testing.assert_close(output[0, 2:], run(x[:1, 2:])[0])
    torch.testing.assert_close(output[1], run(x[1:])[0])


@every_kind
def test_reset_and_lengths_without_batch_axis(kind) -> None:
    layer = _make(kind, 3, 4)
    x, reset = torch.randn(5, 3), torch.tensor([False, False, True, False, False])
    output, final = layer(x, reset=reset, lengths=torch.tensor(4))
    expected, own = layer(x[2:4])
    torch.testing.assert_close(output[2:4], expected)
    torch.testing.assert_close(_flat(final), _flat(own))
    assert not output[4:].any()


@every_kind
def test_reset_with_packed_rows_keeps_the_order_of_rows(kind) -> None:
    layer = _make(kind, 3, 4, batch_first=True)
    x, lengths = torch.randn(3, 5, 3), torch.tensor([2, 5, 4])
    reset = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]).bool()
    packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    output, final = layer(packed, reset=reset)
    unpacked, _ = torch.nn.utils.rnn.pad_packed_sequence(output, True)
    expected, own = layer(x, lengths=lengths, reset=reset)
    torch.testing.assert_close(unpacked, expected)
    torch.testing.assert_close(_flat(final), _flat(own))


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_sizes_per_layer_equal_layers_one_after_another(kind, bidirectional) -> None:
    ways = 2 if bidirectional else 1
    layer = _make(kind, 3, [6, 4], bidirectional=bidirectional)
    assert layer.num_layers == 2
    lower = _make(kind, 3, 6, bidirectional=bidirectional)
    upper = _make(kind, 6 * ways, 4, bidirectional=bidirectional)
    weights = layer.state_dict()
    lower.load_state_dict({k: v for k, v in weights.items() if "_l0" in k})
    upper.load_state_dict({k.replace("_l1", "_l0"): v for k, v in weights.items() if "_l1" in k})
    x = torch.randn(5, 2, 3)
    between, first = lower(x)
    expected, second = upper(between)
    output, final = layer(x)
    torch.testing.assert_close(output, expected)
    parts = (final,) if isinstance(final[0], Tensor) else final
    for part, low, high in zip(parts, _pairwise(first), _pairwise(second), strict=True):
        assert isinstance(part, tuple)
        torch.testing.assert_close(part, (low, high))
    continued, _ = layer(x, final)
    whole, _ = layer(torch.cat([x, x]), None)
    if not bidirectional:
        torch.testing.assert_close(continued, whole[5:])
    alone, last = layer(x[:, 0], tuple_of(final, lambda part: part[:, 0]))
    torch.testing.assert_close(alone, continued[:, 0])
    assert [part.dim() for part in _flat(last)] == [2] * len(_flat(last))


def _pairwise(state) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def tuple_of(state, change):
    if isinstance(state, Tensor):
        return change(state)
    return tuple(tuple_of(part, change) for part in state)


@every_kind
def test_parametrized_weight_is_seen_and_trained(kind) -> None:
    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, weight: Tensor) -> Tensor:
            return weight * self.factor

    layer, x = _make(kind, 3, 4), torch.randn(5, 2, 3)
    halved, name = copy.deepcopy(layer), _weight(kind)
    with torch.no_grad():
        getattr(halved, name).mul_(0.5)
    parametrize.register_parametrization(layer, name, Scale())
    output, _ = layer(x)
    torch.testing.assert_close(output, halved(x)[0])
    output.sum().backward()
    scale = layer.parametrizations[name][0]
    assert scale.factor.grad is not None
    assert scale.factor.grad != 0


@every_kind
def test_changed_weights_are_seen_at_the_next_call(kind) -> None:
    layer, x = _make(kind, 3, 4), torch.randn(5, 2, 3)
    before, _ = layer(x)
    layer.weight_ih_l0.data = layer.weight_ih_l0.data * 2
    after, _ = layer(x)
    assert not torch.allclose(before, after)
    prune.random_unstructured(layer, _weight(kind), 0.5)
    assert not torch.allclose(layer(x)[0], after)
    zeros = {name: torch.zeros_like(value) for name, value in layer.named_parameters()}
    output, _ = torch.func.functional_call(layer, zeros, (x,))
    assert not output.any()


@every_kind
def test_a_copy_does_not_share(kind) -> None:
    layer, x = _make(kind, 3, 4), torch.randn(5, 2, 3)
    twin = copy.deepcopy(layer)
    before, _ = twin(x)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    assert torch.equal(twin(x)[0], before)


@every_kind
def test_saved_and_loaded_weights_give_the_same_bits(kind) -> None:
    layer, x = _make(kind, 3, [4, 5], bidirectional=True), torch.randn(5, 2, 3)
    content = safetensors.torch.save(layer.state_dict())
    torch.manual_seed(9)
    other = getattr(nn, kind)(3, [4, 5], bidirectional=True)
    other.load_state_dict(safetensors.torch.load(io.BytesIO(content).getvalue()))
    for left, right in zip(_flat(layer(x)), _flat(other(x)), strict=True):
        assert torch.equal(left, right)


@every_kind
@pytest.mark.parametrize("time", [0, 1])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_short_and_empty_sequences(kind, time, bidirectional) -> None:
    layer = _make(kind, 3, 4, 2, bidirectional=bidirectional)
    _, state = layer(torch.randn(2, 5, 3))
    output, final = layer(torch.randn(time, 5, 3), state)
    assert output.shape == (time, 5, 8 if bidirectional else 4)
    if time == 0:
        torch.testing.assert_close(final, state)


@every_kind
def test_autocast_gives_its_dtype_and_takes_states_of_either(kind) -> None:
    layer, x = _make(kind, 3, 4, 2, bidirectional=True), torch.randn(5, 2, 3)
    exact, state = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        output, final = layer(x)
        continued, _ = layer(x.bfloat16(), state)
        layer(x, final)
    assert {leaf.dtype for leaf in _flat((output, final, continued))} == {torch.bfloat16}
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.05)


@every_kind
def test_gradients_per_sample_through_the_layer(kind) -> None:
    layer, x = _make(kind, 3, 4, 2, bidirectional=True).double(), torch.randn(4, 5, 3).double()
    params = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(params: dict[str, Tensor], row: Tensor) -> Tensor:
        output, _ = torch.func.functional_call(layer, params, (row,))
        return output.square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(params, x)
    together = torch.func.grad(lambda p: loss(p, x.transpose(0, 1)))(params)
    for name, gradient in together.items():
        torch.testing.assert_close(per_sample[name].sum(0), gradient)


def test_layers_on_the_meta_device_and_in_other_dtypes() -> None:
    layer = nn.LSTM(3, 4, device="meta", dtype=torch.bfloat16)
    assert {p.device.type for p in layer.parameters()} == {"meta"}
    assert {p.dtype for p in layer.parameters()} == {torch.bfloat16}


def test_repr_says_what_is_unusual() -> None:
    assert repr(nn.GRU(3, 5)) == "GRU(3, 5)"
    layer = nn.LSTM(3, [8, 5], batch_first=True, proj_size=2, backend="reference")
    assert repr(layer) == "LSTM(3, (8, 5), proj_size=2, batch_first=True, backend='reference')"
    assert repr(nn.RNN(3, 5, 2, "relu")) == "RNN(3, 5, num_layers=2, nonlinearity='relu')"
    layer = nn.IndRNN(3, 5, activation="tanh", memory_length=9)
    assert repr(layer) == "IndRNN(3, 5, activation='tanh', memory_length=9)"
    assert repr(nn.LEM(3, 5, dt=0.5)) == "LEM(3, 5, dt=0.5)"
    assert repr(nn.SLSTM(3, 4, forget_gate="exp")) == "SLSTM(3, 4, forget_gate='exp')"
    assert repr(nn.MLSTM(3, [4, 2], num_heads=2)) == "MLSTM(3, (4, 2), num_heads=2)"
    layer = nn.LSTM(3, 5, zoneout=[0.05, 0.5], recurrent_dropout=0.25, variational_dropout=1)
    assert repr(layer) == (
        "LSTM(3, 5, zoneout=(0.05, 0.5), recurrent_dropout=0.25, variational_dropout=1.0)"
    )


@every_kind
def test_both_directions_reach_the_backend_in_one_call(kind, monkeypatch) -> None:
    seen = []

    def run_together(calls, backend):
        seen.append(([call.reverse for call in calls], {id(call.x) for call in calls}, backend))
        return together(calls, backend)

    together = dispatch.run_together
    monkeypatch.setattr(dispatch, "run_together", run_together)
    layer = _make(kind, 3, 4, 2, bidirectional=True, backend="reference")
    layer(torch.randn(5, 2, 3))
    assert [(reverse, len(xs), b) for reverse, xs, b in seen] == [
        ([False, True], 1, "reference")
    ] * 2
