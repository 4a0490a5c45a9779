"""Backtests: train on what lies before the windows, then score them; once or before each."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from recurra.data.series import Series, SeriesSet
from recurra.errors import ConfigError
from recurra.tasks.forecasting.evaluation import Evaluation, evaluate, rolling_origins
from recurra.tasks.forecasting.learning import learn, plan
from recurra.tasks.forecasting.settings import ForecasterSettings

Integers = npt.NDArray[np.int64]
FEWEST_ROWS = 2


def backtest(
    table: SeriesSet,
    settings: ForecasterSettings,
    windows: int,
    refit: Literal["once", "each"],
    sliding: int | None = None,
    *,
    progress: bool,
) -> Evaluation:
    """Score the last `windows` windows of each series by models that saw only what lies before.

    Every fit starts from fresh weights. Series too short for a window are only trained on. With
    `sliding` a fit sees that many rows before its first window, and not all: they slide on with
    the windows instead of growing.

    Raises: ConfigError for an unknown `refit` or too few rows, DataError when no series is long
    enough.
    """
    if sliding is not None and sliding <= settings.horizon:
        raise ConfigError(
            f"sliding={sliding} rows to train on hold no window of horizon={settings.horizon}; "
            f"expected more, {3 * settings.horizon} or so at least."
        )
    if refit not in ("once", "each"):
        raise ConfigError(f"refit={refit!r}; expected 'once' or 'each'.")
    starts = np.array([one.start + FEWEST_ROWS - 1 for one in table.series], dtype=np.int64)
    number, row, _ = rolling_origins(table.series, starts, settings.horizon, windows)
    # Windows are counted back from the end of each series, so the last one is everybody's.
    last = np.array([row[number == n].max() for n in number])
    back = (last - row) // settings.horizon
    rounds = [back >= 0] if refit == "once" else [back == j for j in range(back.max(), -1, -1)]
    return _join([_round(table, settings, number[r], row[r], sliding, progress) for r in rounds])


def _round(
    table: SeriesSet,
    settings: ForecasterSettings,
    number: Integers,
    row: Integers,
    sliding: int | None,
    progress: bool,
) -> Evaluation:
    """Fit on the rows up to each series' first origin, and score its windows."""
    train: list[Series] = []
    seen: list[Series] = []
    dropped: list[int] = []
    for n, one in enumerate(table.series):
        origins = row[number == n]
        if len(origins):
            first = 0 if sliding is None else max(0, int(origins[0]) + 1 - sliding)
            first += int(np.argmax(np.isfinite(one.target[first:]).any(axis=1)))
            if first > int(origins[0]):
                first = 0  # silent all through the window
            train.append(_rows(one, first, int(origins[0]) + 1))
            seen.append(_rows(one, first, int(origins[-1]) + 1 + settings.horizon))
            dropped.append(first)
    known = {one.name for one in train}
    others = [one for one in table.series if one.name not in known]
    chosen = plan(replace(table, series=(*train, *others)), settings)
    fitted, _ = learn(chosen, None, resume=False, progress=progress)
    made = evaluate(fitted, seen, None)
    members = np.unique(number)
    shift = np.array(dropped, dtype=np.int64)[made.number]
    return replace(made, number=members[made.number], row=made.row + shift)


def _rows(series: Series, first: int, after: int) -> Series:
    """Rows `first` to before `after` of a series; its known future goes on."""
    return replace(
        series,
        start=series.start + first,
        target=series.target[first:after],
        past=series.past[first:after],
        future=series.future[first:],
    )


def _join(parts: list[Evaluation]) -> Evaluation:
    """Windows of several rounds as one; models that only some rounds have are left out."""
    models = [m for m in parts[0].forecasts if all(m in part.forecasts for part in parts)]
    return replace(
        parts[0],
        forecasts={m: np.concatenate([part.forecasts[m] for part in parts]) for m in models},
        actual=np.concatenate([part.actual for part in parts]),
        number=np.concatenate([part.number for part in parts]),
        row=np.concatenate([part.row for part in parts]),
        scale=np.concatenate([part.scale for part in parts]),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )
