"""The linear map of a segment network, solved in closed form from training windows.

    L = argmin Σ ‖y − L x‖² + λ n ‖L‖²

over n windows x and what follows them, y, both less the window's level, in units of the channel's
deviation in training: in units of each window, a few after a calm start would outweigh all others.
λ is the one with the smallest error on the rows kept for validation.

Source: ridge regression, Hoerl and Kennard 1970.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recurra.tasks.forecasting.fitting import ForecastTask
from recurra.tasks.forecasting.linear import solve
from recurra.tasks.forecasting.segments import SegmentNetwork

MOST_WINDOWS = 32_768
AT_ONCE = 4096
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
USUAL_PENALTY = 1e-2
PARTS = 4
"""Parts of the horizon that are solved apart: more windows know the truth of a nearer one."""


@torch.no_grad()
def solve_linear(task: ForecastTask, seed: int) -> None:
    """Set the linear map of the task's network, from its training rows."""
    network = task.model
    if not isinstance(network, SegmentNetwork) or network.linear is None:
        raise ValueError("only a segment network made with linear=True has a linear map")
    rng = torch.Generator().manual_seed(seed)
    channel, row = _origins(task, rng)
    has_validation = len(task.validation[0]) > 0
    penalties = PENALTIES if has_validation else (USUAL_PENALTY,)
    maps = [torch.zeros_like(network.linear) for _ in penalties]
    for steps in torch.arange(network.settings.horizon).chunk(PARTS):
        solved = _solve_part(task, channel, row, steps, penalties)
        for one, part in zip(maps, solved, strict=True):
            one[steps] = part
    scores = []
    for one in maps:
        network.linear.copy_(one)
        # The rest of an untrained network adds nothing to the median.
        scores.append(task.validate() if has_validation else 0.0)
    network.linear.copy_(maps[min(range(len(maps)), key=lambda number: scores[number] or 0.0)])


def _origins(task: ForecastTask, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(channel, row) of training windows, drawn where there are too many."""
    channels, rows = [], []
    for c in task.trainable.tolist():
        row = torch.arange(int(task.first_origin[c]), int(task.train_rows[c]) - 1)
        channels.append(torch.full_like(row, c))
        rows.append(row)
    channel, row = torch.cat(channels), torch.cat(rows)
    if len(row) > MOST_WINDOWS:
        chosen = torch.randperm(len(row), generator=rng)[:MOST_WINDOWS].sort().values
        channel, row = channel[chosen], row[chosen]
    return channel, row


def _solve_part(
    task: ForecastTask, channel: Tensor, row: Tensor, steps: Tensor, penalties: tuple[float, ...]
) -> list[Tensor]:
    """The rows `steps` of L for each penalty, from the windows in which all of them are known."""
    context = task.model.settings.context
    gram = torch.zeros(context, context, dtype=torch.float64)
    cross = torch.zeros(context, len(steps), dtype=torch.float64)
    count = 0
    for some in torch.split(torch.arange(len(row)), AT_ONCE):
        x, y = task.windows(channel[some], row[some])
        y = y[:, steps]
        known = torch.isfinite(y).all(dim=1)
        x, y = x[known], y[known]
        gram += (x.T @ x).double()
        cross += (x.T @ y).double()
        count += len(x)
    each = [penalty * max(count, 1) for penalty in penalties]
    solved = solve(gram.numpy(), cross.numpy(), each)
    return [torch.from_numpy(weight.T).float() for weight in solved]
