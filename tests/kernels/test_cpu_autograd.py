"""The cpu backend inside autograd and everything that torch wraps around a layer."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator

import pytest
import torch
from tests.laws.cases import CORE_CELLS, EVERYTHING, Case, Runner, Shape, assert_close, gradients
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import recurra
from recurra import nn
from recurra.errors import BackendError
from recurra.kernels import core

if core.module is None:
    pytest.skip("the compiled core is not built here", allow_module_level=True)
from recurra import _core

RUNNER = Runner("cpu", "cpu")
SHAPE = Shape(3, 4, 3, 5, True, 7)
MODULES = pytest.mark.parametrize("make", [nn.RNN, nn.LSTM, nn.GRU])


@pytest.fixture(autouse=True)
def _poisoned_workspaces() -> Iterator[None]:
    _core.poison_workspaces(True)
    yield
    _core.poison_workspaces(False)


def twins(make, *sizes: int, **settings) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same layer on the cpu backend and on the reference."""
    torch.manual_seed(0)
    ours = make(*sizes, backend="cpu", **settings)
    theirs = make(*sizes, backend="reference", **settings)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def drawn(*size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def as_tuple(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("make", CORE_CELLS.values(), ids=CORE_CELLS)
def test_a_second_backward_gives_the_same_bits(make) -> None:
    case = Case.draw(make, RUNNER, SHAPE, torch.float32).fresh()
    total = sum(value.square().sum() for value in case.run(**case.ask(EVERYTHING)))
    leaves = list(case.leaves().values())
    once = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
    again = torch.autograd.grad(total, leaves, allow_unused=True)
    assert [g is None for g in once] == [g is None for g in again]
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True) if a is not None)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(total, leaves, allow_unused=True)


@MODULES
def test_second_derivatives_are_those_of_finite_differences(make) -> None:
    layer = make(2, 3, backend="cpu", dtype=torch.float64, batch_first=True)
    names = [name for name, _ in layer.named_parameters()]
    x = drawn(2, 3, 2, dtype=torch.float64).requires_grad_()

    def run(x: Tensor, *values: Tensor) -> Tensor:
        params = dict(zip(names, values, strict=True))
        return functional_call(layer, params, (x,), {"lengths": torch.tensor([3, 2])})[0]

    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradgradcheck(run, (x, *values), fast_mode=True)


@MODULES
def test_second_derivatives_inside_autocast_keep_their_digits(make) -> None:
    found = []
    for layer in twins(make, 3, 5):
        with torch.autocast("cpu", torch.bfloat16):
            total = layer(drawn(4, 2, 3))[0].float().square().sum()
            found.append(torch.autograd.grad(total, layer.weight_hh_l0, create_graph=True)[0])
    assert (found[0] - found[1]).abs().max() < 0.02 * found[1].abs().max()
    assert found[0].dtype == torch.float32


def test_second_derivatives_over_no_steps() -> None:
    layer, h = nn.GRU(3, 5, backend="cpu"), drawn(1, 2, 5).requires_grad_()
    x = drawn(0, 2, 3).requires_grad_()
    for wanted, reached in ((0, False), (1, True)):
        results = layer(x, h)
        found = torch.autograd.grad(
            results[wanted].sum(), [x, h], create_graph=True, allow_unused=True
        )
        assert (found[1] is not None and bool((found[1] == 1).all())) == reached


