"""What holds a gradient up inside a layer: its weights' eigenvalues, its gates, its exponents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State
from recurra.kernels.recording import Call, Piece
from recurra.training.flow_values import GateFlow
from recurra.training.lyapunov import lyapunov_exponents

# Steps of one row that Lyapunov exponents are computed over.
WINDOW = 32
# Steps that gates are looked at, of each call and in all of its rows.
GATE_STEPS = 16
# A gate below or above these lets next to no gradient through to its own weights.
CLOSED, OPEN = 0.05, 0.95


def spectral_radii(cell: Cell, params: Params) -> dict[str, float]:
    """The largest |eigenvalue| of each gate's recurrent weights U, or of U R with a projection R.

    Blocks that do not map the state to something of its own size are left out.

    >>> from recurra.cells.elman import Elman
    >>> spectral_radii(Elman(1, 2), {"weight_hh": torch.tensor([[0.0, 9.0], [0.0, 2.0]])})
    {'h': 2.0}
    """
    found = {}
    for name in cell.recurrent_weights:
        weight = params[name].to(torch.promote_types(params[name].dtype, torch.float32))
        blocks, labels = [weight], [name]
        if len(weight) == len(cell.gates) * cell.hidden_size:
            blocks, labels = list(weight.chunk(len(cell.gates))), list(cell.gates)
        for label, block in zip(labels, blocks, strict=True):
            square = block @ params["weight_hr"].to(block) if "weight_hr" in params else block
            if square.dim() == 2 and square.shape[0] == square.shape[1]:
                found[label] = _spectral_radius(square)
    return found


def _spectral_radius(square: Tensor) -> float:
    if not bool(square.isfinite().all()):
        return math.nan
    return float(torch.linalg.eigvals(square).abs().max())


def gate_flows(calls: Sequence[Call]) -> dict[str, GateFlow]:
    """The gates in up to GATE_STEPS steps of each call, spread over its time."""
    found: dict[str, list[Tensor]] = {}
    for call in calls:
        for gate, values in _gate_values(call).items():
            found.setdefault(gate, []).append(values.flatten())
    flows = {}
    for gate, tensors in found.items():
        values = torch.cat(tensors).float()
        if len(values):
            shares = (values, (values < CLOSED).float(), (values > OPEN).float())
            flows[gate] = GateFlow(*torch.stack([share.mean() for share in shares]).tolist())
    return flows


def _gate_values(call: Call) -> dict[str, Tensor]:
    """Each gate in the real rows of the first steps of some pieces."""
    sequence, cell = call.sequence, call.sequence.cell
    axis, params = sequence.time_axis, sequence.params
    dtype = next(iter(params.values())).dtype
    pieces = call.pieces[:: -(-len(call.pieces) // GATE_STEPS)]
    steps = [piece.first(sequence.reverse) for piece in pieces]
    at = torch.tensor(steps, device=sequence.x.device)
    real = real_rows(call, steps)

    def rows(over_time: Tensor) -> Tensor:
        """The real rows of a tensor in the layout of x at these steps."""
        chosen = over_time.index_select(axis, at)
        return (chosen.transpose(0, 1) if axis == 1 else chosen)[real].to(dtype)

    starts = zip(*(piece.start for piece in pieces), strict=True)
    state = cell.make_state(*(torch.stack(parts)[real].to(dtype) for parts in starts))
    if sequence.reset is not None:
        begun = sequence.reset[:, steps].t()[real].unsqueeze(1)
        fresh = cell.initial_state(len(begun), params)
        pairs = zip(fresh, state, strict=True)
        state = cell.make_state(*(torch.where(begun, new, old) for new, old in pairs))
    masks = NO_MASKS
    if sequence.masks is not None and sequence.masks.h is not None:
        h = sequence.masks.h
        masks = Masks(rows(h) if h.dim() == 3 else h.expand(len(steps), -1, -1)[real].to(dtype))
    return cell.gate_values(cell.project(rows(sequence.x), params), state, params, masks)


def real_rows(call: Call, steps: Sequence[int]) -> Tensor:
    """(steps, B) bool, True where a row is real."""
    sequence = call.sequence
    at = torch.tensor(steps, device=sequence.x.device).unsqueeze(1)
    if sequence.lengths is None:
        return torch.ones(len(steps), sequence.batch, dtype=torch.bool, device=at.device)
    return at < sequence.lengths.values


def exponents(call: Call, params: Params) -> tuple[float, ...]:
    """Lyapunov exponents along the longest row of a call, by the cell's own step."""
    sequence, cell = call.sequence, call.sequence.cell
    if sequence.batch == 0:
        return ()
    row = 0 if sequence.lengths is None else int(sequence.lengths.values.argmax())
    piece, steps = _longest_window(call, row)
    if piece is None:
        return ()
    state: State = cell.make_state(*(part[row : row + 1] for part in piece.start))
    if sequence.reset is not None and bool(sequence.reset[row, steps[0]]):
        state = cell.initial_state(1, params)
    dtype = next(iter(params.values())).dtype
    dtype = torch.promote_types(dtype, torch.float32)  # there is no QR of half precision
    wide = {name: value.to(dtype) for name, value in params.items()}
    x = sequence.x.select(1 - sequence.time_axis, row)[steps].to(dtype)
    state = cell.make_state(*(part.to(dtype) for part in state))
    return tuple(lyapunov_exponents(cell, x, state, wide))


def _longest_window(call: Call, row: int) -> tuple[Piece | None, list[int]]:
    """The latest piece from which most steps of the row, up to WINDOW, go on without a reset."""
    sequence, reverse = call.sequence, call.sequence.reverse
    length = sequence.time if sequence.lengths is None else int(sequence.lengths.values[row])
    reset = [False] * length if sequence.reset is None else sequence.reset[row].tolist()
    chosen: Piece | None = None
    longest: list[int] = []
    for piece in call.pieces:
        first = min(piece.first(reverse), length - 1)
        if first < piece.begin:
            continue
        steps = list(
            range(first, max(first - WINDOW, -1), -1)
            if reverse
            else range(first, min(first + WINDOW, length))
        )
        cut = next((n for n, t in enumerate(steps) if n > 0 and reset[t]), len(steps))
        if cut >= len(longest):
            chosen, longest = piece, steps[:cut]
    return chosen, longest
