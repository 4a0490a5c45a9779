"""A call as the compiled core wants it: checked tensors, as sizes, strides and addresses.

The tuples are in the order in which csrc/module.cpp reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as SequenceOf
from functools import lru_cache
from itertools import islice
from operator import attrgetter, itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

from recurra.cells.cell import Cell, Params
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.ind_rnn import IndRNN
from recurra.cells.lem import LEM
from recurra.cells.lstm import LSTM
from recurra.cells.slstm import SLSTM
from recurra.kernels import core
from recurra.kernels.sequence import Sequence

NO_ROWS = (0, 0, 0)
# Parts of a state at most. The core sees two: h, and those beside it in one tensor, side by side.
MOST_PARTS = 4
# What a direction has of a mask and of zoneout when it has neither.
UNTOUCHED = (*NO_ROWS, *NO_ROWS, *NO_ROWS, *(0.0,) * MOST_PARTS)
# What has to be right about a parameter.
FACTS = attrgetter("shape", "dtype", "is_cpu")
# The parameters of a direction, in the order of csrc/module.cpp.
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_diagonal")
RENAMED = {
    ("LSTM", "weight_peephole"): "weight_diagonal",
    ("IndRNN", "weight_hh"): "weight_diagonal",
    ("LEM", "weight_hz"): "weight_hr",
}


Tensors = SequenceOf[Tensor | None]


class Choice(NamedTuple):
    """How the core is to run a call: "" and 0 let it choose.

    level names a level of vector instructions, slices divides the batch, team is the number of
    threads that share the panels of one slice.
    """

    level: str = ""
    threads: int = 0
    slices: int = 0
    team: int = 0


class Constants(NamedTuple):
    """What a cell alone decides of its calls.

    kind is its CellKind in csrc/calls.h, sizes (input, hidden, output), time_step a LEM's Δt.
    take gets the parameters out of `call.params` in the order of `shapes`, and place puts their
    addresses, followed by 0, in the order of PARAMETERS. parts are the sizes of the state's parts.
    """

    kind: int
    sizes: tuple[int, int, int]
    time_step: float
    shapes: dict[str, tuple[int, ...]]
    parts: dict[str, int]
    take: Callable[[Params], tuple[Tensor, ...]]
    place: Callable[[SequenceOf[int]], tuple[int, ...]]


@lru_cache(maxsize=256)
def constants(cell: Cell) -> Constants:
    shapes = cell.parameter_shapes()
    names = [core_name(cell, name) for name in shapes]
    places = (names.index(name) if name in names else -1 for name in PARAMETERS)
    return Constants(
        kind_of(cell),
        (cell.input_size, cell.hidden_size, cell.output_size),
        time_step(cell),
        shapes,
        cell.state_sizes(),
        itemgetter(*shapes),
        itemgetter(*places),
    )


def tensors_of(calls: SequenceOf[Sequence]) -> list[Tensor]:
    """Parameters and initial state of every call of one cell, in the order of the cell.

    For eager calls: a graph cannot look up what is known of a cell.
    """
    take = constants(calls[0].cell).take
    found: list[Tensor] = []
    for call in calls:
        found += take(call.params)
        if call.state is not None:
            found += call.state
    return found


def check(calls: SequenceOf[Sequence], x: Tensor, tensors: SequenceOf[Tensor]) -> Constants:
    """What the calls' cell decides.

    Raises: ShapeError for any tensor of the calls that does not go with x and the cell.
    """
    first, second, features = x.shape
    dtype = x.dtype
    cell = calls[0].cell
    who, known = cell.name, constants(cell)
    if features != cell.input_size or not x.is_cpu:
        core.check(who, "x", x, (first, second, cell.input_size), dtype)
    batch, time = (first, second) if calls[0].batch_first else (second, first)
    rest = iter(tensors)
    for call in calls:
        params = list(islice(rest, len(known.shapes)))
        # As core.check, for all at once: a call for each would take most of the time of a check.
        if list(map(FACTS, params)) != [(shape, dtype, True) for shape in known.shapes.values()]:
            for (name, shape), tensor in zip(known.shapes.items(), params, strict=True):
                core.check(who, name, tensor, shape, dtype)
        if call.state is not None:
            for name, size in known.parts.items():
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
            for keep, size in zip(call.zoneout.keep, known.parts.values(), strict=True):
                if isinstance(keep, Tensor):
                    core.check(who, "zoneout", keep, (first, second, size), dtype)
    return known


class Layout:
    """A call as the core wants it: contiguous tensors, and tuples of sizes, strides and addresses.

    It owns the tensors whose addresses it hands out.
    """

    def __init__(
        self, calls: SequenceOf[Sequence], x: Tensor, tensors: SequenceOf[Tensor], choice: Choice
    ) -> None:
        call = calls[0]
        self.known = known = check(calls, x, tensors)
        self.sizes = sizes = known.sizes
        first, second, _ = x.shape
        self.calls = calls
        self.choice = choice
        self.batch_first = call.batch_first
        self.x = x = core.dense_rows(x)
        self.shape = batch, time = (first, second) if call.batch_first else (second, first)
        self.tensors = core.dense(tensors)
        self.lengths = None if call.lengths is None else call.lengths.values.contiguous()
        reset = call.reset
        self.layer = (
            known.kind,
            x.dtype is torch.float64,
            batch,
            time,
            *sizes,
            call.recompute == "gates",
            call.clip_state_grad or 0.0,
            known.time_step,
            *rows(x, call.batch_first),
            0 if self.lengths is None else self.lengths.data_ptr(),
            *(NO_ROWS if reset is None else (reset.data_ptr(), *reset.stride())),
        )
        held = self.held(self.tensors, together)
        self.kept = core.given(*held)
        self.directions = list(map(self._direction, calls, self.placed(held)))

    def new_rows(self, size: int) -> Tensor:
        """An uninitialised tensor in the layout of x with `size` features."""
        first, second, _ = self.x.shape
        return self.x.new_empty(first, second, size)

    def held(self, tensors: Tensors, join: Callable[[Tensors], Tensors]) -> Tensors:
        """What goes with `tensors`, each call's state of many parts joined to two by `join`."""
        if len(self.known.parts) < 3:
            return tensors
        count, each = len(self.known.shapes), len(tensors) // len(self.calls)
        found: list[Tensor | None] = []
        for begin in range(0, len(tensors), each):
            found += tensors[begin : begin + count]
            found += join(tensors[begin + count : begin + each])
        return found

    def placed(self, held: Tensors) -> list[tuple[int, ...]]:
        """Addresses of what is `held`, as the core wants those of each call.

        The parameters in the order of PARAMETERS, and two parts of the state; 0 for no tensor.
        """
        count, each = len(self.known.shapes), len(held) // len(self.calls)
        found = []
        for begin in range(0, len(held), each):
            state = begin + count
            params = self.known.place((*map(address, held[begin:state]), 0))
            found.append((*params, *addresses(held[state : begin + each])))
        return found

    def _direction(self, call: Sequence, tensors: tuple[int, ...]) -> tuple[float, ...]:
        if call.masks is None and call.zoneout is None:
            return (call.reverse, *tensors, *UNTOUCHED)
        zones, keeps = self._zoneout(call)
        return (call.reverse, *tensors, *self._mask(call), *zones[0], *zones[1], *keeps)

    def _zoneout(self, call: Sequence) -> tuple[list[tuple[int, int, int]], list[float]]:
        """Rows of what is kept of h, and of the parts beside it; the share of each without rows."""
        zones, keeps = [NO_ROWS, NO_ROWS], [0.0] * MOST_PARTS
        if call.zoneout is None:
            return zones, keeps
        h, *rest = call.zoneout.keep
        for n, of in enumerate(([h], rest)):
            if any(isinstance(keep, Tensor) for keep in of):
                zones[n] = rows(self._keep(_beside(of)), self.batch_first)
            else:
                keeps[n : n + len(of)] = of  # type: ignore[assignment]
        return zones, keeps

    def _mask(self, call: Sequence) -> tuple[int, int, int]:
        if call.masks is None or call.masks.h is None:
            return NO_ROWS
        mask = self._keep(call.masks.h)
        if mask.dim() == 2:
            return mask.data_ptr(), mask.stride(0), 0
        return rows(mask, self.batch_first)

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
    if isinstance(cell, SLSTM):
        return 8 if cell.forget_gate == "sigmoid" else 9
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
    count, output_size, parts = len(layout.calls), layout.sizes[2], layout.known.parts.values()
    y = layout.new_rows(count * output_size)
    saved, slab = None, 0
    if save:
        slab = time * batch * _size_to_save(layout)
        saved = y.new_empty(count, slab)
    finals, directions = [], []
    for n, direction in enumerate(layout.directions):
        ends = [y.new_empty(batch, size) for size in in_core(parts)]
        finals.append(ends)
        directions.append(
            (
                *direction,
                *rows(y, layout.batch_first, n * output_size),
                address(saved, n * slab),
                *addresses(ends),
            )
        )
    core.module.forward(layout.choice, layout.layer, tuple(directions))
    if len(parts) > 2:  # no two results may share memory
        whole = torch.contiguous_format
        finals = [[p.clone(memory_format=whole) for p in apart(e, len(parts))] for e in finals]
    return (y, *(part for ends in finals for part in ends)), saved


