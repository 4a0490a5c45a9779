from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recurra.tasks.anomaly.nab import NabFile
from recurra.tasks.anomaly.nab_trial import NabTrials, Trial, scores


@pytest.fixture(scope="module")
def trials() -> NabTrials:
    """Three short files in two folders, each with a shift in a labelled window."""
    files = []
    for n, name in enumerate(("a/x.csv", "a/y.csv", "b/z.csv")):
        rows = 260 + 40 * n
        values = np.random.default_rng(n).normal(size=rows)
        values[150:170] += 12
        times = np.datetime64("2024-01-01", "ns") + np.arange(rows) * np.timedelta64(5, "m")
        files.append(NabFile(name, times, values, ((145, 175),)))
    return NabTrials(files)


def test_the_default_trial_is_what_the_watch_says(trials: NabTrials) -> None:
    """Tried on kept quantities or watched: the same surprises, and alarms found in the windows."""
    from recurra.tasks.anomaly.detector import AnomalyDetector

    file = trials.files[0]
    import polars as pl

    table = pl.DataFrame({"time": file.times, "value": file.values})
    answers = AnomalyDetector().fit(table).predict(table)
    surprise = trials.surprises(Trial())[0]
    assert surprise.tolist() == answers["surprise"].to_list()
    alarms = trials.detections(Trial(refractory=100), [surprise] * 3)[0] > 0
    assert alarms.tolist() == answers["alarm"].to_list()
    assert alarms[150:153].any()


def test_sums_of_parts_are_the_scorer_s_scores(trials: NabTrials) -> None:
    detections = trials.detections(Trial(), trials.surprises(Trial()))
    parts = trials.parts(detections)
    for chosen in ([0, 1, 2], [1], [0, 2]):
        wanted = trials.scorer.at(detections, 1e-9, chosen)
        found = scores(parts[chosen].sum(axis=0), len(chosen))
        for profile, value in wanted.items():
            assert float(found[profile]) == pytest.approx(value, abs=1e-9)


def test_cross_validation_scores_what_was_not_chosen_by(trials: NabTrials) -> None:
    # Two settings: one raises no alarm at all, the other all that there are.
    none = Trial(threshold=99.0)
    found = trials.cross_validated([none, Trial(threshold=1.1)])
    assert set(found) == {"standard", "low_fp", "low_fn"}
    mean, deviation = found["standard"]
    assert 30 < mean < 100
    assert deviation > 0
    assert trials.cross_validated([none])["standard"] == (0.0, 0.0)


def test_thresholds_alone_are_part_of_the_grid(trials: NabTrials) -> None:
    assert set(trials.thresholds()) < set(trials.grid())
    assert {replace(one, threshold=0.0) for one in trials.thresholds()} == {Trial(threshold=0.0)}