@pytest.mark.parametrize("change", ["x", "output", "weight"])
def test_a_saved_tensor_changed_in_place_is_an_error(change) -> None:
    layer = nn.GRU(3, 5, backend="cpu")
    x = drawn(4, 2, 3)
    output, _ = layer(x)
    with torch.no_grad():
        {"x": x, "output": output, "weight": layer.weight_hh_l0}[change].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_lengths_and_resets_written_to_after_the_call_change_nothing() -> None:
    layer, x = nn.LSTM(3, 5, backend="cpu"), drawn(4, 2, 3).requires_grad_()
    found = []
    for spoil in (False, True):
        lengths, reset = torch.tensor([4, 2]), torch.tensor([[False, True, False, False]] * 2)
        total = layer(x, lengths=lengths, reset=reset)[0].sum()
        if spoil:
            lengths.fill_(2**40)
            reset.fill_(True)
        found.append(torch.autograd.grad(total, x)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("make", CORE_CELLS.values(), ids=CORE_CELLS)
def test_each_gradient_is_the_same_alone_as_with_all_others(make) -> None:
    case = Case.draw(make, RUNNER, SHAPE, torch.float32).fresh()
    call = case.ask(EVERYTHING)
    everything = gradients(case.run(**call), case.leaves(), 1)
    for name, leaf in case.leaves().items():
        for other in case.leaves().values():
            other.requires_grad_(other is leaf)
        alone = gradients(case.run(**call), {name: leaf}, 1)
        assert torch.equal(alone[name], everything[name]), name


@pytest.mark.parametrize("make", CORE_CELLS.values(), ids=CORE_CELLS)
def test_results_that_are_not_used_count_as_zero(make) -> None:
    found = []
    for runner in (RUNNER, Runner("reference", "cpu")):
        case = Case.draw(make, runner, SHAPE).fresh()
        lengths = torch.tensor([4, 0, 2])
        found.append(
            [
                gradients((case.run(lengths=lengths)[seen],), case.leaves(), 1)
                for seen in range(1 + len(case.state))
            ]
        )
    for seen, (ours, theirs) in enumerate(zip(*found, strict=True)):
        for name, value in ours.items():
            assert_close(value, theirs[name], f"gradient of {name} from result {seen}")


def test_no_memory_is_held_after_backward_while_the_loss_lives() -> None:
    layer, first = nn.GRU(3, 5, backend="cpu"), torch.nn.Linear(3, 3)
    x = first(drawn(4, 2, 3))
    output, _ = layer(x)
    loss = output.sum()
    alive = weakref.ref(x), weakref.ref(output)
    saved = weakref.ref(output.grad_fn.saved_tensors[2])
    del x, output
    assert saved() is not None or alive[0]() is not None
    loss.backward()
    assert [ref() for ref in (*alive, saved)] == [None, None, None]


def test_checkpointing_runs_forward_again_and_gives_the_same_gradient() -> None:
    layer, x = nn.LSTM(3, 5, backend="cpu"), drawn(4, 2, 3)
    layer(x)[0].sum().backward()
    expected = layer.weight_ih_l0.grad.clone()
    layer.zero_grad()
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        layer(x)[0].sum()
    shapes = [tuple(t.shape) for t in packed]
    assert any(len(shape) == 2 and shape[0] == 1 for shape in shapes), "the gates are hooked too"
    checkpoint(lambda: layer(x)[0].sum(), use_reentrant=False).backward()
    assert torch.equal(layer.weight_ih_l0.grad, expected)


@MODULES
def test_copies_functional_calls_and_parametrizations_see_their_own_weights(make) -> None:
    layer, theirs = twins(make, 3, 5)
    x = drawn(4, 2, 3)
    before = layer(x)[0]
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x)[0], before)
    with torch.no_grad():
        twin.weight_ih_l0.mul_(2)
    assert torch.equal(layer(x)[0], before)
    assert not torch.equal(twin(x)[0], before)
    called = functional_call(layer, dict(twin.named_parameters()), (x,))[0]
    assert torch.equal(called, twin(x)[0])
    for module in (layer, theirs):
        parametrizations.weight_norm(module, "weight_hh_l0")
        module(x)[0].square().sum().backward()
    for ours, other in zip(layer.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad)


