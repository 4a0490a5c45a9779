"""The cpu backend: fused kernels of the compiled core, forward and backward through time.

It runs Elman, LSTM and GRU with everything that a call can ask for. Outputs sum every product in
ascending order in one accumulator, so a row's bits depend on nothing but the row: not on the batch
around it, the chunk or the number of threads.

Weights are packed at every call, which costs little, so in-place edits and parametrizations are
always seen. For second derivatives the backward pass runs the reference; inside torch.func
transforms this backend declines.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurra.cells.cell import Cell, Masks, State
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.kernels import reference
from recurra.kernels.sequence import Features, Sequence, Zoneout

# After torch, whose OpenMP runtime it shares.
if importlib.util.find_spec("recurra._core") is not None:
    from recurra import _core as _core
else:
    _core = None  # type: ignore[assignment]

DTYPES = (torch.float32, torch.float64)
# Computed in float32, and rounded at the end.
WIDENED = (torch.bfloat16, torch.float16)
NO_ROWS = (0, 0, 0)


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
    if _core is None:
        return "the compiled core was not built; see `recurra doctor`"
    if type(cell) not in (Elman, LSTM, GRU):
        return f"it runs Elman, LSTM and GRU only, and the cell is {cell.name}"
    if dtype not in DTYPES and dtype not in WIDENED:
        return f"it has no {dtype}"
    if torch._C._are_functorch_transforms_active():
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
        results = [run(call) for call in calls]
        return torch.cat([output for output, _ in results], -1), [state for _, state in results]
    dtype = calls[0].x.dtype
    if dtype in WIDENED:
        output, states = run_together([_widened(call) for call in calls])
        make = calls[0].cell.make_state
        return output.to(dtype), [make(*(part.to(dtype) for part in state)) for state in states]
    if torch.compiler.is_compiling():
        from recurra.kernels import compiled  # which runs this module's functions

        return compiled.run_together(calls)
    x = calls[0].x
    tensors = _tensors(calls)
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
        ctx.choice = layout.choice
        ctx.save_for_backward(x, results[0], saved, *tensors)
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *d_results: Tensor | None) -> Any:
        x, y, saved, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return None, *_differentiable_backward(ctx.calls, x, tensors, wanted, d_results)
        layout = _Layout(ctx.calls, x, tensors, ctx.choice._replace(threads=_threads()))
        return None, *_backward(layout, y, saved, wanted, d_results)


def _threads() -> int:
    return torch.get_num_threads()


def _threaded(choice: Choice) -> Choice:
    return choice if choice.threads else choice._replace(threads=_threads())


def _tensors(calls: SequenceOf[Sequence]) -> list[Tensor]:
    """Parameters and initial state of every call, in the order of the cell."""
    return [t for call in calls for t in (*call.params.values(), *(call.state or ()))]


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


def _widened(call: Sequence) -> Sequence:
    state, masks, zoneout = call.state, call.masks, call.zoneout
    if state is not None:
        state = call.cell.make_state(*(part.float() for part in state))
    if masks is not None and masks.h is not None:
        masks = Masks(masks.h.float())
    if zoneout is not None:
        keep = (part.float() if isinstance(part, Tensor) else part for part in zoneout.keep)
        zoneout = Zoneout(tuple(keep))
    params = {name: value.float() for name, value in call.params.items()}
    return replace(call, x=call.x.float(), params=params, state=state, masks=masks, zoneout=zoneout)


class _Layout:
    """A call as the core wants it: contiguous tensors, and tuples of sizes, strides and addresses.

    It owns the tensors whose addresses it hands out.
    """

    def __init__(
        self, calls: SequenceOf[Sequence], x: Tensor, tensors: SequenceOf[Tensor], choice: Choice
    ) -> None:
        call = calls[0]
        cell = call.cell
        self.calls = calls
        self.choice = choice
        self.batch_first = call.batch_first
        self.x = x = _dense_rows(x)
        batch, time = x.shape[:2] if call.batch_first else (x.shape[1], x.shape[0])
        self.shape = (batch, time)
        self.sizes = (cell.input_size, cell.hidden_size, cell.output_size)
        self.tensors = [_stored(t).contiguous() for t in tensors]
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
        self.kept.append(_dense_rows(tensor))
        return self.kept[-1]


def kind_of(cell: Cell) -> int:
    """CellKind of csrc/calls.h."""
    if isinstance(cell, LSTM):
        return 2
    if isinstance(cell, GRU):
        return 3 if cell.reset_after else 4
    assert isinstance(cell, Elman)
    return 0 if cell.activation == "tanh" else 1


def _dense_rows(tensor: Tensor) -> Tensor:
    """The tensor, or a copy, whose last axis is contiguous."""
    tensor = _stored(tensor)
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] < 2 else tensor.contiguous()


def _stored(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where its memory does not hold its values one by one as C++ has them.

    torch puts off negating what comes from a conjugate, and takes memory at odd addresses.
    """
    if tensor.is_neg() or tensor.data_ptr() % tensor.element_size():
        return tensor.clone()
    return tensor


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
        size = _core.saved_size(layout.choice, layout.layer, _unsaved(layout))
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
    _core.forward(layout.choice, layout.layer, directions)
    return (y, *ends), saved


