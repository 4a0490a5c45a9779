"""What RNN, LSTM and GRU share: parameters under torch's names, layers, directions, checks.

A layer holds cells (values) and parameters, and hands each cell's run over time to `kernels`.
Parameters are read by attribute at every call and nothing derived from them is kept, so
parametrizations, pruning, `torch.func.functional_call` and in-place edits are always seen.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from recurra.cells.cell import Cell, Params, State
from recurra.errors import ShapeError
from recurra.kernels import dispatch
from recurra.kernels.sequence import Lengths, Sequence, check_lengths, check_reset
from recurra.nn.arguments import check_dropout, check_flags, check_x, is_list
from recurra.nn.initialise import Init
from recurra.nn.packed import pack, unpack
from recurra.nn.states import Layout

# What `repr` leaves out.
USUAL = {
    "proj_size": 0,
    "num_layers": 1,
    "nonlinearity": "tanh",
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "reset_after": True,
    "backend": dispatch.AUTO,
}


class Recurrent(nn.Module):
    """A stack of recurrent layers of one kind; see RNN, LSTM and GRU for the arguments."""

    def __init__(
        self,
        cells: SequenceOf[Cell],
        *,
        hidden_size: int | SequenceOf[int],
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        backend: str,
        init: str,
        forget_bias: float | None,
        chrono_length: int | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_flags(who, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        check_dropout(who, dropout, len(cells))
        dispatch.check_name(backend)
        self.input_size = cells[0].input_size
        self.hidden_size = tuple(hidden_size) if is_list(hidden_size) else hidden_size
        self.num_layers = len(cells)
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.backend = backend
        self.init = Init(init, forget_bias, chrono_length)
        self.cells = tuple(cells)
        for layer, cell in enumerate(self.cells):
            for suffix in self._suffixes(layer):
                for name, shape in cell.parameter_shapes().items():
                    empty = torch.empty(shape, device=device, dtype=dtype)
                    self.register_parameter(name + suffix, nn.Parameter(empty))
        self.init.check(self.cells[0], who)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters afresh, as `init` says, from torch's global generator."""
        with torch.no_grad():
            for layer, cell in enumerate(self.cells):
                for suffix in self._suffixes(layer):
                    self.init.fill(cell, self._params(cell, suffix))

    def flatten_parameters(self) -> None:
        """Do nothing; kept so that code written for torch.nn runs unchanged."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction, as torch.nn lists them."""
        return [
            list(self._params(cell, suffix).values())
            for layer, cell in enumerate(self.cells)
            for suffix in self._suffixes(layer)
        ]

    def extra_repr(self) -> str:
        listed = isinstance(self.hidden_size, tuple)
        shown = [str(self.input_size), str(self.hidden_size)]
        usual = {**USUAL, "num_layers": self.num_layers if listed else 1}
        for name, value in usual.items():
            actual = getattr(self, name, value)
            if actual != value:
                shown.append(f"{name}={actual!r}")
        return ", ".join(shown)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 2 if self.bidirectional else 1]

    def _params(self, cell: Cell, suffix: str) -> Params:
        return {name: getattr(self, name + suffix) for name in cell.parameter_shapes()}

    def _run(
        self, x: Tensor | PackedSequence, hx: Any, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor | PackedSequence, Any]:
        """`forward` for every kind of x."""
        who = type(self).__name__
        if not isinstance(x, PackedSequence):
            return self._run_tensor(x, hx, lengths, reset)
        if lengths is not None:
            raise ShapeError(
                f"{who}: x is a PackedSequence, which has lengths of its own, and lengths= is "
                "given too. Pass the padded tensor with lengths=, or the PackedSequence alone."
            )
        padded, lengths = unpack(x, self.batch_first)
        output, final = self._run_tensor(padded, hx, lengths, reset)
        return pack(output, x, self.batch_first), final

    def _run_tensor(
        self, x: Tensor, hx: Any, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, Any]:
        who = type(self).__name__
        weight = getattr(self, "weight_ih" + self._suffixes(0)[0])
        check_x(who, x, self.input_size, weight, self.batch_first)
        batched = x.dim() == 3
        if not batched:
            x = x.unsqueeze(0 if self.batch_first else 1)
            if isinstance(lengths, Tensor) and lengths.dim() == 0:
                lengths = lengths.unsqueeze(0)
            if isinstance(reset, Tensor) and reset.dim() == 1:
                reset = reset.unsqueeze(0)
        batch, time = x.shape[:2] if self.batch_first else (x.shape[1], x.shape[0])
        checked = None if lengths is None else check_lengths(lengths, batch, time, x.device, who)
        if reset is not None:
            reset = check_reset(reset, batch, time, x.device, who)
        layout = Layout(
            self.cells, 2 if self.bidirectional else 1, isinstance(self.hidden_size, tuple)
        )
        dtype = None if dispatch.autocasts(x.device) else x.dtype
        starts = layout.split(hx, batch if batched else None, dtype, x.device, who)
        output, finals = self._run_layers(x, starts, checked, reset)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
        return output, layout.join(finals, batched)

    def _run_layers(
        self,
        x: Tensor,
        starts: list[State] | None,
        lengths: Lengths | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, list[State]]:
        """All layers and directions over x (B, T, I), or (T, B, I) when batch_first is False."""
        finals: list[State] = []
        for layer, cell in enumerate(self.cells):
            if layer > 0 and self.training and self.dropout > 0:
                x = F.dropout(x, self.dropout)
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                call = Sequence(
                    cell,
                    x,
                    self._params(cell, suffix),
                    None if starts is None else starts[len(finals)],
                    self.batch_first,
                    lengths,
                    reset,
                    reverse=direction == 1,
                )
                output, final = dispatch.run(call, self.backend)
                outputs.append(output)
                finals.append(final)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
        return x, finals
