"""The detector's report: what it watched, the alarms it raised, and what it scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recurra.data.calendar import format_time
from recurra.errors import RunError
from recurra.report.drawing import to_svg
from recurra.report.page import Page
from recurra.report.parts import add_notes, add_scores
from recurra.report.series_charts import Watch, watch_charts
from recurra.runs import RunFolder, read_json
from recurra.tasks.anomaly.fitted import Fitted, Trace, make_trace
from recurra.tasks.anomaly.table import Watched
from recurra.tasks.anomaly.watch import Rows

MAX_CHARTS = 8
MAX_ALARMS = 40


def watched_charts(fitted: Fitted, traces: Sequence[Trace]) -> list[Watch]:
    """One chart for each series and channel, the first few."""
    made = []
    for trace in traces:
        for k, channel in enumerate(fitted.columns.value):
            made.append(
                Watch(
                    title=f"{trace.name}: {channel}" if trace.name else channel,
                    times=trace.times,
                    values=trace.values[:, k],
                    lower=trace.rows.lower[:, k],
                    upper=trace.rows.upper[:, k],
                    surprise=trace.rows.surprise,
                    alarms=trace.rows.alarm,
                    threshold=fitted.threshold,
                )
            )
            if len(made) == MAX_CHARTS:
                return made
    return made


def answer_figure(fitted: Fitted, series: Sequence[Watched], answers: Sequence[Rows]) -> Any:
    """One picture of the first few series with their intervals and alarms."""
    traces = [
        make_trace(one, rows, len(one))
        for one, rows in zip(series[:MAX_CHARTS], answers[:MAX_CHARTS], strict=True)
    ]
    return watch_charts(watched_charts(fitted, traces))


def make_report(title: str, fitted: Fitted, metrics: dict[str, Any] | None) -> Page:
    """The page of one run; `metrics` is what `evaluate` left."""
    page = Page(title)
    done = fitted.training
    page.text(
        f"{done['rows']} rows of {done['series']} series were watched in {done['seconds']:.1f} s; "
        f"{done['alarms']} alarms at surprise {fitted.threshold:.3g} (-log10 of how likely a row "
        "is, given all rows before it)."
    )
    add_notes(page, fitted.notes)
    if metrics is not None:
        page.heading("Scores on labelled rows")
        add_scores(page, metrics["results"], str(metrics.get("data", "")))
    page.heading("What was watched")
    for chart in watched_charts(fitted, fitted.traces):
        svg = to_svg(watch_charts([chart]))
        page.figure(svg, f"{chart.title}: values, interval, alarms, and the surprise of each row")
    _add_alarms(page, fitted)
    return page


def _add_alarms(page: Page, fitted: Fitted) -> None:
    """The last alarms, newest first."""
    rows = []
    for trace in fitted.traces:
        for at in trace.rows.alarm.nonzero()[0].tolist():
            channel = int(trace.rows.share[at].argmax())
            rows.append(
                [
                    format_time(trace.times[at]),
                    trace.name,
                    fitted.columns.value[channel],
                    float(trace.values[at, channel]),
                    float(trace.rows.expected[at, channel]),
                    float(trace.rows.surprise[at]),
                ]
            )
    if rows:
        rows.sort(key=lambda row: str(row[0]), reverse=True)
        page.heading("Alarms")
        page.table(
            ["time", "series", "channel", "value", "expected", "surprise"],
            rows[:MAX_ALARMS],
            caption=f"the last {min(len(rows), MAX_ALARMS)} of {len(rows)}",
        )


def run_report(run: RunFolder, *, gradients: bool = False) -> Page:
    """The report of a run folder.

    Raises: RunError when the run is damaged, or for `gradients`, of which a detector has none.
    """
    if gradients:
        raise RunError(f"{run.path} holds a detector of anomalies; it has no gradients to draw.")
    fitted = Fitted.load(run)
    metrics = None
    if run.metrics_path.exists():
        metrics = read_json(run.metrics_path)
        if not isinstance(metrics, dict) or not isinstance(metrics.get("results"), list):
            raise RunError(
                f"{run.metrics_path} has no results. Run `recurra anomaly evaluate` again, or "
                "remove it."
            )
    return make_report(f"Anomalies: {run.path.name}", fitted, metrics)
