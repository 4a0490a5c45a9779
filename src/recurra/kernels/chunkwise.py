"""The chunkwise backend: mLSTM as products of matrices over chunks of time.

Within a chunk every step reads every earlier one at once, as attention does; between chunks only
the state is handed on. With L_ts = log f summed over the steps after s up to t, and 0 < s ≤ t
within the chunk, the cell's definition (`recurra.cells.mlstm`) unrolls to

    m_t   = max(L_t0 + m_0, max_s (L_ts + log i_s))
    C_t q = Σ_s exp(L_ts + log i_s − m_t) (k_sᵀ q) v_s + exp(L_t0 + m_0 − m_t) C_0 q

and the same for n without v. These are the step's own m, so no exponent is above 0. L is summed for
each pair of steps, not taken as a difference of sums from the start, in which a closed gate would
swallow the digits of all others.

A reset cuts the pairs that it lies between. A step in the padding has log i = −∞ and log f = 0: it
writes nothing and keeps everything. Reverse turns the real part of each row around. Products of
matrices would spread a NaN over the whole chunk, back in time and across resets; steps that hold
one are therefore run as zeros, and what follows them is made NaN in the end.

Source: Beck et al. 2024, "xLSTM: extended long short-term memory", whose parallel form this is
within a chunk; Hua et al. 2022, "Transformer quality in linear time", for chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import Cell, State
from recurra.cells.mlstm import MLSTM, Projected, normalised
from recurra.kernels.sequence import Features, Sequence

# Steps that are run together: a chunk costs its square, a chunk more costs a pass over C.
CHUNK = 64
# Sums of logarithms have too few digits in these: computed in float32, and rounded at the end.
WIDENED = (torch.bfloat16, torch.float16)


class _Carried(NamedTuple):
    """The state between chunks: c (B, heads, d, d), n (B, heads, d), m (B, heads)."""

    c: Tensor
    n: Tensor
    m: Tensor


def why_not(cell: Cell, features: Features, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why this backend cannot run the call, or None."""
    if type(cell) is not MLSTM:
        return f"it runs mLSTM only, and the cell is {cell.name}"
    if features.zoneout:
        return "zoneout changes the state at every step, and it has the state between chunks only"
    if features.clip:
        return "it has no gradient of the state inside a chunk that it could clip"
    return None


def run(sequence: Sequence) -> tuple[Tensor, State]:
    """Outputs over time, in the layout of x, and the final state."""
    cell, dtype = sequence.cell, sequence.x.dtype
    assert isinstance(cell, MLSTM)
    if dtype in WIDENED:
        output, final = run(_widened(sequence))
        return output.to(dtype), cell.make_state(*(part.to(dtype) for part in final))
    state = sequence.state
    if state is None:
        state = cell.initial_state(sequence.batch, sequence.params)
    if sequence.time == 0:
        shape = (*sequence.x.shape[:2], cell.output_size)
        return sequence.x.new_zeros(shape), cell.make_state(*(part.clone() for part in state))

    lengths, axis = sequence.lengths, sequence.time_axis
    time = sequence.time if lengths is None else max(lengths.longest, 1)
    x = sequence.x.narrow(axis, 0, time)
    real = None if lengths is None else lengths.mask(time)
    if real is not None:
        x = x.masked_fill(~sequence.over_time(real), 0)

    projected = cell.project(x, sequence.params)
    projected = projected if sequence.batch_first else projected.transpose(0, 1)
    order = _order(sequence, time) if sequence.reverse else None
    reset = _resets(sequence, time, real)
    if order is not None:
        projected = projected.take_along_dim(order.unsqueeze(-1), 1)
        reset = reset.take_along_dim(order, 1)
    output, final = _run_forward(cell, projected, state, reset, real)
    if order is not None:
        output = output.take_along_dim(order.unsqueeze(-1), 1)
    if real is not None:
        output = output.masked_fill(~real.unsqueeze(-1), 0)
    output = F.pad(output, (0, 0, 0, sequence.time - time))
    return output if sequence.batch_first else output.transpose(0, 1), final


def _widened(sequence: Sequence) -> Sequence:
    """The call in float32."""
    state = sequence.state
    if state is not None:
        state = sequence.cell.make_state(*(part.float() for part in state))
    params = {name: value.float() for name, value in sequence.params.items()}
    return sequence._replace(x=sequence.x.float(), params=params, state=state)


def _order(sequence: Sequence, time: int) -> Tensor:
    """(B, time) indices that turn each row's real part around; the inverse of itself."""
    t = torch.arange(time, device=sequence.x.device).expand(sequence.batch, -1)
    if sequence.lengths is None:
        return t.flip(1)
    ends = sequence.lengths.values.unsqueeze(1)
    return torch.where(t < ends, ends - 1 - t, t)


