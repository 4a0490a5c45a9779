"""The cpu backend: fused kernels of the compiled core, forward and backward through time.

It runs Elman, LSTM and GRU with everything that a call can ask for. Outputs sum every product in
ascending order in one accumulator, so a row's bits depend on nothing but the row: not on the batch
around it, the chunk or the number of threads.

Weights are packed at every call, which costs little, so in-place edits and parametrizations are
always seen. The backward pass runs the reference for second derivatives and under vmap; inside
torch.func transforms and torch.jit.trace this backend declines. Tensors of a subclass, whose memory
may not hold their values, are run by the reference, since `why_not` does not see them.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurra.cells.cell import Cell, Masks, State
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.kernels import core, reference
from recurra.kernels.sequence import Features, Sequence, Zoneout

DTYPES = (torch.float32, torch.float64)
# Computed in float32, and rounded at the end.
WIDENED = (torch.bfloat16, torch.float16)
NO_ROWS = (0, 0, 0)
SAVED = ("x saved for backward", "y saved for backward", "the slab saved for backward")


class Choice(NamedTuple):
    """How the core is to run a call: "" and 0 let it choose.

    level names a level of vector instructions, slices divides the batch, team is the number of
    threads that share the panels of one slice.
    """

    level: str = ""
    threads: int = 0
    slices: int = 0
    team: int = 0


class Outline(NamedTuple):
    """How the core would run a call: what it chose where `Choice` lets it choose."""

    level: str
    vector_bits: int
    threads: int
    slices: int
    team: int


# Tests force every way of running a call by changing this.
choice = Choice()


def why_not(cell: Cell, features: Features, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why this backend cannot run the call, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU, and x is on {device.type}"
    if core.module is None:
        return "the compiled core was not built; see `recurra doctor`"
    if type(cell) not in (Elman, LSTM, GRU):
        return f"it runs Elman, LSTM and GRU only, and the cell is {cell.name}"
    if dtype not in DTYPES and dtype not in WIDENED:
        return f"it has no {dtype}"
    if core.is_tracing():
        return "torch.jit.trace cannot record it"
    if core.is_transformed():
        return "it does not work inside torch.func transforms"
    if forward_ad._current_level >= 0:
        return "it has no forward-mode derivatives"
    return None


def run(sequence: Sequence) -> tuple[Tensor, State]:
    """Outputs over time, in the layout of x, and the final state."""
    output, states = run_together((sequence,))
    return output, states[0]


def run_together(calls: SequenceOf[Sequence]) -> tuple[Tensor, list[State]]:
    """Both directions of a layer at once, their outputs side by side on the last axis."""
    if not all(_alike(call, calls[0]) for call in calls):
        return _side_by_side([run(call) for call in calls])
    x = calls[0].x
    tensors = _tensors(calls)
    compiling = torch.compiler.is_compiling()
    if not compiling and not core.are_plain((x, *tensors, *_extras(calls))):
        return _by_reference(calls)
    if x.dtype in WIDENED:
        if not compiling:
            _check(calls, x, tensors)
        wide = x.float()
        output, states = run_together([_widened(call, wide) for call in calls])
        make = calls[0].cell.make_state
        return output.to(x.dtype), [make(*(part.to(x.dtype) for part in s)) for s in states]
    if compiling:
        from recurra.kernels import compiled  # which runs this module's functions

        return compiled.run_together(calls)
    if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in tensors)):
        output, *parts = _Recurrence.apply(calls, x, *tensors)  # type: ignore[no-untyped-call]
    else:
        output, *parts = _forward(_Layout(calls, x, tensors, _threaded(choice)))[0]
    count = len(parts) // len(calls)
    make = calls[0].cell.make_state
    return output, [make(*parts[n * count : (n + 1) * count]) for n in range(len(calls))]


def _alike(call: Sequence, other: Sequence) -> bool:
    """Whether two calls differ only in what each direction has for itself."""
    return call is other or (
        call.cell == other.cell
        and call.batch_first == other.batch_first
        and call.x is other.x
        and call.reset is other.reset
        and (call.lengths and call.lengths.values) is (other.lengths and other.lengths.values)
        and (call.state is None) == (other.state is None)
    )


class _Recurrence(torch.autograd.Function):
    """Arguments: the calls, x, and the tensors of `_tensors`; results: y and the final states."""

    @staticmethod
    def forward(ctx: Any, calls: SequenceOf[Sequence], x: Tensor, *tensors: Tensor) -> Any:
        layout = _Layout(calls, x, tensors, _threaded(choice))
        results, saved = _forward(layout, save=True)
        ctx.calls = _for_backward(calls)
        assert saved is not None
        ctx.choice = layout.choice
        ctx.dtype = x.dtype
        ctx.shapes = x.shape, results[0].shape, saved.shape
        ctx.save_for_backward(x, results[0], saved, *tensors)
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *d_results: Tensor | None) -> Any:
        kept = ctx.saved_tensors  # once: under checkpointing it runs forward again
        x, y, saved, *tensors = kept
        wanted = ctx.needs_input_grad[1:]
        plain = core.are_plain(core.given(*kept, *d_results))
        if torch.is_grad_enabled() or core.is_transformed() or not plain:
            return None, *differentiable_backward(ctx.calls, x, tensors, wanted, d_results)
        # saved_tensors_hooks may have handed back anything.
        for name, tensor, shape in zip(SAVED, (x, y, saved), ctx.shapes, strict=True):
            core.check(ctx.calls[0].cell.name, name, tensor, shape, ctx.dtype)
        layout = _Layout(ctx.calls, x, tensors, ctx.choice._replace(threads=_threads()))
        return None, *_backward(layout, y, saved, wanted, d_results)


def _threads() -> int:
    return torch.get_num_threads()


def _threaded(choice: Choice) -> Choice:
    return choice if choice.threads else choice._replace(threads=_threads())


def _tensors(calls: SequenceOf[Sequence]) -> list[Tensor]:
    """Parameters and initial state of every call, in the order of the cell."""
    return [t for call in calls for t in (*call.params.values(), *(call.state or ()))]


def _extras(calls: SequenceOf[Sequence]) -> list[Tensor]:
    """The other tensors of every call; usually none."""
    found = []
    for call in calls:
        if call.lengths is not None:
            found.append(call.lengths.values)
        if call.reset is not None:
            found.append(call.reset)
        if call.masks is not None and call.masks.h is not None:
            found.append(call.masks.h)
        if call.zoneout is not None:
            found += [keep for keep in call.zoneout.keep if isinstance(keep, Tensor)]
    return found


@lru_cache(maxsize=256)
def _shapes(cell: Cell) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    return cell.parameter_shapes(), cell.state_sizes()


def _check(calls: SequenceOf[Sequence], x: Tensor, tensors: SequenceOf[Tensor]) -> None:
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


def _for_backward(calls: SequenceOf[Sequence]) -> list[Sequence]:
    """The calls without the tensors that autograd keeps for us, and frees after backward.

    Lengths and resets are copied: their owner may write to them before backward reads them.
    """
    call = calls[0]
    lengths, reset, nothing = call.lengths, call.reset, call.x.new_empty(0)
    if lengths is not None:
        lengths = replace(lengths, values=lengths.values.clone())
    if reset is not None:
        reset = reset.clone()
    return [
        replace(
            call,
            x=nothing,
            params=dict.fromkeys(call.params, nothing),
            state=None
            if call.state is None
            else call.cell.make_state(*(nothing for _ in call.state)),
            lengths=lengths,
            reset=reset,
        )
        for call in calls
    ]


def _rebuilt(calls: SequenceOf[Sequence], x: Tensor, tensors: SequenceOf[Tensor]) -> list[Sequence]:
    """The calls over x, with their parameters and initial states taken from `tensors` in turn."""
    rest = iter(tensors)
    rebuilt = []
    for call in calls:
        params = {name: next(rest) for name in call.params}
        state = None
        if call.state is not None:
            state = call.cell.make_state(*(next(rest) for _ in call.state))
        rebuilt.append(replace(call, x=x, params=params, state=state))
    return rebuilt


def _widened(call: Sequence, x: Tensor) -> Sequence:
    state, masks, zoneout = call.state, call.masks, call.zoneout
    if state is not None:
        state = call.cell.make_state(*(part.float() for part in state))
    if masks is not None and masks.h is not None:
        masks = Masks(masks.h.float())
    if zoneout is not None:
        keep = (part.float() if isinstance(part, Tensor) else part for part in zoneout.keep)
        zoneout = Zoneout(tuple(keep))
    params = {name: value.float() for name, value in call.params.items()}
    return replace(call, x=x, params=params, state=state, masks=masks, zoneout=zoneout)


class _Layout:
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
        _check(calls, x, tensors)
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
            *self.rows(x),
            0 if self.lengths is None else self.lengths.data_ptr(),
            *(NO_ROWS if reset is None else (reset.data_ptr(), *reset.stride())),
        )
        self.kept: list[Tensor] = []
        rest = iter(self.tensors)
        self.directions = [self._direction(call, rest) for call in calls]

    def rows(self, tensor: Tensor, offset: int = 0) -> tuple[int, int, int]:
        """Address and (batch, time) strides of a tensor in the layout of x."""
        first, second, _ = tensor.stride()
        start = tensor.data_ptr() + offset * tensor.element_size()
        return (start, first, second) if self.batch_first else (start, second, first)

    def new_rows(self, size: int) -> Tensor:
        """An uninitialised tensor in the layout of x with `size` features."""
        batch, time = self.shape
        return self.x.new_empty((batch, time, size) if self.batch_first else (time, batch, size))

    def _direction(self, call: Sequence, rest: Any) -> tuple[float, ...]:
        params = {name: next(rest).data_ptr() for name in call.params}
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
            params["weight_hh"],
            params.get("bias_ih", 0),
            params.get("bias_hh", 0),
            params.get("weight_hr", 0),
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
    assert isinstance(cell, Elman)
    return 0 if cell.activation == "tanh" else 1


def _forward(layout: _Layout, save: bool = False) -> tuple[tuple[Tensor, ...], Tensor | None]:
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


def current_level() -> str:
    """The level of instructions that calls run at now."""
    return choice.level or core.module.levels()[0]


def saved_size(cell: Cell, dtype: torch.dtype, zoned: bool, level: str) -> int:
    """Numbers that `_forward` saves for each row and step of one direction."""
    sizes = (cell.input_size, cell.hidden_size, cell.output_size)
    layer = (kind_of(cell), dtype == torch.float64, 0, 0, *sizes, *NO_ROWS, 0, *NO_ROWS)
    direction = (False, *(0,) * 7, *NO_ROWS, *NO_ROWS, *NO_ROWS, float(zoned), 0.0)
    return core.module.saved_size(Choice(level), layer, ((*direction, *NO_ROWS, 0, 0, 0),))


def threads() -> tuple[int, int]:
    """Threads that a call may use now, and the CPUs that this process may run on."""
    return core.module.threads_usable(), core.module.threads_allowed()


def outline(cell: Cell, features: Features, dtype: torch.dtype, directions: int = 1) -> Outline:
    """How the core would run such a call now."""
    sizes = (cell.input_size, cell.hidden_size, cell.output_size)
    shape = (features.batch, features.time, *sizes)
    layer = (kind_of(cell), dtype == torch.float64, *shape, *NO_ROWS, 0, *NO_ROWS)
    direction = (0,) * 25
    threads, slices, team = core.module.outline(_threaded(choice), layer, (direction,) * directions)
    level = current_level()
    return Outline(level, core.module.vector_bits(level), threads, slices, team)


def _unsaved(layout: _Layout) -> tuple[tuple[float, ...], ...]:
    """The directions without places for results: enough to ask for sizes."""
    return tuple((*direction, *NO_ROWS, 0, 0, 0) for direction in layout.directions)


def _backward(
    layout: _Layout,
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
        params = {name: _address(next(rest)) for name in call.params}
        starts = [_address(next(rest)) for _ in call.state or ()] + [0, 0]
        ends = [_address(end) for end in d_ends[n * parts : (n + 1) * parts]] + [0]
        d_x_n = d_x[n]
        directions.append(
            (
                *direction,
                *layout.rows(y, n * output_size),
                saved[n].data_ptr(),
                *(NO_ROWS if d_y is None else layout.rows(d_y, n * output_size)),
                *ends[:2],
                *(NO_ROWS if d_x_n is None else layout.rows(d_x_n)),
                params["weight_ih"],
                params["weight_hh"],
                params.get("bias_ih", 0),
                params.get("bias_hh", 0),
                params.get("weight_hr", 0),
                *starts[:2],
            )
        )
    core.module.backward(layout.choice, layout.layer, tuple(directions))
    found = [d for d in d_x if d is not None]
    if len(found) == 2:
        found[0] += found[1]
    return [found[0] if found else None, *d_tensors]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def differentiable_backward(
    calls: SequenceOf[Sequence],
    x: Tensor,
    tensors: SequenceOf[Tensor],
    wanted: SequenceOf[bool],
    d_results: SequenceOf[Tensor | None],
) -> list[Tensor | None]:
    """`_backward` by the reference: for gradients of gradients, vmap, and unusual tensors."""

    def run(inputs: list[Any]) -> list[Tensor]:
        output, states = _by_reference(_rebuilt(calls, inputs[0], inputs[1:]))
        return [output, *(part for state in states for part in state)]

    return core.differentiate(run, (x, *tensors), wanted, d_results)


def _by_reference(calls: SequenceOf[Sequence]) -> tuple[Tensor, list[State]]:
    return _side_by_side([reference.run(call) for call in calls])


def _side_by_side(results: SequenceOf[tuple[Tensor, State]]) -> tuple[Tensor, list[State]]:
    outputs = [output for output, _ in results]
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
    return output, [state for _, state in results]