def _size_to_save(layout: Layout) -> int:
    """Numbers to save for each row and step of one direction, as many for all directions."""
    call = layout.calls[0]
    keeps = [other.zoneout.keep[0] for other in layout.calls if other.zoneout is not None]
    zoned = any(isinstance(keep, Tensor) or keep != 0 for keep in keeps)
    rebuild = call.recompute == "gates"
    return saved_size(call.cell, layout.x.dtype, zoned, rebuild, layout.choice.level)


# As long as the process lives: a level is a fact about the machine.
@lru_cache(maxsize=256)
def saved_size(cell: Cell, dtype: torch.dtype, zoned: bool, rebuild: bool, level: str) -> int:
    """Numbers that `run_forward` saves for each row and step of one direction."""
    sizes = (cell.input_size, cell.hidden_size, cell.output_size)
    options = (rebuild, 0.0, 1.0)
    layer = (kind_of(cell), dtype == torch.float64, 0, 0, *sizes, *options, *NO_ROWS, 0, *NO_ROWS)
    keeps = (float(zoned), *(0.0,) * (MOST_PARTS - 1))
    direction = (False, *(0,) * 8, *NO_ROWS, *NO_ROWS, *NO_ROWS, *keeps)
    return core.module.saved_size(Choice(level), layer, ((*direction, *NO_ROWS, 0, 0, 0),))


