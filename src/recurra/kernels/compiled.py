"""The cpu backend as operators of torch, for torch.compile and torch.export.

    recurra::recurrence           (y, final states); this one is seen in exported programs
    recurra::recurrence_saving    the same, and the slab that backward needs
    recurra::recurrence_backward  the gradients that are wanted

A graph cannot hold the objects that eager calls pass on, so a call is taken apart into tensors and
numbers (`Flat`) and put together again inside the operator, which then runs what eager runs. Where
a gradient is wanted, `recurrence` turns into `recurrence_saving`. The size of the slab depends on
the level of vector instructions: it is fixed there and handed on to backward. An exported program
has no level in it, so it runs on machines with others.

Tracing cannot read lengths, so they are checked when the operator runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from recurra.cells.cell import Cell, Masks, Params, State
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.ind_rnn import IndRNN
from recurra.cells.lem import LEM
from recurra.cells.lstm import LSTM
from recurra.cells.slstm import SLSTM
from recurra.errors import BackendError, ShapeError
from recurra.kernels import core, cpu
from recurra.kernels.layout import (
    Layout,
    run_backward,
    run_forward,
    saved_size,
    time_step,
)
from recurra.kernels.sequence import Sequence, Zoneout, check_within

# By the names that are written into exported programs: (input, hidden, output, bias) to the cell.
CELLS: Mapping[str, Callable[[int, int, int, bool], Cell]] = {
    "elman_tanh": lambda i, h, o, bias: Elman(i, h, bias=bias),
    "elman_relu": lambda i, h, o, bias: Elman(i, h, activation="relu", bias=bias),
    "lstm": lambda i, h, o, bias: LSTM(i, h, bias=bias, proj_size=0 if o == h else o),
    "lstm_peephole": lambda i, h, o, bias: LSTM(
        i, h, bias=bias, proj_size=0 if o == h else o, peephole=True
    ),
    "gru": lambda i, h, o, bias: GRU(i, h, bias=bias),
    "gru_reset_before": lambda i, h, o, bias: GRU(i, h, bias=bias, reset_after=False),
    "ind_rnn_relu": lambda i, h, o, bias: IndRNN(i, h, bias=bias),
    "ind_rnn_tanh": lambda i, h, o, bias: IndRNN(i, h, bias=bias, activation="tanh"),
    "lem": lambda i, h, o, bias: LEM(i, h, bias=bias),
    "slstm_sigmoid": lambda i, h, o, bias: SLSTM(i, h, bias=bias),
    "slstm_exp": lambda i, h, o, bias: SLSTM(i, h, bias=bias, forget_gate="exp"),
}
# Zoneout's share where it was drawn: a tensor of `drawn` has the choices.
DRAWN = -1.0


class Flat(NamedTuple):
    """A call, or the calls of both directions, in the types that an operator takes.

    Call after call, tensors holds parameters and state, and drawn masks and zoneout's choices.
    sizes are (input, hidden, output). There is an entry of reverse and masked for each call and one
    of keeps for each part of its state; started says whether calls begin with a state of their own.
    """

    x: Tensor
    tensors: list[Tensor]
    lengths: Tensor | None
    reset: Tensor | None
    drawn: list[Tensor]
    cell: str
    sizes: list[int]
    bias: bool
    batch_first: bool
    reverse: list[bool]
    started: bool
    masked: list[bool]
    keeps: list[float]
    rebuild: bool
    clip: float
    dt: float

    def make_cell(self) -> Cell:
        input_size, hidden_size, output_size = self.sizes
        cell = CELLS[self.cell](input_size, hidden_size, output_size, self.bias)
        return replace(cell, dt=self.dt) if isinstance(cell, LEM) else cell

    def calls(self) -> list[Sequence]:
        """The calls, put together again.

        Raises: ShapeError for lengths outside 0..time, and for tensors that do not fit, which only
        a graph that was tampered with can have.
        """
        cell, dtype = self.make_cell(), self._dtype
        first, second, _ = self.x.shape
        batch, time = (first, second) if self.batch_first else (second, first)
        _fit("x", self.x, (first, second, cell.input_size), dtype)
        if len(self.reverse) not in (1, 2):
            raise ShapeError(
                f"recurra::recurrence: reverse has {len(self.reverse)} entries, but must have 1 or "
                "2, one for each direction. Export the layer again, and do not edit the graph."
            )
        lengths = self.lengths
        checked = None
        if lengths is not None:
            _fit("lengths", lengths, (batch,), torch.int64)
            checked = check_within(lengths, time, cell.name)
        if self.reset is not None:
            _fit("reset", self.reset, (batch, time), torch.bool)
        tensors, drawn, keeps = iter(self.tensors), iter(self.drawn), iter(self.keeps)
        calls = []
        for reverse, masked in zip(self.reverse, self.masked, strict=True):
            params, state = self._take_tensors(cell, tensors)
            masks, zoneout = self._take_drawn(cell, drawn, keeps, masked)
            calls.append(
                Sequence(
                    cell,
                    self.x,
                    params,
                    state,
                    self.batch_first,
                    checked,
                    self.reset,
                    reverse,
                    masks,
                    zoneout,
                    self.clip or None,
                    "gates" if self.rebuild else None,
                )
            )
        return calls

    @property
    def _dtype(self) -> torch.dtype:
        return self.x.dtype if self.x.dtype in cpu.DTYPES else torch.float32

    @property
    def _batch(self) -> int:
        return self.x.shape[0 if self.batch_first else 1]

    def _take_tensors(self, cell: Cell, tensors: Iterator[Tensor]) -> tuple[Params, State | None]:
        """The next call's parameters, and the state that it starts from."""
        params = {
            name: _fit(name, next(tensors), shape, self._dtype)
            for name, shape in cell.parameter_shapes().items()
        }
        if not self.started:
            return params, None
        parts = (
            _fit(name, next(tensors), (self._batch, size), self._dtype)
            for name, size in cell.state_sizes().items()
        )
        return params, cell.make_state(*parts)

    def _take_drawn(
        self, cell: Cell, drawn: Iterator[Tensor], keeps: Iterator[float], masked: bool
    ) -> tuple[Masks | None, Zoneout]:
        """What is drawn for the next call: its mask of h, and for each part what zoneout keeps."""
        first, second, _ = self.x.shape
        masks = None
        if masked:
            mask = next(drawn)
            per_step = (first, second) if mask.dim() == 3 else (self._batch,)
            masks = Masks(_fit("mask", mask, (*per_step, cell.output_size), self._dtype))
        keep: list[Tensor | float] = []
        for size in cell.state_sizes().values():
            share = next(keeps)
            if share == DRAWN:
                keep.append(_fit("zoneout", next(drawn), (first, second, size), self._dtype))
            else:
                keep.append(share)
        return masks, Zoneout(tuple(keep))

    def result_sizes(self) -> list[tuple[int, ...]]:
        """Shapes of y and of each part of each call's final state."""
        cell, count = self.make_cell(), len(self.reverse)
        first, second, _ = self.x.shape
        batch = first if self.batch_first else second
        ends = [(batch, size) for size in cell.state_sizes().values()]
        return [(first, second, count * cell.output_size), *(count * ends)]

    def slab_size(self, level: str) -> tuple[int, int]:
        """Shape of what forward saves at this level of instructions."""
        first, second, _ = self.x.shape
        zoned = self.keeps[0] != 0
        size = saved_size(self.make_cell(), self.x.dtype, zoned, self.rebuild, level)
        return len(self.reverse), first * second * size


