"""Streaming equals batch, in constant memory, whatever comes down the line."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, several

from recurra import Forecaster
from recurra.errors import DataError
from recurra.tasks.forecasting.stream import MOST_WAITING

COVARIATES = {"past": ("price", "sky"), "future": ("promo",), "static": ("size",)}


def medians(answer: dict[str, Any], target: str = "target") -> np.ndarray:
    return np.array(answer["forecast"][target]["q0.5"])


def batch(forecaster: Forecaster, frame: pl.DataFrame, target: str = "target") -> np.ndarray:
    made = forecaster.predict(frame)
    return made.filter(pl.col("target") == target)["q0.5"].to_numpy()


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize(("stride", "season", "layers"), [(1, 1, 1), (3, 7, 2), (2, 40, 1)])
def test_stream_equals_batch_at_every_row(cell: str, stride: int, season: int, layers: int) -> None:
    frame = several((70,))
    forecaster = fitted_on(
        frame.head(50), cell=cell, stride=stride, season=season, context=10, num_layers=layers
    )
    stream = forecaster.stream()
    for row in range(50, 70):
        answer = stream.push(frame.row(row, named=True))
        assert medians(answer) == pytest.approx(batch(forecaster, frame.head(row + 1)), rel=1e-5)


@pytest.mark.parametrize("inputs", [{}, {"profile": 4}, {"smoothing": True}])
def test_stream_of_a_new_series_equals_batch_from_its_first_row(inputs: dict[str, Any]) -> None:
    frame = several((60, 60))
    old = frame.filter(pl.col("series") == "s0")
    forecaster = fitted_on(old, context=8, stride=2, season=3, **inputs)
    fresh = frame.filter(pl.col("series") == "s1")
    stream = forecaster.stream()
    for row in range(20):
        answer = stream.push(fresh.row(row, named=True))
        assert medians(answer) == pytest.approx(batch(forecaster, fresh.head(row + 1)), rel=1e-5)


def test_stream_with_covariates_and_two_targets_equals_batch() -> None:
    frame = several((60,))
    forecaster = Forecaster(horizon=3, **QUICK, context=8)
    forecaster.fit(frame.head(40), target=("target", "other"), **COVARIATES)
    stream = forecaster.stream()
    rows = frame.to_dicts()
    for row in range(40, 57):
        answer = stream.push({**rows[row], "future": rows[row + 1 : row + 4]})
        known = frame.head(row + 4).with_columns(
            pl.when(pl.arange(row + 4) <= row).then(pl.col(name)).alias(name)
            for name in ("target", "other")
        )
        for target in ("target", "other"):
            wanted = batch(forecaster, known, target)
            assert medians(answer, target) == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_missing_values_and_gaps_equal_batch() -> None:
    frame = several((60,)).with_columns(
        target=pl.when(pl.arange(60) % 7 != 3).then(pl.col("target"))
    )
    frame = frame.filter(~pl.arange(60).is_between(50, 52))
    forecaster = fitted_on(frame.head(40), context=8, stride=2)
    stream = forecaster.stream()
    for row in range(40, len(frame)):
        answer = stream.push(frame.row(row, named=True))
        assert medians(answer) == pytest.approx(batch(forecaster, frame.head(row + 1)), rel=1e-5)


def test_stream_after_save_and_load_goes_on_to_the_same_bits(tmp_path: Any) -> None:
    frame = several((60,))
    forecaster = fitted_on(frame.head(50), context=8)
    forecaster.save(tmp_path / "run")
    again = Forecaster.load(tmp_path / "run").stream()
    first = forecaster.stream()
    for row in range(50, 55):
        event = frame.row(row, named=True)
        assert first.push(event) == again.push(event)


def test_two_streams_never_touch() -> None:
    frame = several((60, 60))
    forecaster = fitted_on(frame, context=8)
    alone, mixed = forecaster.stream(), forecaster.stream()
    events = [
        {"series": "s0", "time": f"2020-03-{day:02}", "target": 9.0 + day} for day in (1, 2, 3)
    ]
    others = [{"series": "s1", "time": f"2020-03-{day:02}", "target": 900.0} for day in (2, 3, 4)]
    wanted = [alone.push(event) for event in events]
    made = []
    for event, other in zip(events, others, strict=True):
        made.append(mixed.push(event))
        mixed.push(other)
    assert made == wanted


def test_missing_text_covariate_is_carried_on_as_in_batch() -> None:
    frame = several((60,)).with_columns(
        sky=pl.when((pl.arange(60) < 40) | (pl.arange(60) % 3 != 0)).then(pl.col("sky"))
    )
    forecaster = Forecaster(horizon=3, **{**QUICK, "steps": 60}, context=8)
    forecaster.fit(frame.head(40), past="sky")
    stream = forecaster.stream()
    for row in range(40, 50):
        answer = stream.push(frame.row(row, named=True))
        assert medians(answer) == pytest.approx(batch(forecaster, frame.head(row + 1)), rel=1e-6)


def test_covariate_unknown_at_first_equals_batch() -> None:
    frame = several((60, 60))
    forecaster = Forecaster(horizon=3, **{**QUICK, "steps": 60}, context=8)
    forecaster.fit(frame.filter(pl.col("series") == "s0"), past="price")
    fresh = frame.filter(pl.col("series") == "s1").with_columns(
        price=pl.when(pl.arange(60) > 3).then(pl.col("price"))
    )
    stream = forecaster.stream()
    for row in range(8):
        answer = stream.push(fresh.row(row, named=True))
        wanted = batch(forecaster, fresh.head(row + 1).with_columns(pl.col("price").cast(float)))
        assert medians(answer) == pytest.approx(wanted, rel=1e-4)


def test_target_that_begins_later_equals_batch_and_does_not_look_ahead() -> None:
    whole = several((80,))
    frame = whole.with_columns(other=pl.when(pl.arange(80) >= 60).then(pl.col("other")))
    forecaster = Forecaster(horizon=3, season=30, context=8, **{**QUICK, "steps": 60})
    forecaster.fit(whole, target=("target", "other"))
    stream = forecaster.stream(frame.head(50))
    table = forecaster.read(frame)
    for row in range(50, 70):
        answer = stream.push(frame.row(row, named=True))
        inside = forecaster.fitted.quantiles(table.series, np.array([0]), np.array([row]))
        for k, target in enumerate(("target", "other")):
            wanted = batch(forecaster, frame.head(row + 1), target)
            assert medians(answer, target) == pytest.approx(wanted, rel=1e-5, abs=1e-5)
            assert inside[0, k, :, 4] == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_state_is_a_value_that_a_stream_can_be_put_back_to() -> None:
    frame = several((60,))
    stream = fitted_on(frame.head(50), context=8).stream()
    before = stream.state
    events = [frame.row(row, named=True) for row in range(50, 54)]
    first = [stream.push(event) for event in events]
    stream.restore(before)
    assert [stream.push(event) for event in events] == first


def test_state_does_not_grow() -> None:
    forecaster = fitted_on(ramp(60), context=8)
    stream = forecaster.stream()
    sizes = set()
    for k, day in enumerate(days(40, "2020-03-01")):
        stream.push({"time": str(day), "target": 160.0 + k})
        state = stream._states[""]
        sizes.add((state.tail.shape, state.past.shape, state.recurrent[0].shape))
    assert len(sizes) == 1


def test_refused_event_leaves_the_stream_as_it_was() -> None:
    frame = ramp(60)
    forecaster = fitted_on(frame.head(50), context=8)
    stream, other = forecaster.stream(), forecaster.stream()
    good = {"time": "2020-02-20", "target": 150.0}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"time": "2020-02-19", "target": 1.0}, "not after its last one, 2020-02-19"),
        ({"time": "2020-02-20 06:00", "target": 1.0}, "not on the grid of 1 day"),
        ({"time": "2020-02-20"}, "no 'target'"),
        ({"target": 1.0}, "no 'time'"),
        ({"time": "2020-02-20", "target": "many"}, "'many'; expected a finite number"),
        ({"time": "2020-02-20", "target": float("inf")}, "inf; expected a finite number"),
        ({"time": "2120-02-20", "target": 1.0}, "expected at most 10000"),
        ({"time": "yesterday", "target": 1.0}, "yesterday"),
        ({"time": "2020-02-20", "target": 10**400}, "expected a finite number"),
        ({"time": "2020-02-20", "target": 1e200}, "expected values up to"),
        ({"time": 10**30, "target": 1.0}, "too large for a time"),
    ]
    for event, words in bad:
        with pytest.raises(DataError, match=words):
            stream.push(event)
    assert stream.push(good) == other.push(good)


def test_missing_future_covariates_are_named() -> None:
    frame = several((60,))
    forecaster = fitted_on(frame, horizon=3, context=8)
    forecaster.fit(frame, future="promo")
    event = {"series": "s0", "time": "2020-03-01", "target": 1.0, "promo": True}
    with pytest.raises(DataError, match="'future' has no rows; expected 3"):
        forecaster.stream().push(event)
    for future in ([1, 2, 3], [{"promo": 1}, {}, None], ["a", "b", "c"]):
        with pytest.raises(DataError, match="something else than objects"):
            forecaster.stream().push({**event, "future": future})
    with pytest.raises(DataError, match="lacks a number for one of promo"):
        forecaster.stream().push({**event, "future": [{}, {}, {}]})


def test_new_series_waits_for_its_first_value() -> None:
    forecaster = fitted_on(several((60,)), context=8)
    stream = forecaster.stream()
    answer = stream.push({"series": "new", "time": "2021-01-01", "target": None})
    assert answer == {"series": "new", "time": "2021-01-01", "forecast": None}
    answer = stream.push({"series": "new", "time": "2021-01-02", "target": 4.0})
    assert np.isfinite(medians(answer)).all()


def test_rows_that_wait_are_read_before_anything_is_answered() -> None:
    frame = several((400,)).with_columns(
        target=pl.when(pl.arange(400) % 11 != 3).then(pl.col("target"))
    )
    frame = frame.filter(~pl.arange(400).is_between(200, 202))
    forecaster = Forecaster(horizon=5, **{**QUICK, "context": 8}).fit(
        frame.head(50), series="series", past="price"
    )
    events = frame.to_dicts()
    stream = forecaster.stream()
    for number, event in enumerate(events[50:], start=51):
        if number in (60, 61, 390):
            answer = medians(stream.push(event))
            assert answer == pytest.approx(batch(forecaster, frame.head(number)), rel=1e-5)
            continue
        stream.update(event)
        if number in (70, 300):
            answer = medians(stream.forecast("s0"))
            assert answer == pytest.approx(batch(forecaster, frame.head(number)), rel=1e-5)
    assert len(stream._waiting) == 1
    assert stream.state["s0"].rows == 400
    assert stream._waiting == {}


def test_rows_that_wait_are_few_and_a_refused_one_is_not_among_them() -> None:
    stream = fitted_on(ramp(60), context=8).stream()
    before = stream.state
    times = days(300, "2020-03-01")
    for k, day in enumerate(times[:200]):
        stream.update({"time": str(day), "target": 160.0 + k})
        assert len(stream._waiting.get("", [])) < MOST_WAITING
    for event, words in (
        ({"time": str(times[199]), "target": 1.0}, "not after its last one"),
        ({"time": str(times[200]), "target": 1e200}, "expected values up to"),
        ({"time": str(times[200])}, "no 'target'"),
    ):
        with pytest.raises(DataError, match=words):
            stream.update(event)
    stream.update({"time": str(times[200]), "target": 360.0})
    assert stream.state[""].rows == 60 + 201
    stream.update({"time": str(times[201]), "target": 361.0})
    stream.restore(before)
    assert stream.state[""] is before[""]
