"""The call that every backend answers: one cell, in one direction, over one batch of sequences.

Semantics, the same in all backends:

* outputs at and after a row's length are 0, and its final state is that after its last real step,
  or the one it started with when the length is 0; what the padding holds, even NaN, changes
  neither values nor gradients;
* reverse runs each row from its last real step back to step 0;
* reset[b, t] puts row b back to the cell's `initial_state()` before step t is processed, whatever
  state was passed in; resets in the padding do nothing;
* masks.h is multiplied onto h before the recurrent product: the same factors at every step, or
  fresh ones where the mask has a time axis; see `Masks`;
* zoneout keeps part of the state as it was before the step; see `Zoneout`;
* clip_state_grad cuts off the entries of the gradient that each step hands to the state before it,
  zoneout's part included, at plus and minus that number; outputs do not change;
* recompute changes memory and time, and no number; see `kernels.recompute`;
* a state of None means `initial_state()`.

The order at a step t of a row: reset puts it to the initial state, the cell steps, zoneout chooses
between the state before the step (after the reset) and the stepped one, and a row past its length
is held as it was. Masks and zoneout are indexed by the step they act at, in reverse too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recurra.cells.cell import Cell, Masks, Params, State
from recurra.errors import ShapeError
from recurra.kernels import core

# What training computes again instead of keeping it: nothing, the gates of every step, or all but
# the states at the ends of so many segments of time.
Recompute = Literal["gates"] | int | None


@dataclass(frozen=True, eq=False)
class Lengths:
    """Checked lengths: values (B,) int64 on the device of x, and their extremes as numbers."""

    values: Tensor
    shortest: int
    longest: int

    def mask(self, time: int) -> Tensor:
        """(B, time) bool, True where a step is real."""
        return torch.arange(time, device=self.values.device) < self.values.unsqueeze(1)


class Zoneout(NamedTuple):
    """How much of the state each step keeps: one entry for each part of it, LSTM: (h, c).

    part = keep ⊙ part before the step + (1 − keep) ⊙ part after it

    A tensor is in the layout of x with the part's size on its last axis, (B, T, size) or
    (T, B, size), has the dtype of x and holds 0 or 1: what training draws. A number from 0 to 1 is
    its expectation, for evaluation; 0.0 leaves the part alone. Where the output of the cell is a
    part of its state (`Cell.output_part`), it is that part after zoneout.

    Source: Krueger et al. 2016, "Zoneout: regularizing RNNs by randomly preserving hidden
    activations", eq. 1–2.
    """

    keep: tuple[Tensor | float, ...]


class Features(NamedTuple):
    """What a call asks of a backend beyond the plain run; the sizes are there for their limits."""

    batch: int
    time: int
    lengths: bool = False
    reset: bool = False
    reverse: bool = False
    masks: bool = False
    zoneout: bool = False
    clip: bool = False
    learned_start: bool = False
    plain: bool = True  # see core.are_plain; compiled calls are taken to be


class Sequence(NamedTuple):
    """One call. x is (B, T, I), or (T, B, I) when batch_first is False; outputs come likewise.

    reset is (B, T) bool in either layout; masks.h is (B, output_size), or in the layout of x with
    output_size on its last axis. Tensors have been checked by whoever makes the call; masks and
    zoneout are finite everywhere, in the padding too, and no gradient is wanted for them.
    learned_start: resets go back to a state that is among params; see `Cell.initial_state`.
    """

    cell: Cell
    x: Tensor
    params: Params
    state: State | None = None
    batch_first: bool = True
    lengths: Lengths | None = None
    reset: Tensor | None = None
    reverse: bool = False
    masks: Masks | None = None
    zoneout: Zoneout | None = None
    clip_state_grad: float | None = None
    recompute: Recompute = None
    learned_start: bool = False

    @property
    def time_axis(self) -> int:
        return 1 if self.batch_first else 0

    @property
    def batch(self) -> int:
        return self.x.shape[1 - self.time_axis]

    @property
    def time(self) -> int:
        return self.x.shape[self.time_axis]

    def features(self) -> Features:
        first, second, _ = self.x.shape
        batch, time = (first, second) if self.batch_first else (second, first)
        # By position: names would cost as much again, at every call of a layer.
        return Features(
            batch,
            time,
            self.lengths is not None,
            self.reset is not None,
            self.reverse,
            self.masks is not None and self.masks.h is not None,
            self.zoneout is not None,
            self.clip_state_grad is not None,
            self.learned_start,
            torch.compiler.is_compiling() or core.are_plain(self.tensors()),
        )

    def tensors(self) -> list[Tensor]:
        """Every tensor of the call."""
        found = [self.x, *self.params.values(), *(self.state or ())]
        if self.lengths is not None:
            found.append(self.lengths.values)
        if self.reset is not None:
            found.append(self.reset)
        if self.masks is not None and self.masks.h is not None:
            found.append(self.masks.h)
        if self.zoneout is not None:
            found += [keep for keep in self.zoneout.keep if isinstance(keep, Tensor)]
        return found

    def over_time(self, per_step: Tensor) -> Tensor:
        """A (B, T) tensor as (B, T, 1), or (T, B, 1): to be combined with x or outputs."""
        return (per_step if self.batch_first else per_step.t()).unsqueeze(-1)


def cut_time(time: int, count: int, reverse: bool) -> list[tuple[int, int]]:
    """(begin, end) of each of count pieces of time, in the order of processing.

    >>> cut_time(7, 3, reverse=True)
    [(4, 7), (2, 4), (0, 2)]
    """
    bounds = [time * n // count for n in range(count + 1)]
    found = list(itertools.pairwise(bounds))
    return found[::-1] if reverse else found


def piece_of(sequence: Sequence, begin: int, end: int, state: SequenceOf[Tensor]) -> Sequence:
    """The steps from begin to end, with all that belongs to them, from this state on."""

    def narrow(tensor: Tensor) -> Tensor:
        return tensor.narrow(sequence.time_axis, begin, end - begin)

    lengths, reset = sequence.lengths, sequence.reset
    masks, zoneout = sequence.masks, sequence.zoneout
    if lengths is not None:
        lengths = _within(lengths, begin, end)
    if reset is not None:
        reset = reset[:, begin:end]
    if masks is not None and masks.h is not None and masks.h.dim() == 3:
        masks = Masks(narrow(masks.h))
    if zoneout is not None:
        keep = (narrow(part) if isinstance(part, Tensor) else part for part in zoneout.keep)
        zoneout = Zoneout(tuple(keep))
    return sequence._replace(
        x=narrow(sequence.x),
        state=sequence.cell.make_state(*state),
        lengths=lengths,
        reset=reset,
        masks=masks,
        zoneout=zoneout,
    )


def _within(lengths: Lengths, begin: int, end: int) -> Lengths:
    """How much of each row lies between begin and end."""

    def within(value: int) -> int:
        return min(max(value - begin, 0), end - begin)

    values = (lengths.values - begin).clamp(0, end - begin)
    return Lengths(values, within(lengths.shortest), within(lengths.longest))


def check_lengths(
    lengths: Tensor, batch: int, time: int, device: torch.device, who: str
) -> Lengths:
    """Check a user's lengths and move them to `device`.

    Raises: ShapeError for what is not an integer tensor of shape (batch,) within 0..time.
    """
    if not isinstance(lengths, Tensor):
        raise ShapeError(
            f"{who}: lengths is a {type(lengths).__name__}, but must be an integer tensor of shape "
            f"({batch},). Wrap it: torch.tensor(lengths)."
        )
    if lengths.dtype == torch.bool or lengths.is_floating_point() or lengths.is_complex():
        raise ShapeError(
            f"{who}: lengths has dtype {lengths.dtype}, but must be integer. For a mask (True = "
            "real) pass mask.sum(dim=1); for fractions of the time axis multiply and round first."
        )
    if tuple(lengths.shape) != (batch,):
        raise ShapeError(
            f"{who}: lengths has shape {tuple(lengths.shape)}, but x holds {batch} sequences. "
            f"Pass one length per sequence, shape ({batch},)."
        )
    values = lengths.to(device=device, dtype=torch.int64)
    if torch.compiler.is_compiling():
        # Tracing cannot read values: no work is cut short, and a backend checks when it runs.
        return Lengths(values, 0, time)
    return check_within(values, time, who)


def check_within(values: Tensor, time: int, who: str) -> Lengths:
    """Read lengths (B,) int64. Raises: ShapeError for one that is not within 0..time."""
    if values.shape[0] == 0:
        return Lengths(values, 0, 0)
    shortest, longest = (int(bound) for bound in torch.aminmax(values))
    if shortest < 0 or longest > time:
        worst = shortest if shortest < 0 else longest
        row = int((values == worst).nonzero()[0])
        raise ShapeError(
            f"{who}: lengths[{row}] is {worst}, but x has {time} time steps, so lengths must lie "
            f"within 0..{time}. Clip them, or pad x further."
        )
    return Lengths(values, shortest, longest)


def check_reset(reset: Tensor, batch: int, time: int, device: torch.device, who: str) -> Tensor:
    """Check a user's reset flags and move them to `device`.

    Raises: ShapeError for what is not a bool tensor of shape (batch, time).
    """
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool:
        seen = reset.dtype if isinstance(reset, Tensor) else type(reset).__name__
        raise ShapeError(
            f"{who}: reset is {seen}, but must be a bool tensor of shape ({batch}, {time}), "
            "True where a row starts afresh before that step. Use reset.bool()."
        )
    if tuple(reset.shape) != (batch, time):
        raise ShapeError(
            f"{who}: reset has shape {tuple(reset.shape)}, but x holds {batch} sequences of {time} "
            f"steps. Pass (batch, time) = ({batch}, {time}), whatever batch_first says."
        )
    return reset.to(device)
