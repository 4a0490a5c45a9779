"""How good scores and alarms are, against labelled rows. No point adjustment, here or anywhere.

    event_f1     2 R P / (R + P), R: share of anomalies with an alarm inside, P: share of alarmed
                 rows inside anomalies
    range_f1     the same of range-based recall and precision
    vus_pr       volume under the precision-recall surface over widths of tolerance around anomalies

`event_f1` is that of TSB-AD ("Event-based-F1" with given predictions), `range_f1` that of Tatbul et
al. with flat bias, reciprocal cardinality and α = ½, `vus_pr` and `vus_roc` those of TSB-AD.

Source: Paparrizos et al. 2022, "Volume Under the Surface"; Liu, Paparrizos 2024, "The Elephant in
the Room" (TSB-AD); Tatbul et al. 2018, "Precision and Recall for Time Series".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recurra.errors import DataError

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.int64]


def intervals(flags: Flags) -> Whole:
    """First and last row of each run of True, (N, 2).

    >>> intervals(np.array([True, False, True, True])).tolist()
    [[0, 0], [2, 3]]
    """
    edges = np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]]))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1], axis=1)


@dataclass(frozen=True)
class AlarmScores:
    """What alarms are worth: see `score_alarms`."""

    event_f1: float
    event_recall: float
    precision: float
    range_f1: float
    range_recall: float
    range_precision: float
    delay: float
    false_alarms: float

    def metrics(self) -> dict[str, float]:
        """All of them by name; `delay` in rows, `false_alarms` per thousand normal rows."""
        return dict(vars(self))


def score_alarms(labels: Flags, alarms: Flags) -> AlarmScores:
    """Scores of alarms (n,) against labels (n,).

    `delay` is the mean number of rows from the start of an anomaly to its first alarm, over those
    that have one; `false_alarms` counts runs of alarms outside anomalies for each thousand normal
    rows. Without any alarm, precisions are 0 and the delay is NaN.

    Raises: DataError without a labelled anomaly, or for arrays of different length.
    """
    labels, alarms = _checked(labels, alarms)
    true, raised = intervals(labels), intervals(alarms)
    first = [np.flatnonzero(alarms[start : end + 1]) for start, end in true]
    delays = [int(rows[0]) for rows in first if len(rows)]
    recall = len(delays) / len(true)
    precision = float((labels & alarms).sum() / alarms.sum()) if len(raised) else 0.0
    range_recall = float(
        np.mean([0.5 * (_overlaps(one, raised).any() + _reward(one, raised)) for one in true])
    )
    range_precision = float(np.mean([_reward(one, true) for one in raised])) if len(raised) else 0.0
    outside = [one for one in raised if not labels[one[0] : one[1] + 1].any()]
    return AlarmScores(
        event_f1=_harmonic(recall, precision),
        event_recall=recall,
        precision=precision,
        range_f1=_harmonic(range_recall, range_precision),
        range_recall=range_recall,
        range_precision=range_precision,
        delay=float(np.mean(delays)) if delays else float("nan"),
        false_alarms=1000.0 * len(outside) / max(int((~labels).sum()), 1),
    )


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def _overlaps(one: Whole, others: Whole) -> Flags:
    return np.asarray((others[:, 0] <= one[1]) & (others[:, 1] >= one[0]), dtype=bool)


def _reward(one: Whole, others: Whole) -> float:
    """Share of the rows of `one` that others cover, divided by how many do."""
    met = others[_overlaps(one, others)]
    covered = np.minimum(met[:, 1], one[1]) - np.maximum(met[:, 0], one[0]) + 1
    return float(covered.sum() / (one[1] - one[0] + 1) / max(len(met), 1))


def vus(labels: Flags, scores: Array, window: int = 100, thresholds: int = 250) -> dict[str, float]:
    """{"vus_pr", "vus_roc"} of scores (n,), high = strange, averaged over widths 0 … window.

    At width w the label falls off as √(1 − distance/w) for w/2 rows on both sides of an anomaly.
    Precision and recall are taken at `thresholds` ranks of the scores.

    Raises: DataError without a labelled anomaly, or for a score that is not a number.
    """
    labels, _ = _checked(labels, labels)
    scores = np.asarray(scores, np.float64)
    if scores.shape != labels.shape or not np.isfinite(scores).all():
        raise DataError(
            f"scores have shape {scores.shape} and {int((~np.isfinite(scores)).sum())} values that "
            f"are not finite; expected one number for each of the {len(labels)} labels."
        )
    runs, count = intervals(labels), len(labels)
    ordered = -np.sort(-scores)
    level = ordered[np.linspace(0, count - 1, thresholds).astype(int)]
    flagged = np.searchsorted(-ordered, -level, side="right")  # rows at or above each threshold
    # The first threshold at which a row is flagged.
    first = np.searchsorted(-level, -scores, side="left")
    inside = np.bincount(first[labels], minlength=thresholds + 1)[:thresholds].cumsum()
    areas = np.zeros((window + 1, 2))
    for width in range(window + 1):
        around, weight = _fringe(labels, runs, width)
        soft = np.bincount(first[around], weights=weight, minlength=thresholds + 1)
        soft = soft[:thresholds].cumsum()
        joined = _joined(runs, width, count)
        begins = [first[a : b + 1].min() for a, b in joined]
        found = np.bincount(begins, minlength=thresholds + 1)[:thresholds].cumsum() / len(joined)
        positive = inside + soft
        total = (labels.sum() + labels.sum() + soft) / 2
        recall = np.minimum(positive / total, 1.0) * found
        precision = positive / flagged
        false_rate = (flagged - positive) / (count - total)
        recall = np.concatenate([[0.0], recall, [1.0]])
        false_rate = np.concatenate([[0.0], false_rate, [1.0]])
        areas[width] = (
            np.dot(np.diff(recall[:-1]), precision),
            np.dot(np.diff(false_rate), (recall[1:] + recall[:-1]) / 2),
        )
    return dict(zip(("vus_pr", "vus_roc"), areas.mean(axis=0).tolist(), strict=True))


def _fringe(labels: Flags, runs: Whole, width: int) -> tuple[Whole, Array]:
    """Normal rows within width/2 of an anomaly, and how far they count as one."""
    soft = np.zeros(len(labels))
    for start, end in runs:
        after = np.arange(end + 1, min(end + width // 2 + 1, len(labels)))
        before = np.arange(max(start - width // 2, 0), start)
        if len(after):
            soft[after] += np.sqrt(1 - (after - end) / width)
        if len(before):
            soft[before] += np.sqrt(1 - (start - before) / width)
    around = np.flatnonzero((soft > 0) & ~labels)
    return around, np.minimum(soft[around], 1.0)


def _joined(runs: Whole, width: int, count: int) -> list[tuple[int, int]]:
    """The anomalies widened by width/2, those that touch taken together."""
    half = width // 2
    joined = [(max(int(runs[0, 0]) - half, 0), int(runs[0, 1]) + half)]
    for start, end in runs[1:].tolist():
        if joined[-1][1] < start - half:
            joined.append((start - half, end + half))
        else:
            joined[-1] = (joined[-1][0], end + half)
    return [(start, min(end, count - 1)) for start, end in joined]


def _checked(labels: Flags, alarms: Flags) -> tuple[Flags, Flags]:
    labels, alarms = np.asarray(labels, bool), np.asarray(alarms, bool)
    if labels.shape != alarms.shape or labels.ndim != 1:
        raise DataError(
            f"labels have shape {labels.shape} and alarms {alarms.shape}; expected one of each for "
            "every row."
        )
    if not labels.any() or labels.all():
        raise DataError(
            f"{int(labels.sum())} of {len(labels)} rows are labelled as anomalies; scores need "
            "some rows of both kinds. Check the column of labels."
        )
    return labels, alarms