def _resets(sequence: Sequence, time: int, real: Tensor | None) -> Tensor:
    """(B, time) bool, False in the padding and everywhere when there are none."""
    if sequence.reset is None:
        return torch.zeros(sequence.batch, time, dtype=torch.bool, device=sequence.x.device)
    reset = sequence.reset[:, :time]
    return reset if real is None else reset & real


def _run_forward(
    cell: MLSTM, projected: Tensor, state: State, reset: Tensor, real: Tensor | None
) -> tuple[Tensor, State]:
    """Projected (B, T, ·) in the order in which it is run, to outputs (B, T, H), final state."""
    broken = ~projected.isfinite().all(-1)
    projected = projected.masked_fill(broken.unsqueeze(-1), 0)
    steps = cell.split(projected)
    log_i, log_f = steps.log_i, steps.log_f
    if real is not None:
        log_i = log_i.masked_fill(~real.unsqueeze(-1), -torch.inf)
        log_f = log_f.masked_fill(~real.unsqueeze(-1), 0)
    steps = steps._replace(log_i=log_i, log_f=log_f)

    heads, size = cell.num_heads, cell.head_size
    c, n, m = state
    carried = _Carried(c.reshape(-1, heads, size, size), n.reshape(-1, heads, size), m)
    reads = []
    time = projected.shape[1]
    for begin in range(0, time, CHUNK):
        chunk = Projected(*(part[:, begin : begin + CHUNK] for part in steps))
        read, carried = _run_chunk(chunk, carried, reset[:, begin : begin + CHUNK])
        reads.append(read)

    spoiled = _spoiled(broken, reset).unsqueeze(-1)
    output = (steps.o * torch.cat(reads, 1)).masked_fill(spoiled, torch.nan)
    final = (part.flatten(1).masked_fill(spoiled[:, -1], torch.nan) for part in carried)
    return output, cell.make_state(*final)


def _run_chunk(chunk: Projected, carried: _Carried, reset: Tensor) -> tuple[Tensor, _Carried]:
    """One chunk of steps (B, T, heads, ·): what they read (B, T, H), and the state after them."""
    q, k, v = (part.transpose(1, 2) for part in (chunk.q, chunk.k, chunk.v))
    log_i, log_f = (part.transpose(1, 2) for part in (chunk.log_i, chunk.log_f))
    time = q.shape[2]
    resets = reset.cumsum(1)
    # (B, 1, T): no reset yet, so what was carried in is there.
    held = (resets == 0).unsqueeze(1)
    # (B, 1, t, s): t sees s, which is no later, with no reset in between.
    seen = (resets.unsqueeze(2) == resets.unsqueeze(1)).tril().unsqueeze(1)
    after = torch.ones(time, time, dtype=torch.bool, device=q.device).tril(-1)

    between = log_f.unsqueeze(3).expand(-1, -1, -1, time).masked_fill(~after, 0).cumsum(2)
    weights = (between + log_i.unsqueeze(2)).masked_fill(~seen, -torch.inf)
    since = log_f.unsqueeze(2).expand(-1, -1, time, -1).masked_fill(~seen, 0).sum(3)
    kept = since + torch.where(held, carried.m.unsqueeze(2), 0)
    m = torch.maximum(kept, weights.amax(3))
    weights = torch.exp(weights - m.unsqueeze(3))
    kept = torch.exp(kept - m)

    # What a reset has cut off is filled with 0, not multiplied by it: it may be NaN.
    scores = (q @ k.transpose(2, 3)) * weights
    old_c_q = (kept.unsqueeze(3) * (q @ carried.c.transpose(2, 3))).masked_fill(
        ~held.unsqueeze(3), 0
    )
    old_n_q = (kept * (q @ carried.n.unsqueeze(3)).squeeze(3)).masked_fill(~held, 0)
    read = normalised(scores @ v + old_c_q, scores.sum(3) + old_n_q, m)

    last, last_held = weights[:, :, -1], held[:, :, -1]
    last_kept = kept[:, :, -1].unsqueeze(2)
    c = (last_kept.unsqueeze(3) * carried.c).masked_fill(~last_held[:, :, None, None], 0)
    n = (last_kept * carried.n).masked_fill(~last_held.unsqueeze(2), 0)
    c = c + (v * last.unsqueeze(3)).transpose(2, 3) @ k
    n = n + (last.unsqueeze(2) @ k).squeeze(2)
    return read.transpose(1, 2).flatten(2), _Carried(c, n, m[:, :, -1])


def _spoiled(broken: Tensor, reset: Tensor) -> Tensor:
    """(B, T): a broken step lies at or before this one, with no reset in between."""
    so_far = broken.cumsum(1)
    forgiven = torch.where(reset, so_far - broken.long(), 0).cummax(1).values
    return so_far > forgiven
