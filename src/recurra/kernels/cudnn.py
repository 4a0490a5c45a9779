"""The cudnn backend: torch's own fused operators for the three stock cells, on CUDA.

Lengths become torch's packed form, which forbids length 0: such rows run one step over zeros, and
their output and state are put back afterwards. cuDNN has no second derivative; ask for
backend="reference" where gradients of gradients are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from recurra.cells.cell import Cell, Params, State
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.kernels.sequence import Features, Lengths, Sequence

# cuDNN's grid has one 16-bit axis over time (pytorch issue 133751).
LONGEST_TIME = 65_535
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def why_not(cell: Cell, features: Features, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why this backend cannot run the call, or None."""
    kind = device.type
    if kind != "cuda":
        return f"it needs a CUDA device, and x is on {kind}"
    if type(cell) not in (Elman, LSTM, GRU):
        return f"it runs Elman, LSTM and GRU only, and the cell is {cell.name}"
    if isinstance(cell, GRU) and not cell.reset_after:
        return "its GRU resets after the product, and the cell has reset_after=False"
    if isinstance(cell, Elman | LSTM | GRU) and cell.layer_norm:
        return "it has no layer normalisation inside a cell"
    if isinstance(cell, LSTM) and cell.peephole:
        return "it has no peepholes"
    if isinstance(cell, LSTM) and cell.coupled:
        return "it has no coupled gates"
    if dtype not in DTYPES:
        return f"it has no {dtype}"
    if features.reset:
        return "it cannot reset the state inside a sequence"
    if features.masks:
        return "it has no dropout mask on h inside the recurrence"
    if features.zoneout:
        return "it has no zoneout"
    if features.clip:
        return "it cannot clip the gradient of the state"
    if features.learned_start:
        return "its resets go back to zeros, not to a learned initial state"
    if features.batch == 0 or features.time == 0:
        return f"it cannot run an empty call (batch {features.batch}, time {features.time})"
    if features.time > LONGEST_TIME:
        return f"it runs at most {LONGEST_TIME} time steps, and x has {features.time}"
    if torch._C._are_functorch_transforms_active():
        return "it does not work inside torch.func transforms"
    return None


def run(sequence: Sequence) -> tuple[Tensor, State]:
    """Outputs over time, in the layout of x, and the final state."""
    start = sequence.state
    if start is None:
        start = sequence.cell.initial_state(sequence.batch, sequence.params)
    weights = _flat(sequence.params)
    if sequence.lengths is not None:
        return _run_packed(sequence, sequence.lengths, start, weights)
    x = sequence.x
    if sequence.reverse:
        x = x.flip(sequence.time_axis)
    operator = _operator(sequence.cell)
    hidden = tuple(part.unsqueeze(0) for part in start)
    output, *final = operator(
        x,
        hidden if len(hidden) > 1 else hidden[0],
        weights,
        "bias_ih" in sequence.params,
        1,
        0.0,
        torch.is_grad_enabled(),  # cuDNN keeps what backward needs only "in training"
        False,
        sequence.batch_first,
    )
    if sequence.reverse:
        output = output.flip(sequence.time_axis)
    return output, sequence.cell.make_state(*(part.squeeze(0) for part in final))


def _run_packed(
    sequence: Sequence, lengths: Lengths, start: State, weights: list[Tensor]
) -> tuple[Tensor, State]:
    real = sequence.over_time(lengths.mask(sequence.time))
    x = sequence.x.masked_fill(~real, 0)
    order = _reversal(sequence, lengths) if sequence.reverse else None
    if order is not None:
        x = x.take_along_dim(order, sequence.time_axis)
    packed = pack_padded_sequence(
        x, lengths.values.clamp(min=1).cpu(), sequence.batch_first, enforce_sorted=False
    )
    assert packed.sorted_indices is not None
    assert packed.unsorted_indices is not None
    hidden = tuple(part[packed.sorted_indices].unsqueeze(0) for part in start)
    data, *final = _operator(sequence.cell)(
        packed.data,
        packed.batch_sizes,
        hidden if len(hidden) > 1 else hidden[0],
        weights,
        "bias_ih" in sequence.params,
        1,
        0.0,
        torch.is_grad_enabled(),
        False,
    )
    output, _ = pad_packed_sequence(
        PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices),
        sequence.batch_first,
        total_length=sequence.time,
    )
    if order is not None:
        output = output.take_along_dim(order, sequence.time_axis)
    output = output.masked_fill(~real, 0)
    empty = (lengths.values == 0).unsqueeze(1)
    ends = (part.squeeze(0)[packed.unsorted_indices] for part in final)
    parts = (torch.where(empty, a, b) for a, b in zip(start, ends, strict=True))
    return output, sequence.cell.make_state(*parts)


def _reversal(sequence: Sequence, lengths: Lengths) -> Tensor:
    """Time indices that turn each row's real part around and leave its padding; its own inverse."""
    t = torch.arange(sequence.time, device=lengths.values.device)
    ends = lengths.values.unsqueeze(1)
    return sequence.over_time(torch.where(t < ends, ends - 1 - t, t))


def _operator(cell: Cell) -> Callable[..., Any]:
    if isinstance(cell, LSTM):
        return torch.lstm
    if isinstance(cell, GRU):
        return torch.gru
    assert isinstance(cell, Elman)
    return torch.rnn_tanh if cell.activation == "tanh" else torch.rnn_relu


def _flat(params: Params) -> list[Tensor]:
    """The parameters as views of one new buffer, matrices before biases as cuDNN wants them.

    torch would otherwise copy them itself at each call and warn about it. Gradients flow through.
    """
    names = sorted(params, key=lambda name: -params[name].dim())
    pieces = torch.cat([params[name].reshape(-1) for name in names]).split_with_sizes(
        [params[name].numel() for name in names]
    )
    views = {n: piece.view(params[n].shape) for n, piece in zip(names, pieces, strict=True)}
    return [views[name] for name in params]
