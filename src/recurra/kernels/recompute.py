"""Less memory for BPTT: what the way back needs is computed again instead of being kept.

"gates"   keeps the states of every step. The gates of a step follow from the state before it, so
          the way back computes them once more, step by step. The cpu backend keeps y, and
          the parts of the state beside h; the reference keeps its states.
n         keeps the states at the ends of n segments of time, runs a segment again when the way back
          comes to it, and forgets it after that. With n near √T the memory grows as √T.

Backends that cannot rebuild a step from its state take ⌈√T⌉ segments for "gates".
The numbers are those of the same backend without it.

Source: Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear memory cost"; Gruslys,
Munos, Danihelka, Lanctot and Graves 2016, "Memory-efficient backpropagation through time".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurra.cells.cell import State
from recurra.kernels import core
from recurra.kernels.sequence import Sequence, cut_time, piece_of

Run = Callable[[Sequence], tuple[Tensor, State]]


def segments_of(sequence: Sequence, rebuilds: bool) -> int:
    """Segments to run the call in, 0 for none; rebuilds: the backend knows "gates" itself."""
    asked, time = sequence.recompute, sequence.time
    if asked is None or (asked == "gates" and rebuilds) or not can_recompute():
        return 0
    count = math.isqrt(max(time - 1, 0)) + 1 if asked == "gates" else asked
    return min(count, time)


def can_recompute() -> bool:
    """Whether this is training by eager calls: graphs and torch.func keep what they like."""
    return (
        torch.is_grad_enabled() and not torch.compiler.is_compiling() and not core.is_transformed()
    )


def run_in_segments(sequence: Sequence, count: int, run: Run) -> tuple[Tensor, State]:
    """`run` over count pieces of time, each of which keeps its first state alone until backward."""
    state = sequence.state
    if state is None:
        state = sequence.cell.initial_state(sequence.batch, sequence.params)
    cut = _Cut(sequence._replace(recompute=None, state=state), count, run)
    output, *final = _Segments.apply(cut, sequence.x, *state, *sequence.params.values())  # type: ignore[no-untyped-call]
    return output, sequence.cell.make_state(*final)


class _Cut(NamedTuple):
    """A call that is to be run piece by piece."""

    sequence: Sequence
    segments: int
    run: Run

    def over(self, x: Tensor, tensors: SequenceOf[Tensor]) -> Sequence:
        """The call over x, from a state and with parameters that `tensors` holds in turn."""
        sequence = self.sequence
        parts = len(sequence.cell.state_sizes())
        state = sequence.cell.make_state(*tensors[:parts])
        params = dict(zip(sequence.params, tensors[parts:], strict=True))
        return sequence._replace(x=x, state=state, params=params)

    def pieces(self) -> list[tuple[int, int]]:
        """Where each piece begins and ends, in the order of processing."""
        return cut_time(self.sequence.time, self.segments, self.sequence.reverse)


class _Segments(torch.autograd.Function):
    """Arguments: the cut, x, the initial state's parts, the parameters; results: y, final state."""

    @staticmethod
    def forward(ctx: Any, cut: _Cut, x: Tensor, *tensors: Tensor) -> Any:
        sequence = cut.over(x, tensors)
        state = sequence.state
        assert state is not None
        starts: list[Tensor] = []
        output: Tensor | None = None
        for begin, end in cut.pieces():
            starts += state
            part, state = cut.run(piece_of(sequence, begin, end, state))
            # One tensor from the start: pieces that stay would leave holes of the slabs' size.
            if output is None:
                output = part.new_empty((*x.shape[:2], part.shape[-1]))
            output.narrow(sequence.time_axis, begin, end - begin).copy_(part)
        ctx.cut, ctx.count = cut, len(tensors)
        ctx.save_for_backward(x, *tensors, *starts)
        # A state that no step has touched would be an input handed back.
        return output, *(part.clone() for part in state)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, *d_state: Tensor) -> Any:
        x, *rest = ctx.saved_tensors
        tensors, starts = rest[: ctx.count], rest[ctx.count :]
        cut, wanted = ctx.cut, ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or core.is_transformed():

            def whole(inputs: list[Any]) -> list[Tensor]:
                output, state = cut.run(cut.over(inputs[0], inputs[1:]))
                return [output, *state]

            d_results = (d_output, *d_state)
            return None, *core.differentiate(whole, (x, *tensors), wanted, d_results)
        return None, *_way_back(cut, x, tensors, starts, wanted, d_output, d_state)


def _way_back(
    cut: _Cut,
    x: Tensor,
    tensors: SequenceOf[Tensor],
    starts: SequenceOf[Tensor],
    wanted: SequenceOf[bool],
    d_output: Tensor,
    d_state: SequenceOf[Tensor],
) -> list[Tensor | None]:
    """Gradients of x and of `tensors`, None where not wanted; `starts` has each piece's state."""
    parts = len(d_state)
    sequence = cut.over(x, tensors)
    d_x = torch.empty_like(x) if wanted[0] else None
    d_params: list[Tensor | None] = [None] * (len(tensors) - parts)
    for n, (begin, end) in reversed(list(enumerate(cut.pieces()))):
        piece = piece_of(sequence, begin, end, starts[n * parts : (n + 1) * parts])

        def run(inputs: list[Any], piece: Sequence = piece) -> list[Tensor]:
            state = piece.cell.make_state(*inputs[1 : 1 + parts])
            params = dict(zip(piece.params, inputs[1 + parts :], strict=True))
            output, final = cut.run(piece._replace(x=inputs[0], state=state, params=params))
            return [output, *final]

        assert piece.state is not None
        inputs = [t.detach() for t in (piece.x, *piece.state, *tensors[parts:])]
        needed = [wanted[0], *(True for _ in range(parts)), *wanted[1 + parts :]]
        for tensor, need in zip(inputs, needed, strict=True):
            tensor.requires_grad_(need)
        over = d_output.narrow(sequence.time_axis, begin, end - begin)
        found = core.differentiate(run, inputs, needed, (over, *d_state))
        if d_x is not None:
            d_x.narrow(sequence.time_axis, begin, end - begin).copy_(_or_zeros(found[0], piece.x))
        d_state = [
            _or_zeros(d, start) for d, start in zip(found[1 : 1 + parts], piece.state, strict=True)
        ]
        d_params = [_sum(a, b) for a, b in zip(d_params, found[1 + parts :], strict=True)]
    kept = zip(d_state, wanted[1 : 1 + parts], strict=True)
    return [d_x, *(d if want else None for d, want in kept), *d_params]


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b; None is nothing. Not in place: autograd may hand out one tensor for both biases."""
    if a is None or b is None:
        return b if a is None else a
    return a + b
