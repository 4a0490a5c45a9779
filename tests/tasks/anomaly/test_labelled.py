from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recurra.errors import DataError
from recurra.tasks.anomaly.labelled import Labelled, read_smap_msl, read_smd, read_ucr
from recurra.tasks.anomaly.reproduce import watch_labelled

Find = Callable[[str], Path]


def test_smd_is_the_published_one(data_file: Find) -> None:
    data_file("anomaly/smd/test_label/machine-3-2.txt")
    series = read_smd()
    assert [one.name for one in series][:2] == ["machine-1-3", "machine-1-6"]
    assert {one.train.shape[1] for one in series} == {38}
    assert [int(one.labels.sum()) for one in series] == [817, 3708, 1170, 2833, 1109]


def test_smap_and_msl_have_81_channels(data_file: Find) -> None:
    data_file("anomaly/smap_msl/test.tar.xz")
    series = read_smap_msl()
    assert len(series) == 81
    assert {one.train.shape[1] for one in series} == {1}
    p1 = next(one for one in series if one.name == "P-1")
    assert len(p1.test) == 8505
    assert np.flatnonzero(p1.labels)[[0, -1]].tolist() == [2149, 4844]


def test_ucr_names_hold_the_anomaly(data_file: Find) -> None:
    data_file("anomaly/ucr/135_UCR_Anomaly_InternalBleeding16_1200_4187_4199.txt.xz")
    first = read_ucr()[0]
    assert len(first.train) == 1200
    assert (np.flatnonzero(first.labels) + 1200 + 1).tolist() == list(range(4187, 4200))


def test_labels_must_fit_the_rows() -> None:
    with pytest.raises(DataError, match=r"x: train has the shape \(5, 2\), test \(4, 2\)"):
        Labelled("x", np.zeros((5, 2)), np.zeros((4, 2)), np.zeros(3, bool))


def test_the_segment_head_stays_surprised_as_long_as_it_lasts() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(2500, 3)), rng.normal(size=(400, 3))
    labels = np.zeros(400, bool)
    labels[200:300] = True
    test[labels, 1] += 8.0
    (scored,) = watch_labelled([Labelled("x", train, test, labels)], "segment")
    found = scored.metrics()
    assert found["event_recall"] == 1
    assert found["vus_pr"] > 0.9
    assert scored.alarms[210:300].all()  # not only when it begins
    assert scored.alarms[:200].mean() < 0.05
