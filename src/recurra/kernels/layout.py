"""A call as the compiled core wants it: checked tensors, as sizes, strides and addresses.

The tuples are in the order in which csrc/module.cpp reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from recurra.cells.cell import Cell
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.ind_rnn import IndRNN
from recurra.cells.lem import LEM
from recurra.cells.lstm import LSTM
from recurra.kernels import core
from recurra.kernels.sequence import Sequence

NO_ROWS = (0, 0, 0)
# The parameters of a direction, in the order of csrc/module.cpp.
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_diagonal")
RENAMED = {
    ("LSTM", "weight_peephole"): "weight_diagonal",
    ("IndRNN", "weight_hh"): "weight_diagonal",
    ("LEM", "weight_hz"): "weight_hr",
}


class Choice(NamedTuple):
    """How the core is to run a call: "" and 0 let it choose.

    level names a level of vector instructions, slices divides the batch, team is the number of
    threads that share the panels of one slice.
    """

    level: str = ""
    threads: int = 0
    slices: int = 0
    team: int = 0


def tensors_of(calls: SequenceOf[Sequence]) -> list[Tensor]:
    """Parameters and initial state of every call, in the order of the cell."""
    return [t for call in calls for t in (*call.params.values(), *(call.state or ()))]


@lru_cache(maxsize=256)
def _shapes(cell: Cell) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    return cell.parameter_shapes(), cell.state_sizes()


def check(calls: SequenceOf[Sequence], x: Tensor, tensors: SequenceOf[Tensor]) -> None:
    """Raise ShapeError for any tensor of the calls that does not go with x and the cell."""
    first, second, _ = x.shape
    dtype = x.dtype
    batch, time = (first, second) if calls[0].batch_first else (second, first)
    rest = iter(tensors)
    for call in calls:
        who = call.cell.name
        shapes, sizes = _shapes(call.cell)
        for name in call.params:
            tensor, shape = next(rest), shapes[name]
            # As core.check, which a call for every parameter would make half as slow again.
            if tensor.shape != shape or tensor.dtype is not dtype or not tensor.is_cpu:
                core.check(who, name, tensor, shape, dtype)
        if call.state is not None:
            for name, size in sizes.items():
                core.check(who, f"the initial {name}", next(rest), (batch, size), dtype)
        if call.lengths is not None:
            core.check(who, "lengths", call.lengths.values, (batch,), torch.int64)
        if call.reset is not None:
            core.check(who, "reset", call.reset, (batch, time), torch.bool)
        if call.masks is not None and call.masks.h is not None:
            mask = call.masks.h
            rows = (first, second) if mask.dim() == 3 else (batch,)
            core.check(who, "the mask", mask, (*rows, call.cell.output_size), dtype)
        if call.zoneout is not None:
            for keep, size in zip(call.zoneout.keep, sizes.values(), strict=True):
                if isinstance(keep, Tensor):
                    core.check(who, "zoneout", keep, (first, second, size), dtype)


class Layout:
    """A call as the core wants it: contiguous tensors, and tuples of sizes, strides and addresses.

    It owns the tensors whose addresses it hands out.
    """

    def __init__(
        self, calls: SequenceOf[Sequence], x: Tensor, tensors: SequenceOf[Tensor], choice: Choice
    ) -> None:
        call = calls[0]
        cell = call.cell
        if x.shape[2] != cell.input_size or not x.is_cpu:
            core.check(cell.name, "x", x, (*x.shape[:2], cell.input_size), x.dtype)
        check(calls, x, tensors)
        self.calls = calls
        self.choice = choice
        self.batch_first = call.batch_first
        self.x = x = core.dense_rows(x)
        batch, time = x.shape[:2] if call.batch_first else (x.shape[1], x.shape[0])
        self.shape = (batch, time)
        self.sizes = (cell.input_size, cell.hidden_size, cell.output_size)
        self.tensors = [core.stored(t).contiguous() for t in tensors]
        self.lengths = None if call.lengths is None else call.lengths.values.contiguous()
        reset = call.reset
        self.layer = (
            kind_of(cell),
            x.dtype == torch.float64,
            batch,
            time,
            *self.sizes,
            call.recompute == "gates",
            call.clip_state_grad or 0.0,
            time_step(cell),
            *self.rows(x),
            0 if self.lengths is None else self.lengths.data_ptr(),
            *(NO_ROWS if reset is None else (reset.data_ptr(), *reset.stride())),
        )
        self.kept: list[Tensor] = []
        rest = iter(self.tensors)
        self.directions = [self._direction(call, rest) for call in calls]

    def rows(self, tensor: Tensor | None, offset: int = 0) -> tuple[int, int, int]:
        """Address and (batch, time) strides of a tensor in the layout of x."""
        return rows(tensor, self.batch_first, offset)

    def new_rows(self, size: int) -> Tensor:
        """An uninitialised tensor in the layout of x with `size` features."""
        batch, time = self.shape
        return self.x.new_empty((batch, time, size) if self.batch_first else (time, batch, size))

    def _direction(self, call: Sequence, rest: Iterator[Tensor]) -> tuple[float, ...]:
        params = {core_name(call.cell, name): next(rest).data_ptr() for name in call.params}
        state = [0, 0]
        for n in range(len(call.state or ())):
            state[n] = next(rest).data_ptr()
        zones, keeps = [NO_ROWS, NO_ROWS], [0.0, 0.0]
        for n, keep in enumerate(call.zoneout.keep if call.zoneout else ()):
            if isinstance(keep, Tensor):
                zones[n] = self.rows(self._keep(keep))
            else:
                keeps[n] = keep
        return (
            call.reverse,
            params["weight_ih"],
            *(params.get(name, 0) for name in PARAMETERS[1:]),
            *state,
            *self._mask(call),
            *zones[0],
            *zones[1],
            *keeps,
        )

    def _mask(self, call: Sequence) -> tuple[int, int, int]:
        if call.masks is None or call.masks.h is None:
            return NO_ROWS
        mask = self._keep(call.masks.h)
        if mask.dim() == 2:
            return mask.data_ptr(), mask.stride(0), 0
        return self.rows(mask)

    def _keep(self, tensor: Tensor) -> Tensor:
        self.kept.append(core.dense_rows(tensor))
        return self.kept[-1]


def kind_of(cell: Cell) -> int:
    """CellKind of csrc/calls.h."""
    if isinstance(cell, LSTM):
        return 2
    if isinstance(cell, GRU):
        return 3 if cell.reset_after else 4
    if isinstance(cell, IndRNN):
        return 5 if cell.activation == "relu" else 6
    if isinstance(cell, LEM):
        return 7
    assert isinstance(cell, Elman)
    return 0 if cell.activation == "tanh" else 1


def core_name(cell: Cell, name: str) -> str:
    """What the core calls a parameter of the cell; one of PARAMETERS."""
    return RENAMED.get((cell.name, name), name)


def time_step(cell: Cell) -> float:
    """The Δt of a LEM; other cells have none."""
    return cell.dt if isinstance(cell, LEM) else 0.0


def run_forward(layout: Layout, save: bool = False) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """(y, the final states), and what backward needs."""
    batch, time = layout.shape
    count, output_size = len(layout.calls), layout.sizes[2]
    y = layout.new_rows(count * output_size)
    ends = [
        y.new_empty(batch, size)
        for call in layout.calls
        for size in call.cell.state_sizes().values()
    ]
    parts = len(ends) // count
    saved = None
    if save:
        size = core.module.saved_size(layout.choice, layout.layer, _unsaved(layout))
        saved = y.new_empty(count, time * batch * size)
    directions = tuple(
        (
            *direction,
            *layout.rows(y, n * output_size),
            0 if saved is None else saved[n].data_ptr(),
            ends[n * parts].data_ptr(),
            ends[n * parts + 1].data_ptr() if parts > 1 else 0,
        )
        for n, direction in enumerate(layout.directions)
    )
    core.module.forward(layout.choice, layout.layer, directions)
    return (y, *ends), saved


def saved_size(cell: Cell, dtype: torch.dtype, zoned: bool, rebuild: bool, level: str) -> int:
    """Numbers that `run_forward` saves for each row and step of one direction."""
    sizes = (cell.input_size, cell.hidden_size, cell.output_size)
    options = (rebuild, 0.0, 1.0)
    layer = (kind_of(cell), dtype == torch.float64, 0, 0, *sizes, *options, *NO_ROWS, 0, *NO_ROWS)
    direction = (False, *(0,) * 8, *NO_ROWS, *NO_ROWS, *NO_ROWS, float(zoned), 0.0)
    return core.module.saved_size(Choice(level), layer, ((*direction, *NO_ROWS, 0, 0, 0),))


def _unsaved(layout: Layout) -> tuple[tuple[float, ...], ...]:
    """The directions without places for results: enough to ask for sizes."""
    return tuple((*direction, *NO_ROWS, 0, 0, 0) for direction in layout.directions)


def run_backward(
    layout: Layout,
    y: Tensor,
    saved: Tensor,
    wanted: SequenceOf[bool],
    d_results: SequenceOf[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of x and of the tensors of every call, None where not wanted."""
    calls, output_size = layout.calls, layout.sizes[2]
    y, saved = core.dense_rows(y), core.stored(saved).contiguous()
    d_y = None if d_results[0] is None else core.dense_rows(d_results[0])
    d_ends = [None if d is None else core.stored(d).contiguous() for d in d_results[1:]]
    parts = len(d_ends) // len(calls)
    d_x = [layout.new_rows(layout.sizes[0]) if wanted[0] else None for _ in calls]
    d_tensors = [
        torch.empty_like(t) if want else None
        for t, want in zip(layout.tensors, wanted[1:], strict=True)
    ]
    rest = iter(d_tensors)
    directions = []
    for n, (call, direction) in enumerate(zip(calls, layout.directions, strict=True)):
        params = {core_name(call.cell, name): address(next(rest)) for name in call.params}
        starts = [address(next(rest)) for _ in call.state or ()] + [0, 0]
        ends = [address(end) for end in d_ends[n * parts : (n + 1) * parts]] + [0]
        directions.append(
            (
                *direction,
                *layout.rows(y, n * output_size),
                saved[n].data_ptr(),
                *layout.rows(d_y, n * output_size),
                *ends[:2],
                *layout.rows(d_x[n]),
                *(params.get(name, 0) for name in PARAMETERS),
                *starts[:2],
            )
        )
    core.module.backward(layout.choice, layout.layer, tuple(directions))
    found = [d for d in d_x if d is not None]
    if len(found) == 2:
        found[0] += found[1]
    return [found[0] if found else None, *d_tensors]


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def rows(tensor: Tensor | None, batch_first: bool, offset: int = 0) -> tuple[int, int, int]:
    """Address of feature `offset`, and (batch, time) strides, of a tensor with rows over time."""
    if tensor is None:
        return NO_ROWS
    first, second, _ = tensor.stride()
    start = tensor.data_ptr() + offset * tensor.element_size()
    return (start, first, second) if batch_first else (start, second, first)
