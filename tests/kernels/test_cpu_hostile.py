"""What the cpu backend is handed in the worst case: the right answer, or an error that says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from recurra import nn
from recurra.errors import BackendError, ShapeError
from recurra.kernels import core

if core.module is None:
    pytest.skip("the compiled core is not built here", allow_module_level=True)
from recurra import _core

KINDS = pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])


@pytest.fixture(autouse=True)
def _poisoned_workspaces() -> Iterator[None]:
    _core.poison_workspaces(True)
    yield
    _core.poison_workspaces(False)


def make(kind: str, *sizes: int, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(nn, kind)(*sizes, backend="cpu", **settings)


def state_of(kind: str, *parts: Tensor) -> Tensor | tuple[Tensor, ...]:
    return parts if kind == "LSTM" else parts[0]


# Every way to hold the same numbers; only one of them is laid out as the core wants it.
def expanded(x: Tensor) -> Tensor:
    return x[:1].expand_as(x)


def transposed(x: Tensor) -> Tensor:
    return x.transpose(0, 2).contiguous().transpose(0, 2)


def every_second(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2)[:, :, ::2]


def off_by_one(x: Tensor) -> Tensor:
    return torch.cat([x.new_full((1,), torch.nan), x.flatten()])[1:].view_as(x)


def inside_nan(x: Tensor) -> Tensor:
    wide = x.new_full([size + 2 for size in x.shape], torch.nan)
    wide[1:-1, 1:-1, 1:-1] = x
    return wide[1:-1, 1:-1, 1:-1]


def negated(x: Tensor) -> Tensor:
    return torch._neg_view(-x)


def at_an_odd_address(x: Tensor) -> Tensor:
    memory = torch.frombuffer(bytearray(x.numel() * 4 + 1), dtype=torch.float32, offset=1)
    assert memory.data_ptr() % 2 == 1
    return memory.view_as(x).copy_(x)


def imaginary(x: Tensor) -> Tensor:
    return torch.complex(torch.zeros_like(x), -x).conj().imag


VIEWS = pytest.mark.parametrize(
    "view",
    [
        expanded,
        transposed,
        every_second,
        off_by_one,
        inside_nan,
        at_an_odd_address,
        negated,
        imaginary,
    ],
    ids=lambda view: view.__name__,
)


@KINDS
@VIEWS
@pytest.mark.parametrize("features", [1, 5])
def test_every_view_of_input_and_state_is_read_right(kind, view: Callable, features) -> None:
    layer = make(kind, features, features)
    x, h, c = (view(torch.randn(size, 3, features)) for size in (4, 1, 1))
    plain = [t.clone().resolve_neg().contiguous() for t in (x, h, c)]
    found = []
    for x_, h_, c_ in ((x, h, c), plain):
        x_, h_, c_ = (t.detach().requires_grad_() for t in (x_, h_, c_))
        output, final = layer(x_, state_of(kind, h_, c_))
        grads = torch.autograd.grad(output.square().sum(), (x_, h_))
        found.append((output, *(final if isinstance(final, tuple) else (final,)), *grads))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@KINDS
@VIEWS
def test_every_view_of_a_weight_is_read_right(kind, view: Callable) -> None:
    layer, x = make(kind, 5, 5), torch.randn(4, 3, 5)
    params = {name: p.detach() for name, p in layer.named_parameters()}
    viewed = {
        name: view(p.view(1, -1, p.shape[-1]))[0].reshape(p.shape) for name, p in params.items()
    }
    ours = torch.func.functional_call(layer, viewed, (x,))[0]
    plain = {name: p.clone().resolve_neg().contiguous() for name, p in viewed.items()}
    assert torch.equal(ours, torch.func.functional_call(layer, plain, (x,))[0])


@KINDS
@VIEWS
def test_every_view_of_an_arriving_gradient_is_read_right(kind, view: Callable) -> None:
    layer, x = make(kind, 3, 5), torch.randn(4, 2, 3, requires_grad=True)
    d_y, d_h = view(torch.randn(4, 2, 5)), view(torch.randn(1, 2, 5))
    output, final = layer(x)
    h = final[0] if kind == "LSTM" else final
    found = torch.autograd.grad((output, h), x, (d_y, d_h), retain_graph=True)
    plain = [t.clone().resolve_neg().contiguous() for t in (d_y, d_h)]
    assert torch.equal(found[0], torch.autograd.grad((output, h), x, plain)[0])


@KINDS
@pytest.mark.parametrize(
    ("time", "batch", "lengths"),
    [(0, 2, None), (0, 2, [0, 0]), (3, 0, None), (3, 0, []), (0, 0, None), (3, 2, [0, 0])],
)
def test_nothing_to_do_is_done(kind, time, batch, lengths) -> None:
    layer = make(kind, 3, 5, 2, bidirectional=True)
    x = torch.randn(time, batch, 3, requires_grad=True)
    h, c = (torch.randn(4, batch, 5, requires_grad=True) for _ in "hc")
    given = None if lengths is None else torch.tensor(lengths, dtype=torch.int64)
    output, final = layer(x, state_of(kind, h, c), lengths=given)
    assert output.shape == (time, batch, 10)
    assert (output == 0).all()
    h_n = final[0] if kind == "LSTM" else final
    assert torch.equal(h_n, h)
    (output.sum() + h_n.sum()).backward()
    assert (h.grad == 1).all()
    assert (x.grad == 0).all()
    assert all((p.grad == 0).all() for p in layer.parameters())


@pytest.mark.parametrize("wrong", [5, -1, 2**40, -(2**62)])
def test_lengths_outside_the_input_are_refused_at_the_door(wrong) -> None:
    with pytest.raises(ShapeError, match=rf"lengths\[1\] is {wrong}, but x has 4 time steps"):
        make("GRU", 3, 5)(torch.zeros(4, 2, 3), lengths=torch.tensor([4, wrong]))


@KINDS
@pytest.mark.parametrize("shape", [(1, 2**50, 3), (2**50, 1, 3), (0, 2**50, 3)])
def test_more_than_any_memory_holds_is_an_error_not_a_crash(kind, shape) -> None:
    x = torch.zeros(1, 1, 3).expand(shape)
    with pytest.raises((RuntimeError, MemoryError), match=r"allocate|overflow|memory"):
        make(kind, 3, 5)(x)


def test_an_empty_batch_of_endless_sequences_is_empty() -> None:
    output, h = make("GRU", 3, 5)(torch.zeros(2**50, 0, 3))
    assert output.shape == (2**50, 0, 5)
    assert h.shape == (1, 0, 5)


def test_dtypes_and_devices_that_it_has_not_are_refused_with_the_reason() -> None:
    layer = make("GRU", 3, 5)
    with pytest.raises(ShapeError, match=r"float64.*float32"):
        layer(torch.zeros(4, 2, 3, dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"int64.*floating point"):
        layer(torch.zeros(4, 2, 3, dtype=torch.int64))
    with pytest.raises(BackendError, match="it runs on the CPU, and x is on meta"):
        layer.to("meta")(torch.zeros(4, 2, 3, device="meta"))
    eight = nn.GRU(3, 5, backend="cpu")
    for parameter in eight.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(BackendError, match=r"it has no torch\.float8_e4m3fn"):
        eight.to(torch.float8_e4m3fn)(torch.zeros(4, 2, 3).to(torch.float8_e4m3fn))


def test_infinite_inputs_and_weights_give_what_the_reference_gives() -> None:
    for kind in ("RNN", "LSTM", "GRU"):
        ours, theirs = make(kind, 3, 5), getattr(nn, kind)(3, 5, backend="reference")
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(4, 3, 3)
        x[1, 0, 2], x[2, 1, 0], x[0, 2, 1] = torch.inf, -torch.inf, torch.nan
        torch.testing.assert_close(ours(x)[0], theirs(x)[0], equal_nan=True)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("hidden", [3, 5, 16])
def test_an_infinite_input_leaves_no_number_in_missing_units(kind, hidden) -> None:
    """Units that fill up a vector have zero weights, and zero times infinity is no number."""
    gradients = []
    for backend in ("cpu", "reference"):
        torch.manual_seed(0)
        layer = getattr(nn, kind)(3, hidden, backend=backend)
        x = torch.randn(5, 2, 3)
        x[3, 0, 0] = torch.inf
        starts = torch.zeros(1, 2, hidden, requires_grad=True)
        state = (starts, torch.zeros(1, 2, hidden)) if kind == "LSTM" else starts
        output, _ = layer(x, state)
        assert output.isfinite().all()
        gradients.append(torch.autograd.grad(output.sum(), starts)[0])
    assert torch.equal(gradients[0].isfinite(), gradients[1].isfinite())
    torch.testing.assert_close(*gradients, equal_nan=True, rtol=1e-4, atol=1e-5)
