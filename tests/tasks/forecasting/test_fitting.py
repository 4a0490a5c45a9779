"""The batches that a forecaster is trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, read, several

from recurra.errors import ConfigError
from recurra.tasks.forecasting.fitting import ForecastTask
from recurra.tasks.forecasting.learning import plan
from recurra.tasks.forecasting.settings import ForecasterSettings


def task(**settings: Any) -> ForecastTask:
    given = {name: value for name, value in QUICK.items() if name != "progress"}
    made = ForecasterSettings(horizon=3, **{**given, "context": 10, "season": 7, **settings})
    return plan(read(several((60, 90))), made).task


def ends(made: ForecastTask, steps: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """(channel, row) of the last step of every sequence of many batches."""
    channels, rows = [], []
    for step in range(steps):
        batch = made.batch(step, torch.Generator().manual_seed(step))
        last = batch.lengths - 1
        shape = batch.truth.shape[:2]
        row = batch.steps.row.view(shape).gather(1, last[:, None]).squeeze(1)
        channels.append(batch.steps.channel.view(shape)[:, 0])
        rows.append(row)
    return torch.cat(channels), torch.cat(rows)


def test_windows_end_anywhere_unless_aligned() -> None:
    made = task()
    channel, row = ends(made)
    assert len(set(((made.train_rows[channel] - 1 - row) % 7).tolist())) == 7


@pytest.mark.parametrize("stride", [1, 7])
def test_aligned_windows_end_whole_seasons_before_the_last_training_row(stride: int) -> None:
    made = task(aligned=True, stride=stride)
    channel, row = ends(made)
    before = made.train_rows[channel] - 1 - row
    earliest = row == made.first_origin[channel]
    assert (before % 7 == 0)[~earliest].all()
    assert before.min() == 7
    assert len(before.unique()) > 3
    assert (row >= made.first_origin[channel]).all()


def test_alignment_needs_a_season() -> None:
    with pytest.raises(ConfigError, match="aligned=True needs a season of two rows or more"):
        task(aligned=True, season=1)