def current_level() -> str:
    """The level of instructions that calls run at now."""
    return choice.level or _core.levels()[0]


def saved_size(cell: Cell, dtype: torch.dtype, zoned: bool, level: str) -> int:
    """Numbers that `_forward` saves for each row and step of one direction."""
    sizes = (cell.input_size, cell.hidden_size, cell.output_size)
    layer = (kind_of(cell), dtype == torch.float64, 0, 0, *sizes, *NO_ROWS, 0, *NO_ROWS)
    direction = (False, *(0,) * 7, *NO_ROWS, *NO_ROWS, *NO_ROWS, float(zoned), 0.0)
    return _core.saved_size(Choice(level), layer, ((*direction, *NO_ROWS, 0, 0, 0),))


def threads() -> tuple[int, int]:
    """Threads that a call may use now, and the CPUs that this process may run on."""
    return _core.threads_usable(), _core.threads_allowed()


def outline(cell: Cell, features: Features, dtype: torch.dtype, directions: int = 1) -> Outline:
    """How the core would run such a call now."""
    sizes = (cell.input_size, cell.hidden_size, cell.output_size)
    shape = (features.batch, features.time, *sizes)
    layer = (kind_of(cell), dtype == torch.float64, *shape, *NO_ROWS, 0, *NO_ROWS)
    direction = (0,) * 25
    threads, slices, team = _core.outline(_threaded(choice), layer, (direction,) * directions)
    level = current_level()
    return Outline(level, _core.vector_bits(level), threads, slices, team)


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
    d_y = None if d_results[0] is None else _dense_rows(d_results[0])
    d_ends = [None if d is None else _stored(d).contiguous() for d in d_results[1:]]
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
    _core.backward(layout.choice, layout.layer, tuple(directions))
    found = [d for d in d_x if d is not None]
    if len(found) == 2:
        found[0] += found[1]
    return [found[0] if found else None, *d_tensors]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _differentiable_backward(
    calls: SequenceOf[Sequence],
    x: Tensor,
    tensors: SequenceOf[Tensor],
    wanted: SequenceOf[bool],
    d_results: SequenceOf[Tensor | None],
) -> list[Tensor | None]:
    """`_backward` as a graph of its own, by the reference: for gradients of gradients."""
    with torch.autocast(x.device.type, enabled=False):
        results = [reference.run(call) for call in _rebuilt(calls, x, tensors)]
    outputs = [torch.cat([output for output, _ in results], -1)]
    outputs += [part for _, state in results for part in state]
    pairs = [
        (o, d)
        for o, d in zip(outputs, d_results, strict=True)
        if d is not None and o.requires_grad  # the outputs of no steps do not
    ]
    if not pairs:
        return [None for _ in wanted]
    inputs = [t for t, want in zip((x, *tensors), wanted, strict=True) if want]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            inputs,
            [d for _, d in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if want else None for want in wanted]