def run_backward(
    layout: Layout,
    y: Tensor,
    saved: Tensor,
    wanted: SequenceOf[bool],
    d_results: SequenceOf[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of x and of the tensors of every call, None where not wanted."""
    calls, output_size, batch_first = layout.calls, layout.sizes[2], layout.batch_first
    y, saved = core.dense_rows(y), core.stored(saved).contiguous()
    d_y = None if d_results[0] is None else core.dense_rows(d_results[0])
    d_ends = [None if d is None else core.stored(d).contiguous() for d in d_results[1:]]
    parts = len(d_ends) // len(calls)
    d_x = [layout.new_rows(layout.sizes[0]) if wanted[0] else None for _ in calls]
    d_tensors = [
        torch.empty_like(t) if want else None
        for t, want in zip(layout.tensors, wanted[1:], strict=True)
    ]
    d_held = layout.held(d_tensors, room_for)
    d_addresses = layout.placed(d_held)
    finals, directions = [], []
    for n, direction in enumerate(layout.directions):
        finals.append(together(d_ends[n * parts : (n + 1) * parts]))
        directions.append(
            (
                *direction,
                *rows(y, batch_first, n * output_size),
                address(saved, n * saved.shape[1]),
                *rows(d_y, batch_first, n * output_size),
                *addresses(finals[n]),
                *rows(d_x[n], batch_first),
                *d_addresses[n],
            )
        )
    core.module.backward(layout.choice, layout.layer, tuple(directions))
    if d_held is not d_tensors and calls[0].state is not None:
        each = len(d_tensors) // len(calls)
        for n in range(len(calls)):
            own = d_tensors[n * each + each - parts : (n + 1) * each]
            beside = d_held[(n + 1) * len(d_held) // len(calls) - 1]
            take_apart(beside, own[1:])
    found = [d for d in d_x if d is not None]
    if len(found) == 2:
        found[0] += found[1]
    return [found[0] if found else None, *d_tensors]


def in_core(sizes: Iterable[int]) -> list[int]:
    """Sizes of what the core holds of a state with parts of these sizes."""
    h, *rest = sizes
    return [h, sum(rest)] if rest else [h]


def together(parts: Tensors) -> Tensors:
    """A state's parts as the core has them; a part that is None is zeros beside one that is not."""
    if len(parts) < 3:
        return parts
    h, *rest = parts
    present = core.given(*rest)
    if not present:
        return [h, None]
    return [h, torch.cat([torch.zeros_like(present[0]) if p is None else p for p in rest], 1)]


def apart(held: SequenceOf[Tensor], count: int) -> list[Tensor]:
    """What the core holds of a state as views of its `count` parts."""
    return list(held) if count < 3 else [held[0], *held[1].chunk(count - 1, 1)]


def room_for(parts: Tensors) -> Tensors:
    """Where the core can write what `take_apart` hands on to these parts; None: not wanted."""
    if len(parts) < 3:
        return parts
    present = core.given(*parts[1:])
    if not present:
        return [parts[0], None]
    batch, size = present[0].shape
    return [parts[0], present[0].new_empty(batch, size * (len(parts) - 1))]


def take_apart(beside: Tensor | None, parts: Tensors) -> None:
    """Copy what was written side by side to those of the parts that are not None."""
    if beside is None:
        return
    for part, found in zip(parts, beside.chunk(len(parts), 1), strict=True):
        if part is not None:
            part.copy_(found)


def _beside(keeps: SequenceOf[Tensor | float]) -> Tensor:
    """What is kept of parts of equal size, side by side; numbers become tensors."""
    if len(keeps) == 1:
        assert isinstance(keeps[0], Tensor)
        return keeps[0]
    like = next(keep for keep in keeps if isinstance(keep, Tensor))
    return torch.cat([k if isinstance(k, Tensor) else torch.full_like(like, k) for k in keeps], 2)


def addresses(held: Tensors) -> list[int]:
    """Of the two things that the core holds of a state."""
    return [*map(address, held), 0, 0][:2]


def address(tensor: Tensor | None, offset: int = 0) -> int:
    """Address of the element `offset` of a contiguous tensor, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr() + offset * tensor.element_size()


def rows(tensor: Tensor | None, batch_first: bool, offset: int = 0) -> tuple[int, int, int]:
    """Address of feature `offset`, and (batch, time) strides, of a tensor with rows over time."""
    if tensor is None:
        return NO_ROWS
    first, second, _ = tensor.stride()
    start = tensor.data_ptr() + offset * tensor.element_size()
    return (start, first, second) if batch_first else (start, second, first)
