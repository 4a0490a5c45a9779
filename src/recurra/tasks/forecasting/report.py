"""The forecaster's report: how it was trained, what it scores, what it forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.series import SeriesSet
from recurra.report import charts, parts
from recurra.report.drawing import to_svg
from recurra.report.page import Page
from recurra.report.series_charts import Fan, fan_charts
from recurra.runs import RunFolder
from recurra.tasks.forecasting.evaluation import OURS, Evaluation
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.forecaster import Forecaster
from recurra.tasks.forecasting.gradients import add_gradients, read_gradients
from recurra.tasks.forecasting.state import TAIL, SeriesState
from recurra.tasks.forecasting.updating import forecast_states
from recurra.training.log import read_log

Array = npt.NDArray[np.float64]
MAX_CHARTS = 8
LOSS = "Loss (pinball, in units of each window)"
HISTORY_HORIZONS = 4
"""Rows of history that a fan chart shows, in horizons."""


def last_window_fans(evaluation: Evaluation, table: SeriesSet) -> list[Fan]:
    """The last evaluated window of the first few series and targets, with what happened."""
    fans = []
    for n, one in enumerate(table.series):
        at = np.flatnonzero(evaluation.number == n)
        if not len(at):
            continue
        row, window = int(evaluation.row[at[-1]]), int(at[-1])
        horizon = evaluation.actual.shape[2]
        first = max(0, row + 1 - HISTORY_HORIZONS * horizon)
        times = table.frequency.times(
            one.start + np.arange(first, row + 1 + horizon, dtype=np.int64)
        )
        for k, target in enumerate(evaluation.target):
            fans.append(
                Fan(
                    title=f"{one.name}: {target}" if one.name else target,
                    times=times,
                    history=one.target[first : row + 1, k],
                    levels=evaluation.levels,
                    quantiles=evaluation.forecasts[OURS][window, k],
                    actual=evaluation.actual[window, k],
                )
            )
            if len(fans) == MAX_CHARTS:
                return fans
    return fans


def next_fans(fitted: Fitted, states: Mapping[str, SeriesState]) -> list[Fan]:
    """What comes after the last known row of the first few series and targets."""
    if fitted.schema.future:
        return []
    horizon, fans = fitted.settings.horizon, []
    for name, state in states.items():
        quantiles = forecast_states(fitted, [state])[0]
        rows = min(HISTORY_HORIZONS * horizon, state.tail.shape[2])
        index = np.arange(state.index + 1 - rows, state.index + 1 + horizon, dtype=np.int64)
        values, age = (state.tail[TAIL.index(part)][:, -rows:] for part in ("values", "age"))
        for k, target in enumerate(fitted.schema.target):
            history = np.exp(values[k]) if fitted.schema.logarithm[k] else values[k]
            fans.append(
                Fan(
                    title=f"{name}: {target}" if name else target,
                    times=fitted.schema.grid.times(index),
                    history=np.where(age[k] == 0, history, np.nan),
                    levels=fitted.settings.quantile_levels,
                    quantiles=quantiles[k],
                )
            )
            if len(fans) == MAX_CHARTS:
                return fans
    return fans


def add_training(page: Page, fitted: Fitted, history: Sequence[Mapping[str, Any]]) -> None:
    """What was inferred from the table, how long training took, and the loss curves."""
    parts.add_training(page, fitted.training, fitted.notes, history, LOSS)


def add_evaluation(page: Page, metrics: Mapping[str, Any]) -> None:
    """Scores, errors by step ahead and calibration, from what `evaluate` left in metrics.json."""
    page.heading("Scores on rows after the training data")
    parts.add_scores(page, metrics["results"], str(metrics.get("data", "")))
    for target, results in metrics.get("targets", {}).items():
        parts.add_scores(page, results, target)
    parts.add_notes(page, metrics.get("notes", ()))
    details = metrics.get("details")
    if not details:
        return
    for target, errors in details["error_by_horizon"].items():
        lines = {model: np.array(values, dtype=np.float64) for model, values in errors.items()}
        figure = charts.error_by_horizon(lines, "mean |error|", target)
        page.figure(to_svg(figure), f"{target}: mean absolute error by step ahead")
    for target, coverage in details["calibration"].items():
        figure = charts.calibration(details["levels"], coverage, target)
        page.figure(to_svg(figure), f"{target}: share of values below each quantile")


def add_fans(page: Page, fans: Sequence[Fan], heading: str, caption: str) -> None:
    """Fan charts under a heading of their own."""
    if not fans:
        return
    page.heading(heading)
    for fan in fans:
        page.figure(to_svg(fan_charts([fan])), f"{fan.title}: {caption}")


def make_report(title: str, fitted: Fitted, run: RunFolder) -> Page:
    """The report of one run folder, whose trained part has been read."""
    page = Page(title)
    add_fans(
        page, next_fans(fitted, fitted.states), "Forecast", "what comes after the training data"
    )
    parts.add_metrics(page, run, "forecast", add_evaluation)
    add_training(page, fitted, read_log(run.log_path))
    return page


def run_report(run: RunFolder, gradients: bool = False) -> Page:
    """The report of a run folder, from its files alone; gradients adds how they flowed back.

    Raises: RunError for files that are damaged, and for gradients that were not measured.
    """
    fitted, _ = Fitted.load(run)
    measured = read_gradients(run.gradients_path) if gradients else []
    page = make_report(f"Forecast: {run.path.name}", fitted, run)
    if measured:
        add_gradients(page, measured)
    return page


def prediction_figure(forecaster: Forecaster, data: Any = None) -> Any:
    """One picture of the forecasts after the last rows of `data`, or of the training table."""
    fitted = forecaster.fitted
    if data is None:
        return fan_charts(next_fans(fitted, fitted.states))
    table = forecaster.read(data)
    return fan_charts(table_fans(fitted, table))


def table_fans(fitted: Fitted, table: SeriesSet) -> list[Fan]:
    """What comes after the last row of the first few series of a table, and their targets."""
    targets = len(fitted.schema.target)
    shown = table.series[: -(-MAX_CHARTS // targets)]
    row = np.array([len(one.target) - 1 for one in shown])
    quantiles = fitted.quantiles(shown, np.arange(len(shown)), row)
    horizon = fitted.settings.horizon
    fans = []
    for n, one in enumerate(shown):
        first = max(0, len(one.target) - HISTORY_HORIZONS * horizon)
        index = one.start + np.arange(first, len(one.target) + horizon, dtype=np.int64)
        for k, target in enumerate(fitted.schema.target):
            fans.append(
                Fan(
                    title=f"{one.name}: {target}" if one.name else target,
                    times=table.frequency.times(index),
                    history=one.target[first:, k],
                    levels=fitted.settings.quantile_levels,
                    quantiles=quantiles[n, k],
                )
            )
    return fans[:MAX_CHARTS]
