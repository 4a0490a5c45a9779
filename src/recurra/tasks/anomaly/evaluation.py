"""Scores of a detector on labelled rows, next to the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recurra.errors import DataError
from recurra.report.results import make_outcome, make_result
from recurra.tasks.anomaly.baselines import BASELINES, filled, own_alarms
from recurra.tasks.anomaly.fitted import TASK, Fitted
from recurra.tasks.anomaly.lanes import Array, Flags
from recurra.tasks.anomaly.metrics import score_alarms, vus
from recurra.tasks.anomaly.table import Watched

OURS = "recurra"
FIRST_PART = 0.15
"""Share of a series that the baselines learn from where training did not see it."""
METRICS = ("vus_pr", "event_f1", "range_f1", "event_recall", "precision", "delay", "false_alarms")


@dataclass(frozen=True)
class Scored:
    """One model's scores and alarms on the labelled rows of one series."""

    labels: Flags
    scores: Array
    alarms: Flags

    def metrics(self) -> dict[str, float]:
        found = {
            **vus(self.labels, self.scores),
            **score_alarms(self.labels, self.alarms).metrics(),
        }
        return {name: found[name] for name in METRICS}


@dataclass(frozen=True)
class Evaluation:
    """Metrics of each model, means over series; `skipped` series have labels of one kind only."""

    models: dict[str, dict[str, float]]
    rows: int
    anomalies: int
    series: int
    skipped: tuple[str, ...] = ()

    def results(self) -> list[dict[str, Any]]:
        """One row for each model, ours first."""
        return [make_result(model, metrics) for model, metrics in self.models.items()]

    def outcome(self, data: str, seconds: float) -> dict[str, Any]:
        """What `evaluate` prints and keeps: the outcome of all tasks."""
        text = f"{data}: {self.series} series, {self.rows} rows, {self.anomalies} labelled"
        outcome = make_outcome(TASK, text, self.results(), seconds)
        outcome["notes"] = [
            f"series without labels of both kinds are left out: {', '.join(self.skipped)}"
        ] * bool(self.skipped)
        return outcome


def evaluate(fitted: Fitted, series: Sequence[Watched]) -> Evaluation:
    """Watch the series and score their rows after training; see `AnomalyDetector.evaluate`."""
    answers = fitted.answer(series)
    found: dict[str, list[dict[str, float]]] = {}
    rows = anomalies = 0
    skipped = []
    for one, answer in zip(series, answers, strict=True):
        assert one.labels is not None
        first, learned = first_scored(fitted, one)
        labels = one.labels[first:]
        if not labels.any() or labels.all():
            skipped.append(one.name or "the series")
            continue
        rows, anomalies = rows + len(labels), anomalies + int(labels.sum())
        surprise = np.nan_to_num(answer.surprise[first:], nan=0.0)
        scored = {OURS: Scored(labels, surprise, answer.alarm[first:])}
        values = filled(one.values)
        for name, baseline in BASELINES.items():
            scores = baseline(values, learned)
            scored[name] = Scored(labels, scores[first:], own_alarms(scores, learned)[first:])
        for name, part in scored.items():
            found.setdefault(name, []).append(part.metrics())
    if not found:
        raise DataError(
            "no series has labels of both kinds in the rows after training; scores need some "
            "normal rows and some anomalies there. Train with --until an earlier time, or check "
            "the column of labels."
        )
    return Evaluation(
        {name: mean_metrics(parts) for name, parts in found.items()},
        rows,
        anomalies,
        len(found[OURS]),
        tuple(skipped),
    )


def first_scored(fitted: Fitted, one: Watched) -> tuple[int, int]:
    """The first row after training, and how many rows the baselines may learn from."""
    after = 0
    if one.name in fitted.names:
        late = one.times.astype(np.int64) > fitted.last[fitted.names.index(one.name)]
        after = int(np.flatnonzero(late)[0]) if late.any() else len(one)
    return after, after or max(int(FIRST_PART * len(one)), min(len(one), 2))


def mean_metrics(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric; a delay that is not a number counts in none."""
    names = parts[0]
    columns = {name: np.array([part[name] for part in parts]) for name in names}
    return {
        name: float(np.mean(values[np.isfinite(values)]))
        if np.isfinite(values).any()
        else float("nan")
        for name, values in columns.items()
    }
