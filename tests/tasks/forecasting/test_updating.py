"""`update` equals a fresh read of the whole history, and costs what the new rows cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, several

from recurra import Forecaster
from recurra.errors import DataError
from recurra.tasks.forecasting.features import make_steps
from recurra.tasks.forecasting.quick import step_inputs
from recurra.tasks.forecasting.schema import build_panel
from recurra.tasks.forecasting.settings import ModelSettings
from recurra.tasks.forecasting.state import SeriesState

COVARIATES: dict[str, Any] = {"past": ("price", "sky"), "static": "size"}
DESIGNS: list[dict[str, Any]] = [
    {"stride": 1, "season": 1},
    {"stride": 3, "season": 7, "num_layers": 2, "cell": "lstm"},
    {"stride": 2, "season": 40, "cell": "rnn"},
    {"context": 1, "stride": 2, "season": 1},
    {"season": 7, "profile": 2, "stride": 2},
    {"season": 4, "smoothing": True, "stride": 2},
    {"season": 3, "level": 8, "stride": 2, "aligned": True},
    {"season": 7, "ensemble": [{"context": 12}, {"cell": "lstm", "stride": 5}]},
]


def trained(design: dict[str, Any]) -> Forecaster:
    forecaster = Forecaster(horizon=3, **{"context": 9, **QUICK, **design})
    return forecaster.fit(several((60, 50)), target=("target", "other"), **COVARIATES)


@pytest.fixture(scope="module")
def forecasters() -> list[Forecaster]:
    return [trained(design) for design in DESIGNS]


def again(forecaster: Forecaster, states: dict[str, SeriesState]) -> Forecaster:
    """A forecaster of the same weights whose series stand at `states`."""
    made = Forecaster.from_settings(forecaster.settings.model_dump(), progress=False)
    made._fitted = replace(forecaster.fitted, states=states)
    return made


def assert_same_states(made: dict[str, SeriesState], wanted: dict[str, SeriesState]) -> None:
    """Everything but rounding is equal: the recurrence runs in pieces of other lengths."""
    assert made.keys() == wanted.keys()
    for name, state in made.items():
        other = wanted[name]
        assert (state.index, state.rows) == (other.index, other.rows)
        for part in ("tail", "past", "now", "static", "sums", "first"):
            np.testing.assert_array_equal(getattr(state, part), getattr(other, part), part)
        for mine, theirs in zip(state.recurrent, other.recurrent, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@st.composite
def histories(draw: st.DrawFn) -> tuple[pl.DataFrame, list[int]]:
    """Two series with absent rows, missing values and covariates, and where they are cut."""
    frame = several(draw(st.tuples(st.integers(12, 40), st.integers(12, 40))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.0, 0.2, 0.6]))
    kept = pl.Series(rng.random(len(frame)) >= share / 2)
    for column in ("target", "other", "price", "sky"):
        seen = pl.Series(rng.random(len(frame)) >= share)
        frame = frame.with_columns(pl.when(seen).then(pl.col(column)).alias(column))
    # The first rows are whole: until then nothing goes on, for there is no series yet.
    whole = several((40, 40)).filter(pl.col("time") < pl.date(2020, 1, 5))
    frame = pl.concat([whole, frame.filter(kept, pl.col("time") >= pl.date(2020, 1, 5))])
    cuts = draw(st.lists(st.integers(5, 44), min_size=1, max_size=4, unique=True))
    return frame, sorted(cuts)


@settings(max_examples=40, deadline=None)
@given(history=histories(), design=st.integers(0, len(DESIGNS) - 1))
def test_update_piece_by_piece_equals_a_fresh_read(
    forecasters: list[Forecaster], history: tuple[pl.DataFrame, list[int]], design: int
) -> None:
    frame, cuts = history
    day = pl.date(2020, 1, 1)
    number = frame.select((pl.col("time") - day).dt.total_days()).to_series()
    pieces = [
        frame.filter((number >= low) & (number < high))
        for low, high in zip([0, *cuts], [*cuts, 100], strict=True)
    ]
    fitted = forecasters[design].fitted
    fresh = forecasters[design].read(pieces[0])
    forecaster = again(forecasters[design], fitted.read(fresh.series))
    for piece in pieces[1:]:
        if len(piece):
            forecaster.update(piece)
    whole = forecaster.read(frame)
    # A fresh read knows of trailing rows without a value as well; the last piece ends alike.
    assert_same_states(dict(forecaster.fitted.states), fitted.read(whole.series))
    made, wanted = forecaster.predict(), again(forecasters[design], {}).fitted
    quantiles = wanted.quantiles(
        whole.series, np.arange(2), np.array([len(one.target) - 1 for one in whole.series])
    )
    columns = [name for name in made.columns if name.startswith("q")]
    np.testing.assert_allclose(
        made.select(columns).to_numpy(), quantiles.reshape(-1, len(columns)), rtol=1e-4, atol=1e-4
    )


def test_one_row_at_a_time_equals_a_table(forecasters: list[Forecaster]) -> None:
    frame = several((60, 50))
    new = frame.filter(pl.col("time") > pl.date(2020, 2, 10))
    for forecaster in forecasters:
        cut = forecaster.read(frame.filter(pl.col("time") <= pl.date(2020, 2, 10)))
        start = forecaster.fitted.read(cut.series)
        updated = again(forecaster, start).update(new)
        stream = again(forecaster, start).stream()
        for row in new.rows(named=True):
            stream.update(row)
        assert_same_states(stream.state, dict(updated.fitted.states))


@pytest.mark.parametrize("design", range(len(DESIGNS)))
def test_quick_step_inputs_are_those_of_the_definition(
    forecasters: list[Forecaster], design: int
) -> None:
    forecaster = forecasters[design]
    frame = several((60, 50)).with_columns(
        target=pl.when(pl.arange(110) % 60 > 20).then(pl.col("target")),
        other=pl.when(pl.arange(110) % 3 != 1).then(pl.col("other")),
    )
    for rows in (1, 2, 5, 22, 40, 60):
        head = frame.head(rows)
        table = forecaster.read(head)
        fitted = forecaster.fitted
        state = fitted.read(table.series)["s0"]
        panel = build_panel(table.series, fitted.schema, 3)
        for network in fitted.networks:
            channel = torch.arange(2)
            at = torch.full((2,), len(table.series[0].target) - 1)
            wanted = make_steps(panel, channel, at, network.settings)
            window, extra, level, scale = step_inputs(state, network.settings)
            np.testing.assert_allclose(window, wanted.window.numpy(), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(extra, wanted.extra.numpy(), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(level, wanted.level.numpy(), rtol=1e-12)
            np.testing.assert_allclose(scale, wanted.scale.numpy(), rtol=1e-12)


def test_update_steps_only_through_new_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from recurra.tasks.forecasting import encode

    steps: list[int] = []
    real = encode.make_steps

    def counted(panel: Any, channel: Any, row: Any, model: ModelSettings) -> Any:
        steps.append(len(row))
        return real(panel, channel, row, model)

    forecaster = fitted_on(ramp(300).head(200), context=8)
    monkeypatch.setattr(encode, "make_steps", counted)
    forecaster.update(ramp(300).slice(200, 7))
    assert sum(steps) == 7


def test_update_goes_on_with_known_future_rows() -> None:
    frame = several((60,))
    forecaster = fitted_on(frame, horizon=3, context=8)
    forecaster.fit(frame.head(40), future="promo")
    forecaster.update(frame.slice(40, 10))
    unknown = frame.slice(50, 3).with_columns(target=pl.lit(None, pl.Float64))
    made = forecaster.predict(unknown)
    known = pl.concat([frame.head(50), unknown])
    wanted = fitted_on(frame, horizon=3, context=8).fit(frame.head(40), future="promo")
    np.testing.assert_allclose(made["q0.5"], wanted.predict(known)["q0.5"], rtol=1e-5)
    assert made["time"].cast(pl.Date).to_list() == unknown["time"].to_list()


def test_new_series_is_read_from_its_first_row_and_others_stay() -> None:
    frame = several((60, 50))
    forecaster = fitted_on(frame.filter(pl.col("series") == "s0"), context=8)
    before = forecaster.fitted.states["s0"]
    forecaster.update(frame.filter(pl.col("series") == "s1"))
    assert forecaster.fitted.states["s0"] is before
    assert forecaster.predict()["series"].unique().sort().to_list() == ["s0", "s1"]


def test_evaluate_still_counts_from_the_end_of_training_and_so_after_load(tmp_path: Any) -> None:
    frame = ramp(60)
    forecaster = fitted_on(frame.head(40), context=8)
    before = forecaster.evaluate(frame).results()
    forecaster.update(frame.slice(40, 10))
    assert forecaster.evaluate(frame).windows == 4
    assert forecaster.evaluate(frame).results() == before
    forecaster.save(tmp_path / "run")
    loaded = Forecaster.load(tmp_path / "run")
    assert loaded.evaluate(frame).windows == 4
    assert loaded.predict()["time"].cast(pl.Date)[0] == days(60)[50]


def test_rows_that_were_read_are_refused_and_nothing_is_read() -> None:
    frame = several((60, 50))
    forecaster = fitted_on(frame, context=8)
    before = forecaster.fitted
    new = pl.concat(
        [
            frame.head(1).with_columns(time=pl.date(2020, 5, 1)),
            frame.tail(1),
        ]
    )
    with pytest.raises(DataError, match=r"'s1' has a row at 2020-02-20, which is not after .*-20"):
        forecaster.update(new)
    assert forecaster.fitted is before


def test_other_static_covariate_is_refused(forecasters: list[Forecaster]) -> None:
    new = several((70,)).tail(5).with_columns(size=pl.lit(3.0))
    with pytest.raises(DataError, match=r"'s0' has other static covariates \(size\)"):
        again(forecasters[0], dict(forecasters[0].fitted.states)).update(new)


def test_gap_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap of thousands of rows takes a few calls of the network, not one for each row."""
    forecaster = fitted_on(ramp(60), context=8, stride=4)
    stream = forecaster.stream()
    calls = 0
    real = type(forecaster.fitted.network).encode

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*given, **named)

    monkeypatch.setattr(type(forecaster.fitted.network), "encode", counted)
    stream.update({"time": "2030-01-01", "target": 5.0})
    assert calls == 1
    assert stream.state[""].rows == 60 + 3653 - 60 + 1


def sizes(states: Sequence[SeriesState]) -> set[Any]:
    return {(state.tail.shape, state.past.shape, state.recurrent[0].shape) for state in states}


def test_state_does_not_grow_with_updates() -> None:
    frame = ramp(300)
    forecaster = fitted_on(frame.head(60), context=8)
    seen = [forecaster.fitted.states[""]]
    for start in range(60, 300, 40):
        forecaster.update(frame.slice(start, 40))
        seen.append(forecaster.fitted.states[""])
    assert len(sizes(seen)) == 1
