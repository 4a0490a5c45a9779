"""The reference backend: the cell's own definition, one step after another.

It runs every cell on every device and dtype, differentiates twice and works inside torch.func; all
other backends are checked against it. The only loop over time in Python is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recurra.cells.cell import NO_MASKS, Cell, Masks, State
from recurra.kernels.recompute import can_recompute
from recurra.kernels.sequence import Features, Sequence, Zoneout

# The step at time t: (t, state) to (output, new state).
Advance = Callable[[int, State], tuple[Tensor, State]]


def why_not(cell: Cell, features: Features, dtype: torch.dtype, device: torch.device) -> str | None:
    """None: the reference can run everything."""
    return None


def run(sequence: Sequence) -> tuple[Tensor, State]:
    """Outputs over time, in the layout of x, and the final state."""
    cell, x, params = sequence.cell, sequence.x, sequence.params
    axis, lengths = sequence.time_axis, sequence.lengths
    state = sequence.state
    if state is None:
        state = cell.initial_state(sequence.batch, params)

    if sequence.time == 0:
        shape = (*x.shape[:2], cell.output_size)
        return x.new_zeros(shape), cell.make_state(*(part.clone() for part in state))

    # Steps that no row reaches are not run; one is, at least, so that gradients exist, all 0.
    time = sequence.time if lengths is None else max(lengths.longest, 1)

    real = None
    if lengths is not None and lengths.shortest < sequence.time:
        x = x.narrow(axis, 0, time)
        real = lengths.mask(time)
        # Masked before the projection, where NaN in the padding would reach the weights' gradient.
        x = x.masked_fill(~sequence.over_time(real), 0)

    steps = cell.project(x, params).unbind(axis)
    advance = _masked(sequence, steps)
    if sequence.zoneout is not None:
        advance = _zoned(sequence, sequence.zoneout, advance)
    if sequence.clip_state_grad is not None:
        advance = _clipped(cell, sequence.clip_state_grad, advance)
    if sequence.recompute == "gates" and can_recompute():
        advance = _rebuilt(advance)
    if real is None and sequence.reset is None:
        outputs, state = _plain(advance, time, state, sequence.reverse)
    else:
        outputs, state = _held(sequence, advance, time, state, real)

    output = torch.stack(outputs, axis)
    if real is not None:
        output = output.masked_fill(~sequence.over_time(real), 0)
    if time < sequence.time:
        missing = sequence.time - time
        output = F.pad(output, (0, 0, 0, missing) if axis == 1 else (0, 0, 0, 0, 0, missing))
    return output, state


def _masked(sequence: Sequence, steps: tuple[Tensor, ...]) -> Advance:
    """The cell's step at time t, with the masks of that time."""
    cell, params = sequence.cell, sequence.params
    masks = sequence.masks or NO_MASKS
    if masks.h is not None and masks.h.dim() == 3:
        # Binding makes views of weights only; it costs little next to the step.
        per_step = [Masks(h) for h in masks.h.unbind(sequence.time_axis)]
        return lambda t, state: cell.bind(params, per_step[t])(steps[t], state)
    step = cell.bind(params, masks)
    return lambda t, state: step(steps[t], state)


def _zoned(sequence: Sequence, zoneout: Zoneout, advance: Advance) -> Advance:
    """`advance`, and then each part of the state partly put back to what it was before."""
    cell, names = sequence.cell, list(sequence.cell.state_sizes())
    output_index = None if cell.output_part is None else names.index(cell.output_part)
    kept = [
        (index, keep.unbind(sequence.time_axis) if isinstance(keep, Tensor) else keep)
        for index, keep in enumerate(zoneout.keep)
        if isinstance(keep, Tensor) or keep != 0
    ]

    def zoned(t: int, state: State) -> tuple[Tensor, State]:
        output, stepped = advance(t, state)
        parts = list(stepped)
        for index, keep in kept:
            at_t = keep[t] if isinstance(keep, tuple) else keep
            # lerp gives the stepped part back exactly at 0, and the old one at 1.
            parts[index] = torch.lerp(parts[index], state[index], at_t)
        return output if output_index is None else parts[output_index], cell.make_state(*parts)

    return zoned


def _clipped(cell: Cell, limit: float, advance: Advance) -> Advance:
    """`advance`, whose gradient at the state before it is cut off at ±limit."""

    def clipped(t: int, state: State) -> tuple[Tensor, State]:
        parts = (ClippedGradient.apply(part, limit) for part in state)  # type: ignore[no-untyped-call]
        return advance(t, cell.make_state(*parts))

    return clipped


class ClippedGradient(torch.autograd.Function):
    """The tensor as it is; its gradient, entry by entry, within ±limit. NaN stays NaN."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, limit: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.limit = inputs[1]

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, None]:
        return d.clamp(-ctx.limit, ctx.limit), None


def _rebuilt(advance: Advance) -> Advance:
    """`advance` that keeps the state before it alone, and runs again on the way back."""
    return lambda t, state: checkpoint(
        advance, t, state, use_reentrant=False, preserve_rng_state=False
    )


def _plain(advance: Advance, time: int, state: State, reverse: bool) -> tuple[list[Tensor], State]:
    """Every row is real at every step, and none is reset."""
    outputs = []
    for t in range(time - 1, -1, -1) if reverse else range(time):
        output, state = advance(t, state)
        outputs.append(output)
    if reverse:
        outputs.reverse()
    return outputs, state


def _held(
    sequence: Sequence, advance: Advance, time: int, state: State, real: Tensor | None
) -> tuple[list[Tensor], State]:
    """Rows are held still outside their length and put back to the start where reset says so.

    Which steps need that is found for the whole sequence at once, so that all others run plainly.
    """
    cell, reset = sequence.cell, sequence.reset
    if reset is not None:
        reset = reset[:, :time] if real is None else reset[:, :time] & real
    start = cell.initial_state(sequence.batch, sequence.params)
    resets = [False] * time if reset is None else reset.any(0).tolist()
    ragged_from = time if sequence.lengths is None else sequence.lengths.shortest

    outputs = []
    for t in range(time - 1, -1, -1) if sequence.reverse else range(time):
        if reset is not None and resets[t]:
            state = _where(cell, reset[:, t], start, state)
        output, following = advance(t, state)
        if real is not None and t >= ragged_from:
            following = _where(cell, real[:, t], following, state)
        state = following
        outputs.append(output)
    if sequence.reverse:
        outputs.reverse()
    return outputs, state


def _where(cell: Cell, rows: Tensor, there: State, elsewhere: State) -> State:
    """The state `there` in the rows (B,) that are True, `elsewhere` in the others."""
    chosen = rows.unsqueeze(1)
    parts = zip(there, elsewhere, strict=True)
    return cell.make_state(*(torch.where(chosen, a, b) for a, b in parts))
