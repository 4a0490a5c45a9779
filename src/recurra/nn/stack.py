"""Layers one after another as one model, with the state of all of them, that streams as a whole."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from recurra.errors import ArgumentError, ConfigError, ShapeError
from recurra.kernels.linear import FixedLinear, linear
from recurra.kernels.pointwise import pointwise
from recurra.nn.linear import Linear
from recurra.nn.recurrent import Recurrent
from recurra.nn.stream import Stream

POINTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.Tanh,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.Softplus,
)
"""Modules that are a function of each number by itself."""
PLAIN: tuple[type[nn.Module], ...] = (nn.Identity, nn.Dropout, nn.LayerNorm)
"""Further modules that treat each step, and each row, by itself."""
LINEAR: tuple[type[nn.Module], ...] = (nn.Linear, Linear)


class Stack(nn.Module):
    """Recurrent layers and the layers between and after them, one after another.

    x -> layer 1 -> layer 2 -> ... -> y; beside recurra's recurrent layers it takes modules that
    treat each step by itself: Linear, LayerNorm, Dropout, Identity and the activations in
    `POINTWISE`. The state is a tuple with one entry for each recurrent layer, each as that layer
    returns it; None is the initial state.

    In inference on a CPU the bits of a row depend on that row alone, as in the recurrent layers:
    linear layers are one sum in ascending order, and activations see no borders of vectors.

    Shapes: x (B, T, input_size), y (B, T, output_size); (T, B, ...) when the layers have
    batch_first=False. Without a batch axis, no B.
    Raises: ConfigError for a module that cannot be told to treat each step by itself, for layers
    that disagree on batch_first, and for a stack without recurrent layer.

    >>> from recurra import nn
    >>> model = nn.Stack(nn.GRU(3, 8, num_layers=2, batch_first=True), nn.Linear(8, 2))
    >>> y, state = model(torch.zeros(4, 7, 3))
    >>> y.shape, len(state)
    (torch.Size([4, 7, 2]), 1)
    >>> model.stream(batch_size=4).push(torch.zeros(4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        for number, layer in enumerate(layers):
            _check_layer(number, layer)
        self.layers = nn.ModuleList(layers)
        orders = {layer.batch_first for layer in self.recurrent}
        if len(orders) != 1:
            found = "no recurrent layer" if not orders else "layers with batch_first True and False"
            raise ConfigError(
                f"Stack: it holds {found}; expected one or more recurrent layers of recurra.nn "
                "that agree on batch_first."
            )
        self.batch_first = orders.pop()

    @property
    def recurrent(self) -> list[Recurrent]:
        """The recurrent layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, Recurrent)]

    @property
    def input_size(self) -> int:
        """Features of x: of the first layer that says them; the others keep their number."""
        sized = (one for one in self.layers if isinstance(one, nn.Linear | Recurrent))
        first = next(sized)
        return first.in_features if isinstance(first, nn.Linear) else first.input_size

    def forward(
        self,
        input: Tensor,
        state: Sequence[Any] | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """(y, final state) of x, which is called input as in torch; lengths and reset as in layers.

        Raises: ShapeError when the state has not one entry for each recurrent layer, or x or an
        entry does not fit its layer.
        """
        starts = iter(check_state("Stack", state, len(self.recurrent)))
        x, finals = input, []
        for layer in self.layers:
            if isinstance(layer, Recurrent):
                x, final = layer(x, next(starts), lengths=lengths, reset=reset)
                finals.append(final)
            else:
                x = _apply(layer, x)
        return x, tuple(finals)

    def stream(
        self, batch_size: int | None = 1, *, weights: str = "float32", threads: int = 0
    ) -> StackStream:
        """A handle that steps batch_size streams through the whole stack, see `StackStream`.

        weights and threads are those of `Recurrent.stream`; dropout is off.
        Raises: ConfigError for a bidirectional layer, whose second half would have to read the
        future.
        """
        for number, layer in enumerate(self.layers):
            if isinstance(layer, Recurrent) and layer.bidirectional:
                raise ConfigError(
                    f"Stack: layer {number}, {type(layer).__name__}, is bidirectional and cannot "
                    "stream: its reverse direction starts at the end of the sequence. Make it with "
                    "bidirectional=False."
                )
        return StackStream(self, batch_size, weights, threads)


class StackStream:
    """A stack and the state of all its layers, made by `stack.stream(batch_size)`.

    The same contract as `Stream`: outputs have the bits of the stack over the same steps, whatever
    the other rows, the pieces, and the number of threads, where `backend` is "cpu"; the state is a
    tuple with one entry for each recurrent layer. A push into `out` allocates nothing as long as
    what follows the recurrent layers is linear.
    """

    def __init__(self, stack: Stack, batch_size: int | None, weights: str, threads: int) -> None:
        self.batch_size = batch_size
        self.batch_first = stack.batch_first
        self.weights = weights
        self._steps: list[_Step] = []
        rows = () if batch_size is None else (batch_size,)
        with torch.inference_mode(False), torch.no_grad():
            for layer in stack.layers:
                if isinstance(layer, Recurrent):
                    stream = layer.stream(batch_size, weights=weights, threads=threads)
                    self._steps.append(_RecurrentStep(stream))
                elif isinstance(layer, LINEAR):
                    self._steps.append(_LinearStep(layer, rows))
                else:
                    self._steps.append(_PlainStep(layer))
        self.streams = [step.stream for step in self._steps if isinstance(step, _RecurrentStep)]
        """The stream of each recurrent layer."""
        first = self.streams[0]
        self.dtype, self.device = first.dtype, first.device
        self.backend = "cpu" if all(s.backend == "cpu" for s in self.streams) else "reference"

    @torch.no_grad()
    def push(self, x_t: Tensor, out: Tensor | None = None) -> Tensor:
        """The output of one step, (B, output_size); into `out` when given.

        Raises: ShapeError when x_t or out has another shape, dtype or device.
        """
        last = len(self._steps) - 1
        for number, step in enumerate(self._steps):
            x_t = step.push(x_t, out if number == last else step.room)
        return x_t

    @torch.no_grad()
    def push_chunk(self, x: Tensor) -> Tensor:
        """The outputs of several steps: what `push` gives for each. Raises: as `push`."""
        for step in self._steps:
            x = step.push_chunk(x)
        return x

    def reset(self, rows: Tensor | Sequence[int] | None = None) -> None:
        """Put all rows, or those given, back to the initial state."""
        for stream in self.streams:
            stream.reset(rows)

    @property
    def state(self) -> tuple[Any, ...]:
        """A copy of the state as the stack returns it."""
        return tuple(stream.state for stream in self.streams)

    def restore(self, state: Sequence[Any] | None) -> None:
        """Go on from a state that `state`, or the stack, handed out; None is the initial state.

        Raises: ShapeError when it does not fit; the state is then as it was.
        """
        starts = check_state("Stack stream", state, len(self.streams))
        before = self.state
        try:
            for stream, start in zip(self.streams, starts, strict=True):
                stream.restore(start)
        except ShapeError:
            for stream, start in zip(self.streams, before, strict=True):
                stream.restore(start)
            raise

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ArgumentError(
            "Stack stream: a stream is neither copied nor pickled; its weights lie packed for this "
            "machine. Make another, stack.stream(batch_size), and let it restore(stream.state)."
        )

    def __repr__(self) -> str:
        rows = "" if self.batch_size is None else f"batch_size={self.batch_size}, "
        return f"StackStream({rows}weights={self.weights!r}, backend={self.backend!r})"


class _Step(Protocol):
    """One layer of a streamed stack. `room` is where its output goes when another follows."""

    @property
    def room(self) -> Tensor | None: ...

    def push(self, x: Tensor, out: Tensor | None) -> Tensor: ...

    def push_chunk(self, x: Tensor) -> Tensor: ...


class _RecurrentStep:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.room: Tensor = stream.empty_output()

    def push(self, x: Tensor, out: Tensor | None) -> Tensor:
        return self.stream.push(x, out)

    def push_chunk(self, x: Tensor) -> Tensor:
        return self.stream.push_chunk(x)


class _LinearStep:
    def __init__(self, layer: nn.Module, rows: tuple[int, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        self._shape = (*rows, layer.in_features), (*rows, layer.out_features)
        self._run = FixedLinear(layer.weight, layer.bias)
        self.room: Tensor = layer.weight.new_empty(self._shape[1])

    def push(self, x: Tensor, out: Tensor | None) -> Tensor:
        wanted, made = self._shape
        like = self.room
        if x.shape != wanted or x.dtype is not like.dtype or x.device != like.device:
            raise ShapeError(
                f"Stack stream: x has shape {tuple(x.shape)} and dtype {x.dtype} on {x.device}, "
                f"but its linear layer needs {wanted} and {like.dtype} on {like.device}."
            )
        x = x if x.is_contiguous() else x.contiguous()
        if out is None:
            out = x.new_empty(made)
        elif out.shape != made or out.dtype is not x.dtype or not out.is_contiguous():
            raise ShapeError(
                f"Stack stream: out has shape {tuple(out.shape)} and dtype {out.dtype}, but must "
                f"be contiguous with shape {made} and dtype {x.dtype}."
            )
        return self._run(x, out)

    def push_chunk(self, x: Tensor) -> Tensor:
        return self._run(x.contiguous(), x.new_empty(*x.shape[:-1], self._shape[1][-1]))


class _PlainStep:
    room = None

    def __init__(self, layer: nn.Module) -> None:
        self._layer = copy.deepcopy(layer).eval()

    def push(self, x: Tensor, out: Tensor | None) -> Tensor:
        y = _apply(self._layer, x)
        return y if out is None else out.copy_(y)

    def push_chunk(self, x: Tensor) -> Tensor:
        return _apply(self._layer, x)


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    """The output of a layer that has no state, for any number of rows and steps."""
    if isinstance(layer, POINTWISE):
        return pointwise(layer, x)
    if isinstance(layer, nn.Linear) and x.shape[-1:] == (layer.in_features,):
        return linear(x, layer.weight, layer.bias)
    y: Tensor = layer(x)
    return y


def check_state(who: str, state: Sequence[Any] | None, layers: int) -> Sequence[Any]:
    """One entry for each recurrent layer, None where all begin. Raises: ShapeError."""
    if state is None:
        return (None,) * layers
    if not isinstance(state, tuple | list) or len(state) != layers:
        size = f" of {len(state)}" if isinstance(state, tuple | list) else ""
        raise ShapeError(
            f"{who}: the state is a {type(state).__name__}{size}, but must be a tuple of {layers}, "
            "one entry for each recurrent layer. Pass what an earlier call returned, or None."
        )
    return state


def _check_layer(number: int, layer: Any) -> None:
    if isinstance(layer, Recurrent) or type(layer) in (*LINEAR, *POINTWISE, *PLAIN):
        return
    if isinstance(layer, nn.RNNBase):
        raise ConfigError(
            f"Stack: layer {number} is torch.nn's {type(layer).__name__}, whose state cannot be "
            "stepped. Use recurra.nn's, or recurra.accelerate."
        )
    known: list[type[nn.Module]] = [nn.Linear, *PLAIN, *POINTWISE]
    names = ", ".join(kind.__name__ for kind in known)
    raise ConfigError(
        f"Stack: layer {number} is a {type(layer).__name__}; expected a recurrent layer of "
        f"recurra.nn or a module that treats each step by itself: {names}."
    )
