"""The demonstration: real weather and real stock prices, held against naive forecasts."""

from __future__ import annotations

import importlib.util
import time as clock
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.errors import MissingExtraError
from recurra.report.page import Page
from recurra.runs import RunFolder, read_json, write_json
from recurra.tasks.forecasting.evaluation import OURS
from recurra.tasks.forecasting.forecaster import Forecaster
from recurra.tasks.forecasting.outcome import evaluation_outcome
from recurra.tasks.forecasting.report import (
    add_evaluation,
    add_fans,
    add_training,
    last_window_fans,
    make_report,
)
from recurra.training.log import read_log


@dataclass(frozen=True)
class Example:
    """One table of the demonstration, and how it is forecast."""

    name: str
    about: str
    file: str
    horizon: int
    until: str
    steps: int
    columns: dict[str, Any]
    claim: bool


EXAMPLES = (
    Example(
        name="weather",
        about="Daily weather in Seattle, two weeks ahead: trained on 2012 to 2014, scored on 2015.",
        file="seattle_weather",
        horizon=14,
        until="2014-12-31",
        steps=300,
        columns={"time": "date", "target": ("temp_max", "temp_min", "precipitation", "wind")},
        claim=True,
    ),
    Example(
        name="stocks",
        about="Monthly stock prices of five companies, half a year ahead: trained up to 2007, "
        "scored on 2008 to 2010. Prices should not be expected to be forecast: the last one is as "
        "good a guess as any.",
        file="stocks",
        horizon=6,
        until="2007-12-01",
        steps=300,
        columns={"time": "date", "target": "price", "series": "symbol"},
        claim=False,
    ),
)


def run_demo(folder: Path, *, progress: bool = True) -> list[dict[str, Any]]:
    """Train, evaluate and report both examples; return one outcome each, verdicts included.

    Writes FOLDER/report.html and a run folder per example; a demonstration that is there already is
    replaced. Raises: MissingExtraError without the package that brings the data.
    """
    if importlib.util.find_spec("vega_datasets") is None:
        raise MissingExtraError("vega_datasets", "demo", "The demonstration's data")
    from vega_datasets import data

    page = Page("recurra: weather and stock prices")
    page.text(
        "Each model is trained once, on the first years, and scored on the last ones: windows "
        "side by side, every one counted. Below 1, MASE is better than last season repeated in "
        "the training years."
    )
    outcomes = []
    for example in EXAMPLES:
        path = Path(getattr(data, example.file).filepath)
        outcomes.append(run_example(example, path, folder / example.name, page, progress))
    page.write(folder / "report.html")
    return outcomes


def run_example(
    example: Example, table: Path, folder: Path, page: Page, progress: bool
) -> dict[str, Any]:
    """One example: its run folder, its part of the page, its outcome."""
    started = clock.monotonic()
    forecaster = Forecaster(horizon=example.horizon, steps=example.steps, progress=progress)
    forecaster.fit(table, **example.columns, until=example.until, out=folder, force=True)
    evaluation = forecaster.evaluate(table)
    outcome = evaluation_outcome(evaluation, example.name, clock.monotonic() - started)
    outcome["verdicts"] = [
        verdict(name, results, example.claim)
        for name, results in _by_target(outcome, evaluation.target)
    ]
    run = RunFolder(folder)
    write_json(run.metrics_path, {**outcome, "details": evaluation.details()})
    metrics = read_json(run.metrics_path)
    make_report(f"Forecast: {example.name}", forecaster.fitted, run).write(run.report_path)
    page.heading(example.name.capitalize()).text(example.about)
    for line in outcome["verdicts"]:
        page.text(line)
    fans = last_window_fans(evaluation, forecaster.read(table))
    add_fans(page, fans, "The last window", "forecast and what happened")
    add_evaluation(page, metrics)
    add_training(page, forecaster.fitted, read_log(run.log_path))
    return outcome


def _by_target(outcome: dict[str, Any], target: tuple[str, ...]) -> list[tuple[str, Any]]:
    return list(outcome.get("targets", {target[0]: outcome["results"]}).items())


def verdict(target: str, results: list[dict[str, Any]], claim: bool) -> str:
    """In words: whether ours beats the better of naive and seasonal naive in MASE, and by how much.

    `claim` False says what the naive forecast gets, whichever is ahead.
    """
    mase = {row["model"]: row["metrics"]["mase"] for row in results}
    rivals = {name: mase[name] for name in ("seasonal_naive", "naive") if name in mase}
    best = min(rivals, key=lambda name: rivals[name])
    change = 100 * (mase[OURS] / rivals[best] - 1)
    others = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in rivals.items())
    numbers = f"MASE {mase[OURS]:.3f}; {others}"
    if not claim:
        return (
            f"{target}: no claim to beat the naive forecast, which repeats the last price. "
            f"{numbers} ({change:+.0f} % here, over few windows)."
        )
    if change < 0:
        beaten = " and ".join(name.replace("_", " ") for name in rivals)
        return f"{target}: beats {beaten}. {numbers} ({change:+.0f} %)."
    return f"{target}: does not beat {best.replace('_', ' ')}. {numbers} ({change:+.0f} %)."
