"""A layer that steps through an endless stream: constant memory, one cheap call for each step."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any, NoReturn

import torch
from torch import Tensor

from recurra.cells.cell import Cell, Params, State
from recurra.errors import ArgumentError, BackendError, ConfigError, ShapeError, unknown
from recurra.kernels import dispatch
from recurra.kernels.sequence import Sequence, Zoneout
from recurra.kernels.stream import WEIGHTS, CoreStream, why_not
from recurra.nn.states import Layout


class Stream:
    """A stack of recurrent layers and its state, made by `layer.stream(batch_size)`.

    Its parameters are those that the layer had when it was made; dropout is off, and zoneout takes
    its expectation. Every row is a stream of its own: its outputs are bit for bit those of the
    layer over the same steps, whatever the other rows, the pieces it came in, and the number of
    threads (on the `cpu` backend; cells that the core does not have, layer_norm and residual stacks
    run by the reference, see `backend`). No gradient is recorded. Threads that push into one stream
    at the same time wait for each other; `state`, `reset` and `restore` do not.

    Streams are neither copied nor pickled: make a second one, `layer.stream(batch_size)`, and let
    it `restore(stream.state)`.

    Shapes: x_t (batch_size, input_size) and outputs (batch_size, output_size); chunks in the
    layer's layout. batch_size None: no batch axis anywhere.

    >>> from recurra import nn
    >>> layer = nn.GRU(3, 5)
    >>> stream = layer.stream(2)
    >>> stream.push(torch.zeros(2, 3)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        who: str,
        cells: SequenceOf[Cell],
        params: SequenceOf[Params],
        layout: Layout,
        batch_size: int | None,
        batch_first: bool,
        keep: SequenceOf[tuple[float, ...]],
        backend: str,
        weights: str,
        threads: int,
        residual: SequenceOf[bool],
    ) -> None:
        _check_numbers(who, batch_size, weights, threads)
        like = next(iter(params[0].values()))
        self.batch_size = batch_size
        self.batch_first = batch_first
        self.weights = weights
        self.dtype = like.dtype
        self.device = like.device
        self._who = who
        self._layout = layout
        self._make_state = [cell.make_state for cell in cells]
        rows = 1 if batch_size is None else batch_size
        sizes = cells[0].input_size, cells[-1].output_size
        self._x_shape = sizes[:1] if batch_size is None else (rows, sizes[0])
        self._y_shape = sizes[1:] if batch_size is None else (rows, sizes[1])
        self.backend = _choose(who, backend, cells, params, weights, any(residual))
        # A stream made in inference mode must be of use outside of it.
        with torch.inference_mode(False), torch.no_grad():
            self._engine: CoreStream | _Stepper
            if self.backend == "cpu":
                self._engine = CoreStream(cells, params, rows, weights, threads, keep)
            else:
                self._engine = _Stepper(cells, params, rows, keep, residual)
            self._starts = [
                [part.detach().clone() for part in cell.initial_state(1, own)]
                for cell, own in zip(cells, params, strict=True)
            ]
        self.reset()
        self._push = self._engine.push
        self._is_cpu = like.is_cpu
        self._like = like.detach()

    def push(self, x_t: Tensor, out: Tensor | None = None) -> Tensor:
        """The output of one step; into `out` when given, and then nothing is allocated.

        Raises: ShapeError when x_t or out has another shape, dtype, device or a strided last axis.
        """
        # One look at each property, because a step may be shorter than a microsecond.
        if (
            not isinstance(x_t, Tensor)
            or x_t.shape != self._x_shape
            or x_t.dtype is not self.dtype
            or x_t.is_cpu is not self._is_cpu
            or not x_t.is_contiguous()
        ):
            x_t = self._checked("x_t", x_t, self._x_shape).contiguous()
        out_given = out is not None
        if out is None:
            out = self._like.new_empty(self._y_shape)
        elif (
            not isinstance(out, Tensor)
            or out.shape != self._y_shape
            or out.dtype is not self.dtype
            or out.is_cpu is not self._is_cpu
            or not out.is_contiguous()
        ):
            self._check_out(out)
        if out_given and _overlap(x_t, out):
            x_t = x_t.clone()  # the first outputs would be read as inputs of the last ones
        self._push(x_t, out)
        if out_given and not out.is_inference():
            torch.autograd.graph.increment_version(out)
        return out

    def push_chunk(self, x: Tensor) -> Tensor:
        """The outputs of several steps, (B, T, O) in the layout of x: what `push` gives for each.

        Raises: ShapeError when x does not fit.
        """
        axes = 2 if self.batch_size is None else 3
        if not isinstance(x, Tensor) or x.dim() != axes:
            raise ShapeError(
                f"{self._who} stream: x is {_described(x)}, but a chunk must have {axes} axes, "
                f"{self._chunk_shape('time')}. For one step use push()."
            )
        time_axis = 0 if self.batch_size is None or not self.batch_first else 1
        time = x.shape[time_axis]
        x = self._checked("x", x, self._chunk_shape(time))
        x = x if x.stride(-1) == 1 else x.contiguous()
        y = x.new_empty(*x.shape[:-1], self._y_shape[-1])
        if self.batch_size is None:
            self._engine.push_chunk(x.unsqueeze(0), y.unsqueeze(0))
        elif self.batch_first:
            self._engine.push_chunk(x, y)
        else:
            self._engine.push_chunk(x.transpose(0, 1), y.transpose(0, 1))
        return y

    def reset(self, rows: Tensor | SequenceOf[int] | None = None) -> None:
        """Put all rows, or those given (indices, or a bool per row), back to the initial state.

        Raises: ShapeError for rows that do not exist.
        """
        chosen = slice(None) if rows is None else self._rows(rows)
        with torch.no_grad():
            for parts, starts in zip(self._engine.state, self._starts, strict=True):
                for part, start in zip(parts, starts, strict=True):
                    part[chosen] = start

    @property
    def state(self) -> Any:
        """A copy of the state as the layer returns it, for `restore` and `layer(x, state)`."""
        finals = [
            make(*(part.clone() for part in parts))
            for make, parts in zip(self._make_state, self._engine.state, strict=True)
        ]
        return self._layout.join(finals, self.batch_size is not None)

    def restore(self, state: Any) -> None:
        """Go on from a state that `state`, or the layer, handed out; None is the initial state.

        Raises: ShapeError when it does not fit.
        """
        if state is None:
            return self.reset()
        starts = self._layout.split(state, self.batch_size, self.dtype, self.device, self._who)
        assert starts is not None
        with torch.no_grad():
            for parts, start in zip(self._engine.state, starts, strict=True):
                for part, value in zip(parts, start, strict=True):
                    part.copy_(value)
        return None

    @property
    def parts(self) -> list[list[Tensor]]:
        """The state itself and not a copy: of each layer its parts (B, size), as pushes find them.

        For code that puts many streams through one handle: written before a push, read after it.
        """
        return [list(parts) for parts in self._engine.state]

    @property
    def starts(self) -> list[list[Tensor]]:
        """The initial state of one row, arranged as `parts`; (1, size) each."""
        return [[part.clone() for part in parts] for parts in self._starts]

    def empty_output(self) -> Tensor:
        """A tensor that `push` may write into."""
        return self._like.new_empty(self._y_shape)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ArgumentError(
            f"{self._who} stream: a stream is neither copied nor pickled; its weights lie packed "
            "for this machine. Make another, layer.stream(batch_size), and let it "
            "restore(stream.state); to keep it, save layer.state_dict() and stream.state."
        )

    def __repr__(self) -> str:
        rows = "" if self.batch_size is None else f"batch_size={self.batch_size}, "
        return f"Stream({self._who}, {rows}weights={self.weights!r}, backend={self.backend!r})"

    def _chunk_shape(self, time: Any) -> tuple[Any, ...]:
        if self.batch_size is None:
            return (time, *self._x_shape)
        first = (self.batch_size, time) if self.batch_first else (time, self.batch_size)
        return (*first, self._x_shape[-1])

    def _checked(self, name: str, x: Any, shape: tuple[int, ...]) -> Tensor:
        if not isinstance(x, Tensor) or tuple(x.shape) != tuple(shape):
            raise ShapeError(
                f"{self._who} stream: {name} is {_described(x)}, but must have shape "
                f"{tuple(shape)}. A stream's batch is fixed when it is made: "
                "layer.stream(batch_size)."
            )
        if x.dtype is not self.dtype:
            raise ShapeError(
                f"{self._who} stream: {name} has dtype {x.dtype}, but the layer's parameters have "
                f"{self.dtype}. Use {name}.to({self.dtype})."
            )
        if x.device != self.device:
            raise ShapeError(
                f"{self._who} stream: {name} is on {x.device}, but the stream is on {self.device}. "
                f"Use {name}.to({str(self.device)!r})."
            )
        return x

    def _check_out(self, out: Any) -> None:
        if not self._checked("out", out, self._y_shape).is_contiguous():
            raise ShapeError(
                f"{self._who} stream: out has strides {out.stride()}, but must be contiguous, "
                "because it is written in place."
            )

    def _rows(self, rows: Tensor | SequenceOf[int]) -> Tensor:
        count = 1 if self.batch_size is None else self.batch_size
        try:
            chosen = torch.as_tensor(rows, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(
                f"{self._who} stream: rows is {_described(rows)}, but must be indices, or bool of "
                f"shape ({count},), as a tensor or a list."
            ) from error
        if chosen.dtype == torch.bool and tuple(chosen.shape) == (count,):
            return chosen
        if chosen.dtype == torch.bool or chosen.is_floating_point() or chosen.dim() != 1:
            raise ShapeError(
                f"{self._who} stream: rows is {_described(chosen)}, but must be indices, or bool "
                f"of shape ({count},)."
            )
        if chosen.numel() and not (chosen.min() >= 0 and chosen.max() < count):
            raise ShapeError(
                f"{self._who} stream: rows holds {chosen.tolist()}, but this stream has rows 0 to "
                f"{count - 1}."
            )
        return chosen.long()


class _Stepper:
    """The same as CoreStream by the reference backend, for what the core cannot run."""

    def __init__(
        self,
        cells: SequenceOf[Cell],
        params: SequenceOf[Params],
        batch: int,
        keep: SequenceOf[tuple[float, ...]],
        residual: SequenceOf[bool],
    ) -> None:
        self._cells = list(cells)
        self._residual = list(residual)
        self._params = [{name: p.detach().clone() for name, p in own.items()} for own in params]
        self._keep = [Zoneout(parts) if any(parts) else None for parts in keep]
        initial = [
            cell.initial_state(batch, own) for cell, own in zip(cells, self._params, strict=True)
        ]
        self.state: list[list[Tensor]] = [[p.clone() for p in parts] for parts in initial]

    def push(self, x: Tensor, y: Tensor) -> None:
        x, y = (x, y) if x.dim() == 2 else (x.unsqueeze(0), y.unsqueeze(0))
        self.push_chunk(x.unsqueeze(1), y.unsqueeze(1))

    @torch.no_grad()
    def push_chunk(self, x: Tensor, y: Tensor) -> None:
        for n, cell in enumerate(self._cells):
            before: State = cell.make_state(*self.state[n])
            call = Sequence(cell, x, self._params[n], before, zoneout=self._keep[n])
            output, after = dispatch.run(call, "reference")
            x = output + x if self._residual[n] else output
            for part, value in zip(self.state[n], after, strict=True):
                part.copy_(value)
        y.copy_(x)


def _overlap(x: Tensor, y: Tensor) -> bool:
    """Whether two contiguous tensors share memory."""
    first, second = x.data_ptr(), y.data_ptr()
    return first < second + y.nbytes and second < first + x.nbytes


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"a {type(value).__name__}"


def _choose(
    who: str,
    backend: str,
    cells: SequenceOf[Cell],
    params: SequenceOf[Params],
    weights: str,
    residual: bool,
) -> str:
    """ "cpu" or "reference"; the reasons against what was asked for are raised."""
    if backend in ("cudnn", "chunkwise", "scan"):
        raise BackendError(
            f"{who}: backend {backend!r} cannot stream; make the layer with backend='auto'."
        )
    reason = "it has no residual connections" if residual else why_not(cells, params)
    if backend != "reference" and reason is None:
        return "cpu"
    if backend == "cpu" or weights != "float32":
        asked = f"backend {backend!r}" if backend == "cpu" else f"weights={weights!r}"
        why = reason or "the layer was made with backend='reference'"
        raise BackendError(f"{who}: a stream with {asked} needs the compiled core: {why}.")
    return "reference"


def _check_numbers(who: str, batch_size: Any, weights: str, threads: Any) -> None:
    for name, value, least in (("batch_size", batch_size, 1), ("threads", threads, 0)):
        if value is None and name == "batch_size":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(
                f"{who}.stream: {name} is {value!r}, but must be an integer of at least {least}."
            )
    if weights not in WEIGHTS:
        raise ConfigError(unknown("weights", weights, list(WEIGHTS)))
