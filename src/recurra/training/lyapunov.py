"""Finite-time Lyapunov exponents of a recurrence: how fast gradients grow or shrink in it.

Along h_0, h_1, ..., h_n of one row, with J_t = ∂h_t / ∂h_(t−1), from orthonormal Q_n backwards:

    Q_(t−1) R_t = J_tᵀ Q_t;  λ_i = 1 / (n − m) · Σ_{t = 1..n−m} log |R_t,ii|

λ_1 > 0: a gradient grows as exp(λ_1 t) on its way back; λ_1 < 0: it shrinks. The first m = ⌊n / 4⌋
steps of the way back turn Q to the directions that matter and are not counted. The product of the
transposed Jacobians has the singular values of the product itself, so these are the exponents of
nearby states that part or meet as well.

Source: Benettin, Galgani, Giorgilli and Strelcyn 1980, "Lyapunov characteristic exponents for
smooth dynamical systems and for Hamiltonian systems"; for recurrent networks Engelken, Wolf and
Abbott 2023, "Lyapunov spectra of chaotic recurrent neural networks".
"""

from __future__ import annotations

import torch
from torch import Tensor

from recurra.cells.cell import Cell, Params, State

EXPONENTS = 4


def lyapunov_exponents(
    cell: Cell, x: Tensor, state: State, params: Params, count: int = EXPONENTS
) -> list[float]:
    """The largest `count` exponents over the steps of one row, largest first.

    Shapes: x (T, I), each part of the state (1, size). There are no more exponents than numbers in
    the state, and none without a step. −inf where a direction dies, as behind a relu that is shut.

    >>> from recurra.cells.elman import Elman
    >>> cell = Elman(1, 2, activation="relu", bias=False)
    >>> params = {"weight_ih": torch.ones(2, 1), "weight_hh": torch.diag(torch.tensor([2.0, 0.5]))}
    >>> state = cell.make_state(torch.ones(1, 2))
    >>> [round(value, 3) for value in lyapunov_exponents(cell, torch.ones(20, 1), state, params)]
    [0.693, -0.693]
    """
    sizes = [part.shape[1] for part in state]
    count = min(count, sum(sizes))
    if len(x) == 0 or count == 0:
        return []
    steps = _steps(cell, x.detach(), state, {k: v.detach() for k, v in params.items()}, count)
    # Drawn from a generator of its own: the same for the same sizes, and no draw of training's.
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(sum(sizes), count, generator=rng, dtype=torch.float64)
    q = torch.linalg.qr(start.to(x.device, x.dtype)).Q
    logs = []
    for before, after in reversed(steps):
        arriving = q.t().split_with_sizes(sizes, dim=1)
        d_before = torch.autograd.grad(after, before, arriving, materialize_grads=True)
        q, r = torch.linalg.qr(torch.cat(d_before, 1).t())
        logs.append(r.diagonal().abs().log())
    counted = torch.stack(logs[len(logs) // 4 :])
    return sorted(counted.double().mean(0).tolist(), reverse=True)


def _steps(
    cell: Cell, x: Tensor, state: State, params: Params, count: int
) -> list[tuple[State, State]]:
    """The state before and after each step, a graph for each, in `count` equal rows.

    Rows do not know each other: one way back gives the product with as many vectors.
    """
    step, steps = cell.bind(params), []
    rows = [part.detach().repeat(count, 1) for part in state]
    with torch.enable_grad():
        for projected_t in cell.project(x, params).unbind(0):
            before = cell.make_state(*(part.detach().requires_grad_() for part in rows))
            _, after = step(projected_t.expand(count, -1), before)
            steps.append((before, after))
            rows = list(after)
    return steps
