from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.errors import DataError
from recurra.tasks.anomaly.detector import AnomalyDetector


@pytest.fixture(scope="module")
def detector() -> AnomalyDetector:
    table = pl.DataFrame({"time": np.arange(80), "value": np.random.default_rng(0).normal(size=80)})
    return AnomalyDetector().fit(table)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"value": 1}, "no 'time', its time"),
        ({"time": 80}, "no 'value'"),
        ({"time": 80, "value": True}, "'value' is True; expected a number"),
        ({"time": 80, "value": "5"}, "'value' is '5'; expected a finite number"),
        ({"time": 80, "value": 10**400}, "expected a finite number"),
        ({"time": 80, "value": float("nan")}, "'value' is nan"),
        ({"time": "2024-01-01", "value": 1}, "expected a whole number, as in training"),
        ({"time": 2**70, "value": 1}, "'time' is 1180591620717411303424"),
        ({"time": [1], "value": 1}, "expected text or a whole number"),
    ],
)
def test_a_refused_event_leaves_the_stream_as_it_was(
    detector: AnomalyDetector, event: dict[str, Any], message: str
) -> None:
    touched, plain = detector.stream(), detector.stream()
    with pytest.raises(DataError, match=message):
        touched.push(event)
    good = {"time": 81, "value": 0.5}
    assert touched.push(good) == plain.push(good)


def test_missing_values_are_answered_and_learn_nothing(detector: AnomalyDetector) -> None:
    stream, plain = detector.stream(), detector.stream()
    answer = stream.push({"time": 80, "value": None})
    assert answer["status"] == "missing"
    assert answer["alarm"] is False
    good = {"time": 81, "value": 0.5}
    assert stream.push(good) == plain.push(good)


def test_a_state_can_be_kept_and_gone_back_to(detector: AnomalyDetector) -> None:
    stream = detector.stream()
    stream.push({"time": 80, "value": 3.0})
    kept = stream.state
    first = stream.push({"time": 81, "value": -9.0})
    stream.push({"time": 82, "value": 99.0})
    stream.restore(kept)
    assert stream.push({"time": 81, "value": -9.0}) == first


def test_streams_of_one_detector_do_not_touch(detector: AnomalyDetector) -> None:
    one, other = detector.stream(), detector.stream()
    for _ in range(5):
        one.push({"time": 80, "value": 1e6})
    fresh = detector.stream()
    event = {"time": 80, "value": 0.1}
    assert other.push(event) == fresh.push(event)


def test_new_series_start_from_nothing_and_keep_apart() -> None:
    table = pl.DataFrame(
        {
            "time": np.arange(60),
            "host": ["a"] * 60,
            "value": np.random.default_rng(0).normal(size=60),
        }
    )
    detector = AnomalyDetector().fit(table, series="host")
    stream = detector.stream()
    assert stream.push({"time": 60, "host": "b", "value": 5.0})["status"] == "warming"
    assert stream.push({"time": 60, "host": "a", "value": 0.0})["status"] == "normal"
    with pytest.raises(DataError, match="no 'host', which names the series"):
        stream.push({"time": 61, "value": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=60)
@given(time=JSON, value=JSON)
def test_no_event_crashes_or_poisons_a_stream(time: Any, value: Any) -> None:
    table = pl.DataFrame({"time": np.arange(3), "value": [1.0, 2.0, 1.0]})
    stream = AnomalyDetector().fit(table).stream()
    try:
        stream.push({"time": time, "value": value})
    except DataError:
        assert stream.state == {}
    after = stream.push({"time": 5, "value": 1.5})
    assert np.isfinite(after["surprise"])
