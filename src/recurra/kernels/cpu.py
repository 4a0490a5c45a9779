"""The cpu backend: fused kernels of the compiled core, forward and backward through time.

It runs Elman, LSTM, GRU, IndRNN, LEM and sLSTM with everything that a call can ask for. Outputs sum
every product in ascending order in one accumulator, so a row's bits depend on nothing but the row:
not on the batch around it, the chunk or the number of threads.

Weights are packed at every call, which costs little, so in-place edits and parametrizations are
always seen. The backward pass runs the reference for second derivatives and under vmap; inside
torch.func transforms and torch.jit.trace, and for tensors of a subclass, whose memory may not hold
their values, this backend declines.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurra.cells.cell import Cell, Masks, Params, State
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.ind_rnn import IndRNN
from recurra.cells.lem import LEM
from recurra.cells.lstm import LSTM
from recurra.cells.slstm import SLSTM
from recurra.kernels import core, reference
from recurra.kernels.layout import (
    NO_ROWS,
    Choice,
    Layout,
    check,
    kind_of,
    run_backward,
    run_forward,
    tensors_of,
)
from recurra.kernels.sequence import Features, Sequence, Zoneout

CELLS = (Elman, LSTM, GRU, IndRNN, LEM, SLSTM)
DTYPES = (torch.float32, torch.float64)
# Computed in float32, and rounded at the end.
WIDENED = (torch.bfloat16, torch.float16)
NOTHING = torch.empty(0, device="cpu")
SAVED = ("x saved for backward", "y saved for backward", "the slab saved for backward")


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
    if type(cell) not in CELLS:
        return f"it runs Elman, LSTM, GRU, IndRNN, LEM and sLSTM only, and the cell is {cell.name}"
    if getattr(cell, "layer_norm", False):
        return "it has no layer normalisation inside a cell"
    if dtype not in DTYPES and dtype not in WIDENED:
        return f"it has no {dtype}"
    if features.learned_start:
        return "its resets go back to zeros, not to a learned initial state"
    if core.is_tracing():
        return "torch.jit.trace cannot record it"
    if core.is_transformed():
        return "it does not work inside torch.func transforms"
    if forward_ad._current_level >= 0:
        return "it has no forward-mode derivatives"
    if not features.plain:
        return "a tensor of the call is of a subclass of Tensor, whose memory it cannot read"
    return None


def run(sequence: Sequence) -> tuple[Tensor, State]:
    """Outputs over time, in the layout of x, and the final state."""
    output, states = run_together((sequence,))
    return output, states[0]


def run_together(calls: SequenceOf[Sequence]) -> tuple[Tensor, list[State]]:
    """Both directions of a layer at once, their outputs side by side on the last axis."""
    if len(calls) > 1 and not all(_alike(call, calls[0]) for call in calls):
        return _side_by_side([run(call) for call in calls])
    calls = list(map(plain, calls))
    x = calls[0].x
    compiling = torch.compiler.is_compiling()
    if x.dtype in WIDENED:
        if not compiling:
            check(calls, x, tensors_of(calls))
        wide = x.float()
        output, states = run_together([widened(call, wide) for call in calls])
        make = calls[0].cell.make_state
        return output.to(x.dtype), [make(*(part.to(x.dtype) for part in s)) for s in states]
    if compiling:
        from recurra.kernels import compiled  # which runs this module's functions

        return compiled.run_together(calls)
    tensors = tensors_of(calls)
    if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in tensors)):
        output, *parts = _Recurrence.apply(calls, x, *tensors)  # type: ignore[no-untyped-call]
    else:
        output, *parts = run_forward(Layout(calls, x, tensors, _threaded(choice)))[0]
    make = calls[0].cell.make_state
    if len(calls) == 1:
        return output, [make(*parts)]
    count = len(parts) // len(calls)
    return output, [make(*parts[n * count : (n + 1) * count]) for n in range(len(calls))]


def plain(call: Sequence) -> Sequence:
    """The call as one of a cell that the core has, see `plain_cell`."""
    cell, params = plain_cell(call.cell, call.params)
    return call if cell is call.cell else call._replace(cell=cell, params=params)


def plain_cell(cell: Cell, params: Params) -> tuple[Cell, Params]:
    """The same numbers by a cell that the core has: coupled gates as four, heads as one."""
    # type first: isinstance asks an abstract class's registry, at every call.
    if type(cell) is LSTM and cell.coupled:
        return cell.uncouple(params)
    if type(cell) is SLSTM and cell.num_heads > 1:
        return cell.join_heads(params)
    return cell, params


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
    """Arguments: the calls, x, and the tensors of `tensors_of`; results: y and the final states."""

    @staticmethod
    def forward(ctx: Any, calls: SequenceOf[Sequence], x: Tensor, *tensors: Tensor) -> Any:
        layout = Layout(calls, x, tensors, _threaded(choice))
        results, saved = run_forward(layout, save=True)
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
        layout = Layout(ctx.calls, x, tensors, _rethreaded(ctx.choice))
        return None, *run_backward(layout, y, saved, wanted, d_results)


def _rethreaded(choice: Choice) -> Choice:
    """The choice, with as many threads as torch has now."""
    return Choice(choice.level, torch.get_num_threads(), choice.slices, choice.team)


def _threaded(choice: Choice) -> Choice:
    return choice if choice.threads else _rethreaded(choice)


def _for_backward(calls: SequenceOf[Sequence]) -> list[Sequence]:
    """The calls without the tensors that autograd keeps for us, and frees after backward.

    Lengths and resets are copied: their owner may write to them before backward reads them.
    """
    call = calls[0]
    lengths, reset = call.lengths, call.reset
    if lengths is not None:
        lengths = replace(lengths, values=lengths.values.clone())
    if reset is not None:
        reset = reset.clone()
    return [
        call._replace(
            x=NOTHING,
            params={},
            state=None if call.state is None else (),
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
        shapes, parts = call.cell.parameter_shapes(), call.cell.state_sizes()
        params = {name: next(rest) for name in shapes}
        state = None
        if call.state is not None:
            state = call.cell.make_state(*(next(rest) for _ in parts))
        rebuilt.append(call._replace(x=x, params=params, state=state, recompute=None))
    return rebuilt


def widened(call: Sequence, x: Tensor) -> Sequence:
    """The call over x, which is its own in float32, with everything else in float32 too."""
    state, masks, zoneout = call.state, call.masks, call.zoneout
    if state is not None:
        state = call.cell.make_state(*(part.float() for part in state))
    if masks is not None and masks.h is not None:
        masks = Masks(masks.h.float())
    if zoneout is not None:
        keep = (part.float() if isinstance(part, Tensor) else part for part in zoneout.keep)
        zoneout = Zoneout(tuple(keep))
    params = {name: value.float() for name, value in call.params.items()}
    return call._replace(x=x, params=params, state=state, masks=masks, zoneout=zoneout)


def current_level() -> str:
    """The level of instructions that calls run at now."""
    return choice.level or core.module.levels()[0]


def threads() -> tuple[int, int]:
    """Threads that a call may use now, and the CPUs that this process may run on."""
    return core.module.threads_usable(), core.module.threads_allowed()


def outline(cell: Cell, features: Features, dtype: torch.dtype, directions: int = 1) -> Outline:
    """How the core would run such a call now."""
    sizes = (cell.input_size, cell.hidden_size, cell.output_size)
    shape = (features.batch, features.time, *sizes)
    layer = (kind_of(cell), dtype == torch.float64, *shape, False, 0.0, 1.0, *NO_ROWS, 0, *NO_ROWS)
    direction = (0,) * 28
    threads, slices, team = core.module.outline(_threaded(choice), layer, (direction,) * directions)
    level = current_level()
    return Outline(level, core.module.vector_bits(level), threads, slices, team)


def differentiable_backward(
    calls: SequenceOf[Sequence],
    x: Tensor,
    tensors: SequenceOf[Tensor],
    wanted: SequenceOf[bool],
    d_results: SequenceOf[Tensor | None],
) -> list[Tensor | None]:
    """`run_backward` by the reference: for gradients of gradients, vmap, and unusual tensors."""

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
