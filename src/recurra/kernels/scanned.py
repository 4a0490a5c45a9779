"""The scan backend: linear recurrences, all coefficients at once and then one scan over time.

    minGRU, minLSTM     min_gru_scan, with the gates inside
    others              linear_scan of the cell's a and b

Both are passes of the compiled core where `recurra.kernels.scan` can use it, else plain torch.

A complex h, whose angle θ is constant in time, is scanned in a frame that turns along: with
h_t = e^(iθt) g_t, h_t = a_t e^(iθ) h_{t−1} + b_t becomes g_t = a_t g_{t−1} + e^(−iθt) b_t, real
scans of the real and the imaginary parts. t is counted from the start of a block of steps and the
angles are float64, so neither the numbers nor the gradient of θ, a difference of terms that grow
with t, lose digits in long sequences.

Zoneout leaves a real recurrence linear: keep + (1 − keep) a and (1 − keep) b.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurra.cells.cell import Cell, State
from recurra.cells.linear import LinearCell, MinimalCell, turn
from recurra.kernels import cpu
from recurra.kernels.scan import linear_scan, min_gru_scan, why_not_core
from recurra.kernels.sequence import Features, Sequence

# Steps between two fresh starts of the turning frame.
BLOCK = 256


def why_not(cell: Cell, features: Features, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why this backend cannot run the call, or None."""
    if not isinstance(cell, LinearCell):
        return f"it runs linear recurrences only, and the cell is {cell.name}"
    if dtype not in cpu.DTYPES and dtype not in cpu.WIDENED:
        return f"it has no {dtype}"
    if features.masks:
        return "a linear recurrence has no product with h that a mask could act in"
    if features.clip:
        return "it has no gradient of the state at each step that it could clip"
    if features.learned_start:
        return "its resets go back to zeros, not to a learned initial state"
    if features.zoneout and cell.is_complex:
        return "zoneout keeps parts of h from turning, and it has one angle for all steps"
    return None


def outline(features: Features, dtype: torch.dtype, device: torch.device) -> str:
    """Who would run the scan of such a call now, in words."""
    reason = why_not_core(device, features.plain)
    how = "by the compiled core" if reason is None else f"in plain torch, because {reason}"
    how += ", computed in float32" if dtype in cpu.WIDENED else ""
    return how + ("; second derivatives in plain torch" if reason is None else "")


def run(sequence: Sequence) -> tuple[Tensor, State]:
    """Outputs over time, in the layout of x, and the final state."""
    cell, x, params = sequence.cell, sequence.x, sequence.params
    assert isinstance(cell, LinearCell)
    if x.dtype in cpu.WIDENED:
        output, state = run(cpu.widened(sequence, x.float()))
        return output.to(x.dtype), cell.make_state(*(part.to(x.dtype) for part in state))
    padding = None
    if sequence.lengths is not None and sequence.lengths.shortest < sequence.time:
        padding = ~sequence.over_time(sequence.lengths.mask(sequence.time))
        # Before the projection, where NaN in the padding would reach the weights' gradient.
        x = x.masked_fill(padding, 0)
    projected = cell.project(x, params)
    h, h_n = _scan(sequence, cell, projected)
    output = cell.readout(h, projected, params)
    if output is not h and padding is not None:
        output = output.masked_fill(padding, 0)
    return output, cell.make_state(h_n)


def _scan(sequence: Sequence, cell: LinearCell, projected: Tensor) -> tuple[Tensor, Tensor]:
    """h over time, and the final h."""
    h_0 = None if sequence.state is None else sequence.state[0]
    lengths = None if sequence.lengths is None else sequence.lengths.values
    settings = {"reverse": sequence.reverse, "batch_first": sequence.batch_first}
    given: dict[str, Any] = {"lengths": lengths, "reset": sequence.reset, **settings}
    keep = 0.0 if sequence.zoneout is None else sequence.zoneout.keep[0]

    if isinstance(cell, MinimalCell) and (isinstance(keep, Tensor) or keep == 0):
        k, v = cell.gate(projected)
        if isinstance(keep, Tensor):
            k = k.masked_fill(keep != 0, -torch.inf)  # a gate that is shut
        return min_gru_scan(k, v, h_0, positive=cell.positive, **given)

    a, b = cell.coefficients(projected, sequence.params)
    if cell.is_complex:
        steps = _Steps(a, b, lengths, sequence.reset)
        return _turning_scan(steps, cell.angle(sequence.params), h_0, **settings)
    if isinstance(keep, Tensor) or keep != 0:
        a, b = keep + (1 - keep) * a, (1 - keep) * b
    return linear_scan(a, b, h_0, **given)


class _Steps(NamedTuple):
    """What changes over time: a and b, complex, real parts first, in the layout of x."""

    a: Tensor
    b: Tensor
    lengths: Tensor | None
    reset: Tensor | None

    def part(self, begin: int, end: int, axis: int) -> _Steps:
        """The steps from begin to end alone."""
        return _Steps(
            self.a.narrow(axis, begin, end - begin),
            self.b.narrow(axis, begin, end - begin),
            None if self.lengths is None else (self.lengths - begin).clamp(0, end - begin),
            None if self.reset is None else self.reset[:, begin:end],
        )


def _turning_scan(
    steps: _Steps, angle: Tensor, h_0: Tensor | None, *, reverse: bool, batch_first: bool
) -> tuple[Tensor, Tensor]:
    """h and the final h of h_t = a_t e^(iθ) h_{t−1} + b_t, block by block."""
    axis = 1 if batch_first else 0
    time = steps.b.shape[axis]
    begins = list(range(0, max(time, 1), BLOCK))  # one block of no steps where there are none
    h: list[Tensor] = []
    for begin in reversed(begins) if reverse else begins:
        part = steps.part(begin, min(begin + BLOCK, time), axis)
        block, h_0 = _turning_block(part, angle, h_0, reverse=reverse, batch_first=batch_first)
        h.append(block)
    assert h_0 is not None
    return torch.cat(h[::-1] if reverse else h, axis), h_0


def _turning_block(
    steps: _Steps, angle: Tensor, h_0: Tensor | None, *, reverse: bool, batch_first: bool
) -> tuple[Tensor, Tensor]:
    """The same in one frame: it has turned by t + 1 angles at step t, and by −t in reverse."""
    a, b, lengths, reset = steps
    time = b.shape[1 if batch_first else 0]
    turns = torch.arange(time + 1, dtype=torch.float64, device=b.device)
    phases = turns.unsqueeze(1) * (-angle if reverse else angle)
    cos, sin = torch.cos(phases).to(b.dtype), torch.sin(phases).to(b.dtype)
    at = slice(0, time) if reverse else slice(1, time + 1)
    cos_t, sin_t = (f[at] if batch_first else f[at].unsqueeze(1) for f in (cos, sin))
    # How far the frame has turned on the far side of each row's last real step.
    cos_n, sin_n = (f[time if lengths is None else lengths] for f in (cos, sin))
    if reverse and h_0 is not None:
        h_0 = turn(h_0, cos_n, -sin_n)
    given: dict[str, Any] = {"reverse": reverse, "batch_first": batch_first}
    g, g_n = linear_scan(a, turn(b, cos_t, -sin_t), h_0, lengths=lengths, reset=reset, **given)
    return turn(g, cos_t, sin_t), g_n if reverse else turn(g_n, cos_n, sin_n)
