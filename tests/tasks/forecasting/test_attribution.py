"""Attributions add up to what the inputs change, and name what the forecast depends on."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, days, several, wave

from recurra import Forecaster
from recurra.errors import DataError
from recurra.tasks.forecasting.attribution import attribute

DESIGNS: list[dict[str, Any]] = [
    {"season": 7, "stride": 2},
    {"season": 40, "cell": "lstm", "num_layers": 2},
    {"season": 7, "profile": 2},
    {"season": 4, "smoothing": True},
    {"season": 7, "ensemble": 2},
]


@pytest.mark.parametrize("design", DESIGNS)
def test_attributions_add_up_to_what_the_inputs_change(design: dict[str, Any]) -> None:
    frame = several((80, 60))
    forecaster = Forecaster(horizon=3, context=9, **{**QUICK, "steps": 40, **design})
    forecaster.fit(
        frame, target=("target", "other"), past=("price", "sky"), future="promo", static="size"
    )
    known = pl.concat(
        [
            frame.filter(pl.col("series") == "s0")
            .head(70)
            .with_columns(
                pl.when(pl.arange(70) < 67).then(pl.col(name)).alias(name)
                for name in ("target", "other")
            )
        ]
    )
    for one in attribute(forecaster.fitted, forecaster.read(known).series[0]):
        assert abs(one.change) > 1e-3
        assert one.value.sum() == pytest.approx(one.change, rel=0.02, abs=1e-3)
        assert (np.diff(np.abs(one.value)) <= 1e-12).all()
        named = set(one.name)
        assert {one.target, "price", "sky=sun", "promo", "size", "level"} <= named
        # Of the past nothing after the last row, of the future nothing after the horizon.
        last = forecaster.read(known).series[0].start + 66
        for index, name in zip(one.index, one.name, strict=True):
            assert index <= (
                last + 3
                if name in ("promo", "profile") or "day" in name
                else last
                if name != "last season" and "there was" not in name
                else last + 3
            )


@pytest.mark.parametrize(
    "design", [{"model": "segments", "season": 7, "context": 14}, {"head": "counts", "season": 7}]
)
def test_other_designs_are_explained_too(design: dict[str, Any]) -> None:
    frame = pl.DataFrame({"time": days(90), "target": np.round(wave(90))})
    forecaster = Forecaster(horizon=3, **{**QUICK, "steps": 40, **design}).fit(frame)
    (one,) = attribute(forecaster.fitted, forecaster.read(frame).series[0])
    assert one.value.sum() == pytest.approx(one.change, rel=0.03, abs=1e-2)


def test_what_a_forecast_copies_is_what_explains_it() -> None:
    """Before training the median is last week's value: only those rows count."""
    frame = pl.DataFrame({"time": days(90), "target": wave(90, noise=1.0)})
    forecaster = Forecaster(horizon=7, season=7, context=14, logarithm=False, **QUICK)
    forecaster.fit(frame)
    weights = forecaster.fitted.network
    weights._start_as("seasonal_naive")
    torch.nn.init.zeros_(weights.local.out.weight)
    torch.nn.init.zeros_(weights.local.out.bias)
    (one,) = attribute(forecaster.fitted, forecaster.read(frame).series[0])
    start = forecaster.read(frame).series[0].start
    large = {int(i) - start for i, v in zip(one.index, one.value, strict=True) if abs(v) > 1e-9}
    assert large == set(range(83, 90))


def test_explain_is_a_long_frame() -> None:
    frame = several((60, 50))
    forecaster = Forecaster(horizon=3, context=9, **QUICK).fit(frame, past="price")
    made = forecaster.explain(frame)
    assert made.columns == ["series", "time", "target", "input", "attribution"]
    assert made["series"].unique().sort().to_list() == ["s0", "s1"]
    assert made["attribution"].is_finite().all()


def test_missing_known_future_is_named() -> None:
    frame = several((60,))
    forecaster = Forecaster(horizon=3, context=9, **QUICK).fit(frame, future="promo")
    with pytest.raises(DataError, match="known-future covariates"):
        forecaster.explain(frame)