def test_torch_func_is_left_to_the_reference_and_explained() -> None:
    layer, x = nn.GRU(3, 5), drawn(4, 2, 3)
    params = dict(layer.named_parameters())
    told = []

    def loss(params, x: Tensor) -> Tensor:
        told.append(recurra.explain(layer, x))
        return functional_call(layer, params, (x,))[0].square().sum()

    by_func = grad(loss)(params, x)
    layer(x)[0].square().sum().backward()
    for name, parameter in params.items():
        torch.testing.assert_close(by_func[name], parameter.grad)
    assert "layer 0: reference" in told[0]
    assert "not cpu: it does not work inside torch.func transforms" in told[0]
    mapped = vmap(lambda one: layer(one)[0])(x.transpose(0, 1))
    torch.testing.assert_close(mapped.transpose(0, 1), layer(x)[0])
    layer.backend = "cpu"
    with pytest.raises(BackendError, match=r"'cpu' cannot run this GRU: .*torch\.func transforms"):
        vmap(lambda one: layer(one)[0])(x)


# torch compiles its own formulas of forward mode with torch.jit.script.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("frozen", [False, True])
def test_forward_mode_derivatives_are_left_to_the_reference(frozen) -> None:
    layer = nn.LSTM(3, 5).requires_grad_(not frozen)
    x, direction = drawn(4, 2, 3, seed=1), drawn(4, 2, 3, seed=2)
    with forward_ad.dual_level():
        output = layer(forward_ad.make_dual(x, direction))[0]
        tangent = forward_ad.unpack_dual(output).tangent
        assert "not cpu: it has no forward-mode derivatives" in recurra.explain(layer, x)
    with torch.no_grad():
        slope = (layer(x + 5e-3 * direction)[0] - layer(x - 5e-3 * direction)[0]) / 1e-2
    torch.testing.assert_close(tangent, slope, rtol=0, atol=1e-3)


@MODULES
def test_without_gradients_the_bits_are_the_same_and_no_graph_is_made(make) -> None:
    layer, x = make(3, 5, backend="cpu"), drawn(4, 2, 3)
    expected = layer(x)[0]
    with torch.no_grad():
        output = layer(x)[0]
        assert torch.equal(output, expected)
        assert output.grad_fn is None
    with torch.inference_mode():
        output = layer(x)[0]
        assert torch.equal(output, expected)
        assert output.is_inference()
        assert layer(output[..., :3].contiguous())[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@MODULES
def test_layers_of_half_precision_keep_their_dtype_and_compute_in_float32(make, dtype) -> None:
    layer = make(3, 5, backend="cpu", dtype=dtype)
    wide = make(3, 5, backend="cpu")
    wide.load_state_dict({name: p.float() for name, p in layer.state_dict().items()})
    x = drawn(4, 2, 3).to(dtype).requires_grad_()
    output, state = layer(x)
    assert torch.equal(output, wide(x.float())[0].to(dtype))
    assert {part.dtype for part in as_tuple(state)} == {dtype}
    output.sum().backward()
    assert {x.grad.dtype, layer.weight_hh_l0.grad.dtype} == {dtype}


def answer_of_torch(layer, x):
    """What torch's layer gives, or None: its LSTM has no bfloat16 on processors without AVX-512."""
    try:
        return layer(x)
    except RuntimeError as error:
        if "primitive descriptor" not in str(error):
            raise
        return None


@MODULES
def test_autocast_gives_the_dtypes_of_torch_and_values_as_near(make) -> None:
    torch.manual_seed(0)
    layer, theirs = make(3, 5, backend="cpu"), getattr(torch.nn, make.__name__)(3, 5)
    theirs.load_state_dict(layer.state_dict())
    x = drawn(4, 2, 3)
    exact = layer(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(x)
        answer = None if make is nn.GRU else answer_of_torch(theirs, x)  # its GRU stays in float32
    if answer is not None:
        assert output.dtype == answer[0].dtype
        parts = zip(as_tuple(state), as_tuple(answer[1]), strict=True)
        assert all(a.dtype == b.dtype for a, b in parts)
    assert output.dtype == torch.bfloat16
    assert (output - exact).abs().max() < 0.02
    output.float().sum().backward()
    assert layer.weight_hh_l0.grad.dtype == torch.float32