def _fit(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The tensor. Raises: ShapeError when its shape or dtype would send the core astray."""
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ShapeError(
            f"recurra::recurrence: {name} is {tensor.dtype} {tuple(tensor.shape)}, but must be "
            f"{dtype} {shape}. Export the layer again, and do not edit the graph."
        )
    return tensor


def flatten(calls: SequenceOf[Sequence]) -> Flat:
    """Alike calls over the same x, taken apart."""
    first = calls[0]
    cell = first.cell
    tensors = [t for call in calls for t in (*call.params.values(), *(call.state or ()))]
    drawn: list[Tensor] = []
    keeps: list[float] = []
    for call in calls:
        if call.masks is not None and call.masks.h is not None:
            drawn.append(call.masks.h)
        for keep in call.zoneout.keep if call.zoneout else (0.0,) * len(cell.state_sizes()):
            if isinstance(keep, Tensor):
                drawn.append(keep)
                keep = DRAWN
            keeps.append(keep)
    return Flat(
        first.x,
        tensors,
        None if first.lengths is None else first.lengths.values,
        first.reset,
        drawn,
        _name_of(cell),
        [cell.input_size, cell.hidden_size, cell.output_size],
        "bias_ih" in first.params,
        first.batch_first,
        [call.reverse for call in calls],
        first.state is not None,
        [call.masks is not None and call.masks.h is not None for call in calls],
        keeps,
        first.recompute == "gates",
        first.clip_state_grad or 0.0,
        time_step(cell),
    )


def _name_of(cell: Cell) -> str:
    """The key of CELLS."""
    if isinstance(cell, LSTM):
        return "lstm_peephole" if cell.peephole else "lstm"
    if isinstance(cell, GRU):
        return "gru" if cell.reset_after else "gru_reset_before"
    if isinstance(cell, IndRNN):
        return f"ind_rnn_{cell.activation}"
    if isinstance(cell, LEM):
        return "lem"
    if isinstance(cell, SLSTM):
        return f"slstm_{cell.forget_gate}"
    assert isinstance(cell, Elman)
    return f"elman_{cell.activation}"


def run_together(calls: SequenceOf[Sequence]) -> tuple[Tensor, list[State]]:
    """`cpu.run_together` for alike calls in a dtype of the core, as one node of the graph."""
    output, *parts = torch.ops.recurra.recurrence(*flatten(calls))
    count = len(parts) // len(calls)
    make = calls[0].cell.make_state
    return output, [make(*parts[n * count : (n + 1) * count]) for n in range(len(calls))]


def _layout(flat: Flat, level: str) -> Layout:
    choice = cpu._threaded(cpu.choice)._replace(level=level or cpu.choice.level)
    return Layout(flat.calls(), flat.x, flat.tensors, choice)


def _recurrence(*args: Any) -> list[Tensor]:
    return list(run_forward(_layout(Flat(*args), ""))[0])


def _recurrence_saving(*args: Any) -> list[Tensor]:
    *rest, level = args
    results, saved = run_forward(_layout(Flat(*rest), level), save=True)
    assert saved is not None
    return [*results, saved]


def _recurrence_backward(
    y: Tensor,
    saved: Tensor,
    d_results: list[Tensor | None],
    wanted: list[bool],
    *args: Any,
) -> list[Tensor]:
    *rest, level = args
    flat = Flat(*rest)
    layout = _layout(flat, level)
    sizes = flat.result_sizes()
    for d, size in zip(d_results, sizes, strict=True):
        if d is not None:
            _fit("d_results", d, size, y.dtype)
    _fit("y", y, sizes[0], flat.x.dtype)
    _fit("saved", saved, flat.slab_size(level), flat.x.dtype)
    found = run_backward(layout, y, saved, wanted, d_results)
    return [d for d in found if d is not None]


def _fake_recurrence(*args: Any) -> list[Tensor]:
    flat = Flat(*args)
    return [flat.x.new_empty(size) for size in flat.result_sizes()]


def _fake_recurrence_saving(*args: Any) -> list[Tensor]:
    *rest, level = args
    flat = Flat(*rest)
    return [*_fake_recurrence(*rest), flat.x.new_empty(flat.slab_size(level))]


def _fake_recurrence_backward(
    y: Tensor, saved: Tensor, d_results: list[Tensor | None], wanted: list[bool], *args: Any
) -> list[Tensor]:
    flat = Flat(*args[:-1])
    d_x = [flat.x.new_empty(flat.x.shape)] if wanted[0] else []
    tensors = zip(flat.tensors, wanted[1:], strict=True)
    return [*d_x, *(torch.empty_like(t.contiguous()) for t, want in tensors if want)]


def _choose(keyset: Any, *args: Any) -> list[Tensor]:
    """`recurrence` where gradients may be wanted: with the slab if they are."""
    if core.is_transformed():
        _refuse()
    flat = Flat(*args)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (flat.x, *flat.tensors)):
        results: list[Tensor] = torch.ops.recurra.recurrence_saving(*args, cpu.current_level())
        return results[:-1]
    with torch._C._AutoDispatchBelowAutograd():
        below = keyset & torch._C._after_autograd_keyset
        plain: list[Tensor] = torch.ops.recurra.recurrence.default.redispatch(below, *args)
        return plain


def _refuse(*args: Any) -> NoReturn:
    raise BackendError(
        "recurra::recurrence: an exported program does not work inside torch.func transforms. Call "
        "the layer itself there, or export it with backend='reference'."
    )


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *rest, level = inputs
    flat = Flat(*rest)
    ctx.count = len(flat.tensors)
    ctx.save_for_backward(
        output[0], output[-1], flat.x, flat.lengths, flat.reset, *flat.tensors, *flat.drawn
    )
    ctx.options = (*flat[5:], level)
    ctx.mark_non_differentiable(output[-1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, d_results: list[Tensor | None]) -> tuple[Any, ...]:
    y, saved, x, lengths, reset, *rest = ctx.saved_tensors
    tensors, drawn = rest[: ctx.count], rest[ctx.count :]
    args = (x, tensors, lengths, reset, drawn, *ctx.options)
    wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    d_results = d_results[:-1]  # none arrives at the slab
    if torch.is_grad_enabled() or core.is_transformed():
        calls = Flat(*args[:-1]).calls()
        all_d = cpu.differentiable_backward(calls, x, tensors, wanted, d_results)
    else:
        found = iter(torch.ops.recurra.recurrence_backward(y, saved, d_results, wanted, *args))
        all_d = [next(found) if want else None for want in wanted]
    # In the structure of the arguments: a list for a list, however short.
    nothing = [None] * len(drawn)
    return (all_d[0], all_d[1:], None, None, nothing, *(None for _ in ctx.options))


CALL = (
    "Tensor x, Tensor[] tensors, Tensor? lengths, Tensor? reset, Tensor[] drawn, str cell, "
    "int[] sizes, bool bias, bool batch_first, bool[] reverse, bool started, bool[] masked, "
    "float[] keeps, bool rebuild, float clip, float dt"
)
SLAB = "Tensor y, Tensor saved, Tensor?[] d_results, bool[] wanted"

library: Any = torch.library.Library("recurra", "DEF")  # type: ignore[no-untyped-call]
library.define(f"recurrence({CALL}) -> Tensor[]")
library.define(f"recurrence_saving({CALL}, str level) -> Tensor[]")
library.define(f"recurrence_backward({SLAB}, {CALL}, str level) -> Tensor[]")
library.impl("recurrence", _recurrence, "CPU")
library.impl("recurrence", _choose, "Autograd", with_keyset=True)
library.impl("recurrence", _refuse, "FuncTorchBatched")
library.impl("recurrence_saving", _recurrence_saving, "CPU")
library.impl("recurrence_backward", _recurrence_backward, "CPU")
for name, fake in (
    ("recurrence", _fake_recurrence),
    ("recurrence_saving", _fake_recurrence_saving),
    ("recurrence_backward", _fake_recurrence_backward),
):
    torch.library.register_fake(f"recurra::{name}", fake, lib=library)
torch.library.register_autograd(
    "recurra::recurrence_saving", _differentiate, setup_context=_set_up, lib=library
)
