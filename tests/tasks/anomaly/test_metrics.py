from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recurra.errors import DataError
from recurra.tasks.anomaly.metrics import intervals, score_alarms, vus

ORACLES: dict[str, Any] = json.loads((Path(__file__).parent / "oracles.json").read_text())


@pytest.mark.parametrize("number", range(len(ORACLES["cases"])))
def test_metrics_equal_those_of_tsb_ad_and_dtaianomaly(number: int) -> None:
    case = ORACLES["cases"][number]
    labels, scores, alarms = (np.array(case[key]) for key in ("labels", "scores", "alarms"))
    ours = {
        **vus(labels > 0, scores, ORACLES["window"]),
        **score_alarms(labels > 0, alarms > 0).metrics(),
    }
    assert len(case["outputs"]) >= 7
    for name, value in case["outputs"].items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def test_intervals_at_both_ends() -> None:
    flags = np.array([True, True, False, True])
    assert intervals(flags).tolist() == [[0, 1], [3, 3]]
    assert intervals(np.zeros(3, bool)).tolist() == []


def test_delay_and_false_alarms_are_counted_by_hand() -> None:
    labels = np.zeros(2010, bool)
    labels[100:110] = True
    alarms = np.zeros(2010, bool)
    alarms[[104, 106, 500, 501, 900]] = True
    scores = score_alarms(labels, alarms)
    assert scores.delay == 4
    assert scores.false_alarms == 1.0  # two runs in 2,000 normal rows
    assert scores.precision == 2 / 5
    assert scores.event_recall == 1


def test_without_alarms_nothing_is_found() -> None:
    labels = np.array([False, True, False])
    scores = score_alarms(labels, np.zeros(3, bool))
    assert (scores.event_f1, scores.range_f1, scores.false_alarms) == (0, 0, 0)
    assert np.isnan(scores.delay)


def test_marking_a_whole_anomaly_afterwards_gains_nothing() -> None:
    """Point adjustment would turn one right row into forty."""
    labels = np.zeros(400, bool)
    labels[100:140] = True
    alarms = np.zeros(400, bool)
    alarms[120] = True
    alarms[200:239] = True
    assert score_alarms(labels, alarms).precision == 1 / 40


@pytest.mark.parametrize("count", [0, 5])
def test_labels_of_one_kind_are_refused(count: int) -> None:
    labels = np.arange(5) < count
    with pytest.raises(DataError, match=f"{count} of 5 rows are labelled"):
        score_alarms(labels, labels)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="1 values that are not finite"):
        vus(np.array([True, False]), np.array([np.nan, 1.0]))
