"""What comes to the compiled core's doors: the right answer, or an error that says why.

The core reads memory at addresses, so a tensor that it does not expect must not get in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

import recurra
from recurra import nn
from recurra.cells.gru import GRU
from recurra.errors import BackendError, ShapeError
from recurra.kernels import core, cpu, dispatch, linear, scan
from recurra.kernels.scan import linear_scan, min_gru_scan
from recurra.kernels.sequence import Sequence
from recurra.kernels.stream import CoreStream

if core.module is None:
    pytest.skip("the compiled core is not built here", allow_module_level=True)

KINDS = pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
SCANS = pytest.mark.parametrize("run", [linear_scan, min_gru_scan])


class Pair(Tensor):
    """A tensor without memory of its own: its values are the sum of two others."""

    a: Tensor
    b: Tensor

    @staticmethod
    def __new__(cls, a: Tensor, b: Tensor) -> Pair:
        made = Tensor._make_wrapper_subclass(cls, a.shape, dtype=a.dtype, strides=a.stride())
        made.a, made.b = a, b
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def plain(value: Any) -> Any:
            return value.a + value.b if isinstance(value, Pair) else value

        if func is torch.ops.aten.detach.default:
            return Pair(args[0].a, args[0].b)
        args, kwargs = torch.utils._pytree.tree_map(plain, (args, kwargs or {}))
        return func(*args, **kwargs)


def pair(tensor: Tensor) -> Pair:
    return Pair(tensor / 2, tensor / 2)


def params_of(layer: torch.nn.Module, **changed: Tensor) -> dict[str, Tensor]:
    return {**{name: p.detach() for name, p in layer.named_parameters()}, **changed}


def call(x: Tensor, cell: GRU | None = None, **params: Tensor) -> Sequence:
    cell = cell or GRU(3, 4)
    shapes = cell.parameter_shapes()
    plain = {name: torch.full(shape, 0.1) for name, shape in shapes.items()}
    return Sequence(cell, x, {**plain, **params})


@KINDS
@pytest.mark.parametrize("name", ["weight_hh", "bias_ih", "bias_hh"])
def test_a_parameter_of_another_dtype_is_named(kind, name) -> None:
    layer, x = getattr(nn, kind)(3, 4), torch.zeros(5, 2, 3)
    layer._parameters[f"{name}_l0"].data = layer._parameters[f"{name}_l0"].data.double()
    with pytest.raises(ShapeError, match=rf"{name} is torch.float64 .*must be torch.float32 \("):
        layer(x)
    with torch.no_grad(), pytest.raises(ShapeError, match=name):
        layer(x)


@KINDS
def test_a_parameter_of_another_shape_is_named(kind) -> None:
    layer, x = getattr(nn, kind)(3, 4), torch.zeros(5, 2, 3)
    wide = layer.weight_hh_l0.shape[0]
    small = params_of(layer, weight_hh_l0=torch.zeros(wide, 2))
    with pytest.raises(ShapeError, match=rf"weight_hh is .*\({wide}, 2\).*\({wide}, 4\) on cpu"):
        functional_call(layer, small, (x,))
    short = params_of(layer, bias_hh_l0=torch.zeros(1))
    with pytest.raises(ShapeError, match=rf"bias_hh is .*\(1,\) .*\({wide},\)"):
        functional_call(layer, short, (x,))


def test_a_parameter_on_another_device_is_not_an_absent_one() -> None:
    layer = nn.GRU(3, 4)
    elsewhere = params_of(layer, bias_ih_l0=torch.zeros(12, device="meta"))
    with torch.no_grad(), pytest.raises(ShapeError, match=r"bias_ih is .* on meta, but .* on cpu"):
        functional_call(layer, elsewhere, (torch.zeros(5, 2, 3),))


def test_parameters_are_checked_before_they_are_widened() -> None:
    layer = nn.GRU(3, 4, dtype=torch.bfloat16)
    layer.bias_hh_l0.data = layer.bias_hh_l0.data.double()
    with pytest.raises(ShapeError, match=r"bias_hh is torch.float64 .*must be torch.bfloat16"):
        layer(torch.zeros(5, 2, 3, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"state": (torch.zeros(2, 3),)}, r"the initial h is .*\(2, 3\).*\(2, 4\)"),
        ({"state": (torch.zeros(2, 4).double(),)}, r"the initial h is torch.float64"),
        ({"reset": torch.zeros(5, 2, dtype=torch.bool)}, r"reset is .*\(5, 2\).*\(2, 5\)"),
        ({"masks": torch.ones(3, 4)}, r"the mask is .*\(3, 4\).*\(2, 4\)"),
        ({"zoneout": torch.ones(2, 5, 1)}, r"zoneout is .*\(2, 5, 1\).*\(2, 5, 4\)"),
        ({"x": torch.zeros(2, 5, 7)}, r"x is .*\(2, 5, 7\).*\(2, 5, 3\)"),
    ],
)
def test_whatever_else_does_not_fit_is_named(wrong, says) -> None:

    from recurra.cells.cell import Masks
    from recurra.kernels.sequence import Zoneout

    given = dict(wrong)
    plain = call(torch.zeros(2, 5, 3))
    if "state" in given:
        given["state"] = plain.cell.make_state(*given["state"])
    if "masks" in given:
        given["masks"] = Masks(given["masks"])
    if "zoneout" in given:
        given["zoneout"] = Zoneout((given["zoneout"],))
    with pytest.raises(ShapeError, match=says):
        cpu.run(plain._replace(**given))


def test_tensors_of_a_subclass_are_run_by_the_reference() -> None:
    x = torch.randn(2, 5, 3)
    expected, _ = cpu.run(call(x))
    weight, bias = torch.full((12, 4), 0.1), torch.full((12,), 0.1)
    for made in (call(pair(x)), call(x, weight_hh=pair(weight)), call(x, bias_hh=pair(bias))):
        found, _ = dispatch.run(made)
        assert found == pytest.approx(expected, abs=1e-6)
        with pytest.raises(BackendError, match=r"'cpu' cannot run this GRU: a tensor .* subclass"):
            dispatch.run(made, "cpu")
    a = torch.rand(2, 5, 3)
    for run in (linear_scan, min_gru_scan):
        found = run(a, pair(x))[0]
        assert found == pytest.approx(run(a, x)[0], abs=1e-6)
    with torch.no_grad():
        wide = torch.randn(4, 3)
        found = linear.linear(pair(x), wide)
        assert found == pytest.approx(F.linear(x, wide), abs=1e-6)


def test_a_stream_checks_every_parameter() -> None:
    cell = GRU(3, 4)

    def start(**changed: Tensor) -> CoreStream:
        return CoreStream(
            [cell], [call(torch.zeros(1, 1, 3), **changed).params], 1, "float32", 1, [(0.0,)]
        )

    start()
    with pytest.raises(ShapeError, match=r"bias_hh is torch.float64"):
        start(bias_hh=torch.zeros(12).double())
    with pytest.raises(ShapeError, match=r"weight_hh is .*\(12, 2\).*\(12, 4\)"):
        start(weight_hh=torch.zeros(12, 2))
    with pytest.raises(ShapeError, match=r"bias_ih is .* on meta"):
        start(bias_ih=torch.zeros(12, device="meta"))


def test_a_subclass_is_explained_and_streamed_by_the_reference() -> None:
    x = torch.randn(1, 3)
    layer = nn.GRU(3, 4)
    expected = layer.stream(1).push(x)
    layer.bias_ih_l0 = torch.nn.Parameter(pair(layer.bias_ih_l0.detach()), requires_grad=False)
    assert "layer 0: reference" in recurra.explain(layer, x)
    assert "not cpu: a tensor of the call is of a subclass" in recurra.explain(layer, x)
    stream = layer.stream(1)
    assert stream.backend == "reference"
    assert stream.push(x) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(BackendError, match=r"weights='int8' needs the compiled core: a tensor"):
        layer.stream(1, weights="int8")


def test_a_linear_map_checks_its_bias_too() -> None:
    x, weight, bias = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4)
    with torch.no_grad():
        assert linear.can_run(x, weight, bias)
        assert not linear.can_run(x, weight, bias.double())
        assert not linear.can_run(x, weight, bias.to("meta"))
        assert not linear.can_run(x, weight.to("meta"), bias)
        assert not linear.can_run(x, weight, bias[:2])
        assert not linear.can_run(x, weight[:, :2], bias)
        with pytest.raises(RuntimeError):
            linear.linear(x, weight, bias.double())
        with pytest.raises(RuntimeError):
            linear.linear(x, weight, bias[:3])


def test_a_linear_map_has_the_gradient_of_its_bias() -> None:
    x, weight = torch.randn(5, 3), torch.randn(4, 3)
    bias = torch.randn(4, requires_grad=True)
    linear.linear(x, weight, bias).sum().backward()
    assert bias.grad.tolist() == [5, 5, 5, 5]


def test_a_linear_map_has_the_forward_derivative() -> None:
    x, weight, tangent = torch.randn(5, 3), torch.randn(4, 3), torch.randn(5, 3)
    with warnings.catch_warnings(), torch.no_grad(), forward_ad.dual_level():
        warnings.simplefilter("ignore")  # from inside torch
        y = linear.linear(forward_ad.make_dual(x, tangent), weight)
        found = forward_ad.unpack_dual(y).tangent
    assert found == pytest.approx(tangent @ weight.t(), abs=1e-6)


def negated(x: Tensor) -> Tensor:
    return torch._neg_view(-x)


def at_an_odd_address(x: Tensor) -> Tensor:
    memory = torch.frombuffer(bytearray(x.numel() * 4 + 1), dtype=torch.float32, offset=1)
    return memory.view_as(x).copy_(x)


@pytest.mark.parametrize("view", [negated, at_an_odd_address])
def test_a_linear_map_takes_any_view(view: Callable[[Tensor], Tensor]) -> None:
    x, weight, bias = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4)
    with torch.no_grad():
        expected = linear.linear(x, weight, bias)
        assert torch.equal(linear.linear(view(x), view(weight), view(bias)), expected)


def test_a_linear_map_of_no_inputs_is_the_bias() -> None:
    bias = torch.randn(4)
    with torch.no_grad():
        y = linear.linear(torch.zeros(2, 5, 0), torch.zeros(4, 0), bias)
        assert torch.equal(y, bias.expand(2, 5, 4))
        assert linear.linear(torch.zeros(0, 3), torch.zeros(4, 3), bias).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_traced_layer_computes_what_it_is_given(dtype) -> None:
    layer = nn.GRU(3, 4, dtype=dtype).eval().requires_grad_(False)
    check_trace(lambda x: layer(x)[0], torch.randn(5, 2, 3, dtype=dtype))
    with pytest.raises(BackendError, match=r"torch.jit.trace cannot record it"):
        check_trace(nn.GRU(3, 4, backend="cpu"), torch.randn(5, 2, 3))


def test_a_traced_linear_map_and_scan_compute_what_they_are_given() -> None:
    weight, a = torch.randn(4, 3), torch.rand(5, 2, 3)
    with torch.no_grad():
        check_trace(lambda x: linear.linear(x, weight), torch.randn(5, 2, 3))
        check_trace(lambda x: linear_scan(a, x)[0], torch.randn(5, 2, 3))


def check_trace(run: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(run, x, check_trace=False)
    other = torch.randn_like(x)
    tolerance = 1e-5 if x.dtype == torch.float32 else 0.05
    torch.testing.assert_close(traced(other), run(other), atol=tolerance, rtol=0)


def gradients(run: Callable[..., Tensor], *inputs: Tensor, **options: Any) -> list[Tensor]:
    return list(torch.autograd.grad(run(*inputs).square().sum(), inputs, **options))


def with_other_strides(tensor: Tensor) -> Tensor:
    """The same values with the order of the axes in memory turned round."""
    axes = tuple(reversed(range(tensor.dim())))
    return tensor.permute(axes).contiguous().permute(axes)


@KINDS
def test_saved_tensors_may_come_back_with_other_strides(kind) -> None:
    layer, x = getattr(nn, kind)(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    inputs = (x, *layer.parameters())
    expected = gradients(lambda x, *_: layer(x)[0], *inputs)
    with saved_tensors_hooks(lambda t: t, with_other_strides):
        found = gradients(lambda x, *_: layer(x)[0], *inputs)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@SCANS
def test_what_a_scan_saved_may_come_back_with_other_strides(run) -> None:
    a, b = torch.rand(2, 5, 3, requires_grad=True), torch.randn(2, 5, 3, requires_grad=True)
    expected = gradients(lambda a, b: run(a, b)[0], a, b)
    with saved_tensors_hooks(lambda t: t, with_other_strides):
        found = gradients(lambda a, b: run(a, b)[0], a, b)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("change", [Tensor.double, lambda t: t[:-1]])
def test_saved_tensors_that_come_back_otherwise_are_an_error(change) -> None:
    x = torch.randn(5, 2, 3, requires_grad=True)
    with saved_tensors_hooks(lambda t: t, change):
        y, _ = nn.GRU(3, 4)(x)
        with pytest.raises(ShapeError, match=r"x saved for backward is .*must be"):
            y.sum().backward()
        h, _ = linear_scan(x, x)
        with pytest.raises(ShapeError, match=r"saved for backward is .*must be"):
            h.sum().backward()


def test_saved_tensors_that_come_back_as_a_subclass_are_run_by_the_reference() -> None:
    layer, x = nn.GRU(3, 4), torch.randn(5, 2, 3)
    expected = gradients(lambda *_: layer(x)[0], *layer.parameters())
    with saved_tensors_hooks(lambda t: t, lambda t: pair(t) if t.shape == x.shape else t):
        found = gradients(lambda *_: layer(x)[0], *layer.parameters())
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@KINDS
def test_batched_gradients_of_a_layer(kind) -> None:
    layer, x = getattr(nn, kind)(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    check_batched(lambda x: layer(x)[0], x)


@SCANS
def test_batched_gradients_of_a_scan(run) -> None:
    a, b = torch.rand(2, 5, 3), torch.randn(2, 5, 3, requires_grad=True)
    check_batched(lambda b: run(a, b)[0], b)


def check_batched(run: Callable[[Tensor], Tensor], x: Tensor) -> None:
    y = run(x)
    d_y = torch.randn(3, *y.shape)
    expected = [torch.autograd.grad(y, x, d, retain_graph=True)[0] for d in d_y]
    for again in (False, True):
        (found,) = torch.autograd.grad(
            y, x, d_y, is_grads_batched=True, retain_graph=True, create_graph=again
        )
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    func = torch.func.vmap(lambda d: torch.autograd.grad(y, x, d, retain_graph=True)[0])
    torch.testing.assert_close(func(d_y), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_second_derivatives_do_not_count_what_flows_between_inputs() -> None:
    # The second call's x and state come from the first, so from its parameters too.
    def twice(layer: nn.GRU, x: Tensor) -> Tensor:
        y, h = layer(x)
        return layer(y, h)[0]

    layer, x = nn.GRU(4, 4, dtype=torch.float64), torch.randn(5, 2, 4, dtype=torch.float64)
    inputs = tuple(layer.parameters())
    expected = gradients(lambda *_: twice(layer, x), *inputs)
    found = gradients(lambda *_: twice(layer, x), *inputs, create_graph=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.detach(), other)
    a = torch.rand(2, 5, 3, dtype=torch.float64, requires_grad=True)
    (expected_a,) = gradients(lambda a: linear_scan(a, a * a)[0], a)
    (found_a,) = gradients(lambda a: linear_scan(a, a * a)[0], a, create_graph=True)
    torch.testing.assert_close(found_a.detach(), expected_a)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_both_directions_run_together_when_widened(dtype, monkeypatch) -> None:
    layer, x = nn.GRU(3, 4, bidirectional=True), torch.randn(5, 2, 3)
    seen = []
    forward = cpu.run_forward

    def counting(layout: Any, save: bool = False) -> Any:
        seen.append(len(layout.calls))
        return forward(layout, save)

    monkeypatch.setattr(cpu, "run_forward", counting)
    layer.to(dtype)(x.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer.float()(x)
    assert seen == [2, 2]


def test_one_switch_turns_the_core_off_everywhere(monkeypatch) -> None:
    x, weight = torch.rand(2, 5, 3), torch.randn(4, 3)
    expected = linear_scan(x, x)[0]
    monkeypatch.setattr(core, "module", None)
    with torch.no_grad():
        assert not linear.can_run(x, weight)
    assert linear_scan(x, x)[0] == pytest.approx(expected, abs=1e-6)
    assert nn.GRU(3, 4).stream().backend == "reference"
    assert not any(hasattr(module, "_core") for module in (cpu, linear, scan))
