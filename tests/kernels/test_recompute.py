"""What recomputing keeps for the way back."""

from __future__ import annotations

import pytest
import torch

from recurra import nn

BATCH, TIME, INPUT, HIDDEN = 2, 64, 16, 16


def kept(layer: torch.nn.Module, x: torch.Tensor) -> int:
    """Numbers that autograd keeps for the backward pass, inputs and parameters aside."""
    storages: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output, state = layer(x)
    own = {p.untyped_storage().data_ptr() for p in (x, *layer.parameters())}
    found = {at: t.untyped_storage().nbytes() // 4 for at, t in storages.items() if at not in own}
    output.sum().backward()  # alive until here, with its state
    assert state is not None
    return sum(found.values())


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    # In rows of the hidden size for each step: y and gates, and an LSTM's c.
    [(nn.LSTM, 6, 2), (nn.GRU, 5, 1), (nn.RNN, 1, 1)],
)
def test_the_core_keeps_no_gates(kind, before, after) -> None:
    x = torch.randn(TIME, BATCH, INPUT)
    step = TIME * BATCH * HIDDEN
    assert kept(kind(INPUT, HIDDEN, backend="cpu"), x) == before * step
    assert kept(kind(INPUT, HIDDEN, backend="cpu", recompute="gates"), x) == after * step


def test_the_reference_keeps_states_alone() -> None:
    x = torch.randn(TIME, BATCH, INPUT)
    layer = nn.LSTM(INPUT, HIDDEN, backend="reference")
    plain = kept(layer, x)
    layer.recompute = "gates"
    assert kept(layer, x) < 0.5 * plain


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_segments_keep_the_states_between_them_until_they_run_again(backend) -> None:
    x = torch.randn(TIME, BATCH, INPUT, requires_grad=True)
    layer = nn.LSTM(INPUT, HIDDEN, backend=backend, recompute=8)
    assert kept(layer, x) <= 8 * 2 * BATCH * HIDDEN


def test_nothing_is_cut_where_no_gradient_is_wanted(monkeypatch) -> None:
    from recurra.kernels import dispatch

    def forbidden(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(dispatch, "run_in_segments", forbidden)
    layer = nn.GRU(3, 4, recompute=4)
    with torch.no_grad():
        layer(torch.randn(9, 2, 3))
    with pytest.raises(AssertionError):
        layer(torch.randn(9, 2, 3))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("recompute", ["gates", 3])
def test_second_derivatives_go_through(backend, recompute) -> None:
    torch.manual_seed(0)
    layer = nn.GRU(2, 3, backend=backend, recompute=recompute, dtype=torch.float64)
    x = torch.randn(5, 2, 2, dtype=torch.float64, requires_grad=True)
    h = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, h: layer(x, h)[0].square(), (x, h))


@pytest.mark.parametrize("recompute", ["gates", 3])
def test_a_compiled_layer_gives_the_same(recompute) -> None:
    layer = nn.LSTM(3, 4, recompute=recompute)
    x = torch.randn(6, 2, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (layer, compiled):
        layer.zero_grad()
        run(x)[0].square().sum().backward()
        gradients.append(layer.weight_hh_l0.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_under_torch_func_the_numbers_are_the_same() -> None:
    layer = nn.RNN(3, 4, recompute=3)
    params = {name: p.detach() for name, p in layer.named_parameters()}
    x = torch.randn(6, 2, 3)

    def loss(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(layer, params, (x,))[0].square().sum()

    found = torch.func.grad(loss)(params)
    layer(x)[0].square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
