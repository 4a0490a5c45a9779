"""The one door to the compiled core: the module, and what is asked of a tensor before it goes in.

The core reads and writes memory at the addresses that it is given. So a tensor goes in only when it
is plain (`are_plain`; whatever is not goes to the reference), has the shape, dtype and device that
the core expects (`check`), and its memory holds its values as C++ has them (`stored`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from recurra.errors import ShapeError

# After torch, whose OpenMP runtime it shares. None where it was not built: everybody asks here, so
# setting this to None makes recurra run without the core.
if importlib.util.find_spec("recurra._core") is not None:
    from recurra import _core

    module = _core
else:
    module = None  # type: ignore[assignment]

PLAIN = frozenset((Tensor, torch.nn.Parameter))
_has_storage = torch._C._has_storage
# Bytes of the widest element that the core computes with.
WIDEST = 8


def are_plain(tensors: SequenceOf[Tensor]) -> bool:
    """Whether these are tensors with memory, and of no subclass, whose memory may be unlike them.

    Sparse ones have none, nor has what stands for many tensors inside vmap.
    """
    return PLAIN.issuperset(map(type, tensors)) and all(map(_has_storage, tensors))


def given(*tensors: Tensor | None) -> list[Tensor]:
    """Those that are not None."""
    return [tensor for tensor in tensors if tensor is not None]


def is_transformed() -> bool:
    """Inside a torch.func transform, or vmap over a backward pass: tensors may stand for many."""
    return torch._C._are_functorch_transforms_active()


def is_tracing() -> bool:
    """Inside torch.jit.trace, which would record memory that the core has yet to write."""
    return torch._C._get_tracing_state() is not None


def check(who: str, name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise ShapeError where a tensor's shape, dtype or device would send the core astray."""
    if tensor.shape == shape and tensor.dtype is dtype and tensor.is_cpu:
        return
    raise ShapeError(
        f"{who}: {name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}, but must be "
        f"{dtype} {tuple(shape)} on cpu, to go with x and the layer's sizes. Convert the layer and "
        "what is passed to it alike, as in layer.to(x.dtype), and give tensors of the layer's own "
        "shapes."
    )


def stored(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where its memory does not hold its values one by one as C++ has them.

    torch puts off negating what comes from a conjugate, and takes memory at odd addresses.
    """
    if tensor.is_neg() or tensor.data_ptr() % tensor.element_size():
        return tensor.clone()
    return tensor


def dense(tensors: SequenceOf[Tensor]) -> SequenceOf[Tensor]:
    """The tensors as `stored`, copied where their elements do not lie one after another.

    Most are as they should be, which three looks at all of them tell; their addresses have the low
    bits of a wrong one when they are joined.
    """
    if (
        all(map(Tensor.is_contiguous, tensors))
        and not any(map(Tensor.is_neg, tensors))
        and reduce(or_, map(Tensor.data_ptr, tensors), 0) % WIDEST == 0
    ):
        return tensors
    return [stored(tensor).contiguous() for tensor in tensors]


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor as `stored`, or a copy, whose last axis is contiguous."""
    tensor = stored(tensor)
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] < 2 else tensor.contiguous()


def differentiate(
    run: Callable[[list[Tensor | None]], SequenceOf[Tensor]],
    inputs: SequenceOf[Tensor | None],
    wanted: SequenceOf[bool],
    d_results: SequenceOf[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of the wanted inputs of `run`: a backward pass that does without the core.

    By torch alone, so it can be differentiated again and vmapped, and takes any tensors.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        # Views, so that nothing flows from one input into another that it was computed from.
        views = [None if t is None else t.view_as(t) for t in inputs]
        pairs = [
            (result, d)
            for result, d in zip(run(views), d_results, strict=True)
            if d is not None and result.requires_grad  # the outputs of no steps do not
        ]
        if not pairs:
            return [None for _ in wanted]
        found = iter(
            torch.autograd.grad(
                [result for result, _ in pairs],
                [t for t, want in zip(views, wanted, strict=True) if want and t is not None],
                [d for _, d in pairs],
                create_graph=again,
                allow_unused=True,
            )
        )
    return [next(found) if want else None for want in wanted]
