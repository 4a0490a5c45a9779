"""Random tables: the forecast is right, finite and of the right steps, or the error is clear."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tasks.forecasting.tables import days

from recurra import Forecaster
from recurra.errors import RecurraError

TINY: dict[str, Any] = {"steps": 2, "hidden_size": 4, "batch_size": 4, "progress": False}
HORIZON = 3

values = st.one_of(
    st.floats(-1e3, 1e3),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 1e-300, 1e12, -1e12, 1e99, 1e150, float("nan")]),
)
shapes = st.sampled_from(
    ["steady", "constant", "zeros", "counts", "spike", "wild", "mostly missing"]
)


def column(shape: str, rows: int, rng: np.random.Generator, wild: list[float]) -> np.ndarray:
    t = np.arange(rows)
    made = {
        "steady": 10 + 3 * np.sin(t / 7 * 2 * np.pi) + rng.normal(0, 0.1, rows),
        "constant": np.full(rows, 7.5),
        "zeros": np.zeros(rows),
        "counts": rng.poisson(0.4, rows).astype(float),
        "spike": np.where(t == rows // 2, 1e9, 1.0),
        "wild": np.resize(np.array(wild or [1.0]), rows),
        "mostly missing": np.where(rng.random(rows) < 0.9, np.nan, t + 1.0),
    }
    return made[shape]


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    """One to three series of any length with any values; rows shuffled, dropped or repeated."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = []
    for n in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 60))
        wild = draw(st.lists(values, min_size=1, max_size=8))
        target = column(draw(shapes), rows, rng, wild)
        price = column(draw(shapes), rows, rng, wild)
        parts.append(
            pl.DataFrame(
                {"series": [f"s{n}"] * rows, "time": days(rows), "target": target, "price": price}
            )
        )
    frame = pl.concat(parts)
    change = draw(st.sampled_from(["none", "shuffle", "drop", "repeat"]))
    if change == "shuffle":
        frame = frame.sample(fraction=1.0, shuffle=True, seed=1)
    elif change == "drop":
        frame = frame.filter(pl.Series(rng.random(len(frame)) < 0.7))
    elif change == "repeat":
        frame = pl.concat([frame, frame.head(1)])
    return frame


def check_forecast(made: Any, frame: pl.DataFrame) -> None:
    """Every series has the steps after its last row, finite, in order, rising by level."""
    quantiles = made.select(pl.col("^q.*$")).to_numpy()
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    ends = dict(frame.group_by("series").agg(pl.col("time").max()).iter_rows())
    for (name,), part in made.group_by("series"):
        times = part["time"].cast(pl.Date).to_list()
        assert [(time - ends[name]).days for time in times] == [1, 2, 3]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    frame=frames(),
    past=st.booleans(),
    design=st.sampled_from(["plain", "counts", "segments", "autoregressive"]),
)
def test_forecasts_are_finite_or_the_error_is_clear(
    frame: pl.DataFrame, past: bool, design: str
) -> None:
    more: dict[str, Any] = {
        "plain": {},
        "counts": {"head": "counts"},
        "segments": {"model": "segments"},
        "autoregressive": {"model": "autoregressive"},
    }[design]
    past = past and design not in ("segments", "autoregressive")
    forecaster = Forecaster(horizon=HORIZON, frequency="1 day", **TINY, **more)
    refusal = message(lambda: forecaster.fit(frame, past="price" if past else ()))
    if refusal is not None:
        assert re.search(r"expected|expects|Give|needs|Correct|Change|Leave|Remove", refusal), (
            refusal
        )
        return
    check_forecast(forecaster.predict(), frame)
    check_forecast(forecaster.predict(frame), frame)
    assert isinstance(forecaster.predict(frame.to_pandas()), pd.DataFrame)
    assert np.isfinite(forecaster.sample(count=3)["value"].to_numpy()).all()


def message(run: Callable[[], Any]) -> str | None:
    """What the error of a call says; None when it raises none of ours."""
    try:
        run()
    except RecurraError as error:
        return str(error)
    return None


@settings(max_examples=60, deadline=None)
@given(new=st.lists(values, min_size=1, max_size=6), text=st.booleans())
def test_streams_answer_finite_forecasts_or_refuse_and_go_on(new: list[float], text: bool) -> None:
    frame = pl.DataFrame({"time": days(40), "target": np.arange(40.0) - 20})
    stream = stream_of(frame)
    day = np.datetime64("2020-02-10")
    for number, value in enumerate(new):
        event = {"time": str(day + number), "target": str(value) if text else value}
        before = stream.state
        try:
            answer = stream.push(event)
        except RecurraError:
            assert stream.state == before
            continue
        made = np.array(list(answer["forecast"]["target"].values()))
        assert np.isfinite(made).all()


_FITTED: dict[int, Forecaster] = {}


def stream_of(frame: pl.DataFrame) -> Any:
    """A stream of one forecaster, trained once."""
    if not _FITTED:
        _FITTED[0] = Forecaster(horizon=HORIZON, context=6, **TINY).fit(frame)
    return _FITTED[0].stream()


@pytest.mark.parametrize("size", [1e99, 1e-99])
def test_values_of_extreme_size_are_forecast_or_refused(size: float) -> None:
    frame = pl.DataFrame({"time": days(40), "target": (np.arange(40.0) % 7 + 1) * size})
    made = Forecaster(horizon=HORIZON, **TINY).fit(frame).predict()["q0.5"].to_numpy()
    assert (made > 0.1 * size).all()
    assert (made < 10 * size).all()
