"""The reference backend: the cell's own definition, one step after another.

It runs every cell on every device and dtype, differentiates twice and works inside torch.func; all
other backends are checked against it. The only loop over time in Python is here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, State, Step
from recurra.kernels.sequence import Features, Sequence


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
    step = cell.bind(params, sequence.masks or NO_MASKS)
    if real is None and sequence.reset is None:
        outputs, state = _plain(step, steps, state, sequence.reverse)
    else:
        outputs, state = _held(sequence, step, steps, state, real)

    output = torch.stack(outputs, axis)
    if real is not None:
        output = output.masked_fill(~sequence.over_time(real), 0)
    if time < sequence.time:
        missing = sequence.time - time
        output = F.pad(output, (0, 0, 0, missing) if axis == 1 else (0, 0, 0, 0, 0, missing))
    return output, state


def _plain(
    step: Step, steps: tuple[Tensor, ...], state: State, reverse: bool
) -> tuple[list[Tensor], State]:
    """Every row is real at every step, and none is reset."""
    outputs = []
    for projected_t in reversed(steps) if reverse else steps:
        output, state = step(projected_t, state)
        outputs.append(output)
    if reverse:
        outputs.reverse()
    return outputs, state


def _held(
    sequence: Sequence,
    step: Step,
    steps: tuple[Tensor, ...],
    state: State,
    real: Tensor | None,
) -> tuple[list[Tensor], State]:
    """Rows are held still outside their length and put back to the start where reset says so.

    Which steps need that is found for the whole sequence at once, so that all others run plainly.
    """
    cell, time = sequence.cell, len(steps)
    reset = sequence.reset
    if reset is not None:
        reset = reset[:, :time] if real is None else reset[:, :time] & real
    start = cell.initial_state(sequence.batch, sequence.params)
    resets = [False] * time if reset is None else reset.any(0).tolist()
    ragged_from = time if sequence.lengths is None else sequence.lengths.shortest

    outputs = []
    for t in range(time - 1, -1, -1) if sequence.reverse else range(time):
        if reset is not None and resets[t]:
            state = _where(cell, reset[:, t], start, state)
        output, following = step(steps[t], state)
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
