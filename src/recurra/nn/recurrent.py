"""What RNN, LSTM and GRU share: parameters under torch's names, layers, directions, checks.

A layer holds cells (values) and parameters, and hands each cell's run over time to `kernels`.
Parameters are read by attribute at every call and nothing derived from them is kept, so
parametrizations, pruning, `torch.func.functional_call` and in-place edits are always seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as SequenceOf
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from recurra.cells.cell import Cell, Params, State
from recurra.errors import ConfigError, ShapeError
from recurra.kernels import dispatch, recording
from recurra.kernels.sequence import Lengths, Recompute, Sequence, check_lengths, check_reset
from recurra.nn.arguments import (
    check_dropout,
    check_flags,
    check_limit,
    check_probability,
    check_recompute,
    check_recurrent_dropout,
    check_x,
    check_zoneout,
    is_list,
)
from recurra.nn.dropouts import (
    draw_masks,
    draw_zoneout,
    drop_weights,
    lock_input,
    zoneout_parts,
)
from recurra.nn.initialise import Init
from recurra.nn.options import refuse_keywords
from recurra.nn.packed import pack, unpack
from recurra.nn.states import Layout
from recurra.nn.stream import Stream

# Pairs of a parameter's name in the cell and in the layer.
Names = tuple[tuple[str, str], ...]

# What `repr` leaves out.
USUAL = {
    "proj_size": 0,
    "num_layers": 1,
    "nonlinearity": "tanh",
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "zoneout": 0.0,
    "recurrent_dropout": 0.0,
    "variational_dropout": 0.0,
    "weight_drop": 0.0,
    "residual": False,
    "learn_initial_state": False,
    "clip_state_grad": None,
    "recompute": None,
    "reset_after": True,
    "peephole": False,
    "coupled": False,
    "layer_norm": False,
    "activation": "relu",
    "memory_length": None,
    "dt": 1.0,
    "num_heads": 1,
    "forget_gate": "sigmoid",
    "positive": True,
    "r_min": 0.0,
    "r_max": 1.0,
    "max_phase": 2 * math.pi,
    "backend": dispatch.AUTO,
}


class Recurrent(nn.Module):
    """A stack of recurrent layers of one kind; its keywords are those of `Options`."""

    def __init__(
        self,
        cells: SequenceOf[Cell],
        /,
        *,
        hidden_size: int | SequenceOf[int],
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        backend: str = dispatch.AUTO,
        init: str = "torch",
        forget_bias: float | None = None,
        chrono_length: int | None = None,
        zoneout: float | SequenceOf[float] = 0.0,
        recurrent_dropout: float = 0.0,
        variational_dropout: float = 0.0,
        weight_drop: float = 0.0,
        residual: bool = False,
        learn_initial_state: bool = False,
        clip_state_grad: float | None = None,
        recompute: Recompute = None,
        **unknown: Any,
    ) -> None:
        refuse_keywords(type(self), Recurrent, unknown)
        super().__init__()
        who = type(self).__name__
        check_flags(
            who,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            residual=residual,
            learn_initial_state=learn_initial_state,
        )
        check_dropout(who, dropout, len(cells))
        dispatch.check_name(backend)
        self.input_size = cells[0].input_size
        self.hidden_size = tuple(hidden_size) if is_list(hidden_size) else hidden_size
        self.num_layers = len(cells)
        self.proj_size = 0
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.zoneout = check_zoneout(who, zoneout, list(cells[0].state_sizes()))
        self.recurrent_dropout = check_recurrent_dropout(who, recurrent_dropout, cells[0])
        self.variational_dropout = check_probability(
            who, "variational_dropout", variational_dropout
        )
        self.weight_drop = check_probability(who, "weight_drop", weight_drop)
        self.residual = residual
        self.learn_initial_state = learn_initial_state
        self.clip_state_grad = check_limit(who, "clip_state_grad", clip_state_grad)
        self.recompute = check_recompute(who, recompute)
        self.backend = backend
        self.init = Init(init, forget_bias, chrono_length)
        self.cells = tuple(cells)
        self._layout = Layout(self.cells, 2 if bidirectional else 1, is_list(hidden_size))
        # For each layer and direction, what the cell calls a parameter and what the layer does.
        suffixes = ("", "_reverse") if bidirectional else ("",)
        self._names = tuple(
            tuple(
                tuple((name, f"{name}_l{layer}{suffix}") for name in self._shapes(cell))
                for suffix in suffixes
            )
            for layer, cell in enumerate(self.cells)
        )
        for cell, directions in zip(self.cells, self._names, strict=True):
            shapes = self._shapes(cell)
            for name, full in chain.from_iterable(directions):
                empty = torch.empty(shapes[name], device=device, dtype=dtype)
                self.register_parameter(full, nn.Parameter(empty))
        self.init.check(self.cells[0], who)
        self._check_options(who)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters afresh, as `init` says, from torch's global generator."""
        with torch.no_grad():
            for cell, directions in zip(self.cells, self._names, strict=True):
                for names in directions:
                    params = dict(self._params(names))
                    for name in self._start_shapes(cell):
                        params.pop(name).zero_()
                    self.init.fill(cell, params)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """(output, final state) of x, which torch calls input; hx None is the initial state."""
        return self._run(input, hx, lengths, reset)

    def flatten_parameters(self) -> None:
        """Do nothing; kept so that code written for torch.nn runs unchanged."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction, as torch.nn lists them."""
        return [
            list(self._params(names).values()) for directions in self._names for names in directions
        ]

    @property
    def _all_weights(self) -> list[list[str]]:
        """The names in `all_weights`. This and the two below are what code for torch.nn reads."""
        return [[full for _, full in names] for directions in self._names for names in directions]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [full for names in self._all_weights for full in names]

    @property
    def _flat_weights(self) -> list[Tensor]:
        return [self._read(full) for full in self._flat_weights_names]

    def stream(
        self, batch_size: int | None = 1, *, weights: str = "float32", threads: int = 0
    ) -> Stream:
        """A handle that steps batch_size streams through this layer, see `recurra.nn.Stream`.

        The parameters are copied now. weights="bfloat16" or "int8" (one scale for each output of a
        product) stores them in half or a quarter of the memory, which is faster where that memory
        is what a step waits for: measure it, see docs/streams.md. batch_size None: inputs have no
        batch axis. threads 0 lets the sizes decide; the bits are the same with any number.
        Raises: ConfigError for a bidirectional layer, whose backward half would have to read the
        future, and for settings that do not exist; BackendError when weights are asked for that
        only the compiled core has, and it cannot run.
        """
        who = type(self).__name__
        if self.bidirectional:
            raise ConfigError(
                f"{who}: a bidirectional layer cannot stream: its reverse direction starts at the "
                "end of the sequence. Make it with bidirectional=False."
            )
        parts = [
            zoneout_parts(self.zoneout, cell) if self.zoneout else (0.0,) * len(cell.state_sizes())
            for cell in self.cells
        ]
        return Stream(
            who,
            self.cells,
            [self._params(directions[0]) for directions in self._names],
            self._layout,
            batch_size,
            self.batch_first,
            parts,
            self.backend,
            weights,
            threads,
            [self._is_residual(cell) for cell in self.cells],
        )

    def extra_repr(self) -> str:
        listed = isinstance(self.hidden_size, tuple)
        shown = [str(self.input_size), str(self.hidden_size)]
        usual = {**USUAL, "num_layers": self.num_layers if listed else 1}
        for name, value in usual.items():
            actual = getattr(self, name, value)
            if actual != value:
                shown.append(f"{name}={actual!r}")
        return ", ".join(shown)

    def _shapes(self, cell: Cell) -> dict[str, tuple[int, ...]]:
        return cell.parameter_shapes() | self._start_shapes(cell)

    def _start_shapes(self, cell: Cell) -> dict[str, tuple[int, ...]]:
        """The learned initial state of one layer and direction, under the cell's names."""
        if not self.learn_initial_state:
            return {}
        return {f"{part}_0": (size,) for part, size in cell.state_sizes().items()}

    def _check_options(self, who: str) -> None:
        """Raise ConfigError for an option that would do nothing."""
        cell = self.cells[0]
        if self.weight_drop and not cell.recurrent_weights:
            raise ConfigError(
                f"{who}: weight_drop={self.weight_drop} drops entries of recurrent matrices, and "
                f"{cell.name} has none. Leave it out."
            )
        if self.learn_initial_state and not cell.can_learn_start:
            raise ConfigError(
                f"{who}: learn_initial_state=True would let training reach states that {cell.name} "
                "cannot be in, such as a negative normaliser. Leave it out."
            )
        if self.residual and not any(map(self._is_residual, self.cells)):
            sizes = [(cell.input_size, self._width(cell)) for cell in self.cells]
            raise ConfigError(
                f"{who}: residual=True adds a layer's input to its output, but no layer has them "
                f"of one size: (inputs, outputs) are {sizes}. Choose equal sizes, or leave it out."
            )

    def _width(self, cell: Cell) -> int:
        """Features of a layer's output, both directions together."""
        return cell.output_size * (2 if self.bidirectional else 1)

    def _is_residual(self, cell: Cell) -> bool:
        return self.residual and cell.input_size == self._width(cell)

    def _params(self, names: Names) -> Params:
        held = self._parameters
        try:
            return {name: held[full] for name, full in names}  # type: ignore[misc]
        except KeyError:
            return {name: self._read(full) for name, full in names}

    def _read(self, full: str) -> Tensor:
        """A parameter as it is now; the plain case is looked up without nn.Module's detours."""
        value = self._parameters.get(full)
        return getattr(self, full) if value is None else value

    def _run(
        self, x: Tensor | PackedSequence, hx: Any, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor | PackedSequence, Any]:
        """`forward` for every kind of x."""
        if not isinstance(x, PackedSequence):
            return self._run_tensor(x, hx, lengths, reset)
        if lengths is not None:
            raise ShapeError(
                f"{type(self).__name__}: x is a PackedSequence, which has lengths of its own, and "
                "lengths= is given too. Pass the padded tensor with lengths=, or the "
                "PackedSequence alone."
            )
        padded, lengths = unpack(x, self.batch_first)
        output, final = self._run_tensor(padded, hx, lengths, reset)
        return pack(output, x, self.batch_first), final

    def _run_tensor(
        self, x: Tensor, hx: Any, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Any]:
        who = type(self).__name__
        batch_first = self.batch_first
        check_x(who, x, self.input_size, self._read(self._names[0][0][0][1]), batch_first)
        batched = x.dim() == 3
        if not batched:
            x = x.unsqueeze(0 if batch_first else 1)
            if isinstance(lengths, Tensor) and lengths.dim() == 0:
                lengths = lengths.unsqueeze(0)
            if isinstance(reset, Tensor) and reset.dim() == 1:
                reset = reset.unsqueeze(0)
        first, second, _ = x.shape
        batch, time = (first, second) if batch_first else (second, first)
        checked = None if lengths is None else check_lengths(lengths, batch, time, x.device, who)
        if reset is not None:
            reset = check_reset(reset, batch, time, x.device, who)
        starts = None
        if hx is not None:
            dtype = None if dispatch.autocasts(x.device) else x.dtype
            starts = self._layout.split(hx, batch if batched else None, dtype, x.device, who)
        output, finals = self._run_layers(x, starts, checked, reset)
        if not batched:
            output = output.squeeze(0 if batch_first else 1)
        return output, self._layout.join(finals, batched)

    def _run_layers(
        self,
        x: Tensor,
        starts: list[State] | None,
        lengths: Lengths | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, list[State]]:
        """All layers and directions over x (B, T, I), or (T, B, I) when batch_first is False."""
        training, batch_first = self.training, self.batch_first
        finals: list[State] = []
        for layer, cell in enumerate(self.cells):
            before = x
            if training:
                if layer > 0 and self.dropout > 0:
                    x = F.dropout(x, self.dropout)
                if self.variational_dropout > 0:
                    x = lock_input(x, self.variational_dropout, batch_first)
            calls = []
            for direction in range(len(self._names[layer])):
                start = None if starts is None else starts[len(finals) + direction]
                calls.append(self._sequence(layer, direction, x, start, lengths, reset))
            recorder = recording.active()
            if recorder is None:
                x, states = dispatch.run_together(calls, self.backend)
            else:
                x, states = recorder.run(self, layer, calls, self.backend)
            finals += states
            if self.residual and self._is_residual(cell):
                x = x + _real(before, lengths, batch_first)
        return x, finals

    def _sequence(
        self,
        layer: int,
        direction: int,
        x: Tensor,
        start: State | None,
        lengths: Lengths | None,
        reset: Tensor | None,
    ) -> Sequence:
        """One direction of one layer over x, with what is drawn for it while training."""
        cell, training = self.cells[layer], self.training
        masks = zoneout = None
        params = self._params(self._names[layer][direction])
        if training and self.weight_drop > 0:
            params = drop_weights(cell, params, self.weight_drop)
        if self.learn_initial_state:
            batch = x.shape[0 if self.batch_first else 1]
            start = cell.initial_state(batch, params) if start is None else start
            if reset is None:
                params = {name: params[name] for name in cell.parameter_shapes()}
        if training and self.recurrent_dropout > 0:
            masks = draw_masks(cell, x, self.recurrent_dropout, self.batch_first)
        if self.zoneout:
            zoneout = draw_zoneout(cell, x, zoneout_parts(self.zoneout, cell), training)
        return Sequence(
            cell,
            x,
            params,
            start,
            self.batch_first,
            lengths,
            reset,
            direction == 1,
            masks,
            zoneout,
            self.clip_state_grad,
            self.recompute,
            self.learn_initial_state and reset is not None,
        )


def _real(x: Tensor, lengths: Lengths | None, batch_first: bool) -> Tensor:
    """x with zeros in the padding, whatever it holds there."""
    if lengths is None:
        return x
    real = lengths.mask(x.shape[1 if batch_first else 0])
    return x.masked_fill(~(real if batch_first else real.t()).unsqueeze(-1), 0)
