"""The forecaster in an engine of many streams: the answers of its own stream, and flat states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.tasks.forecasting.tables import QUICK, fitted_on, several

from recurra import Forecaster
from recurra.errors import ConfigError, DataError, StoreError
from recurra.streaming.engine import DUPLICATE, FRESH, REFUSED, StreamEngine
from recurra.streaming.sqlite import SQLiteStore
from recurra.streaming.store import MemoryStore


def push(engine: StreamEngine, stepper: Any, rows: list[dict[str, Any]]) -> Any:
    events = [stepper.read(row) for row in rows]
    made = engine.push([e.key for e in events], [e.input for e in events], [e.seq for e in events])
    return made


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_answers_are_those_of_the_stream_bit_for_bit(tmp_path: Path, cell: str) -> None:
    frame = several((60, 60, 60))
    known = frame.filter(pl.col("series") != "s2")  # s2 is a series that training did not know
    forecaster = fitted_on(
        known.filter(pl.col("time") < pl.date(2020, 2, 20)), cell=cell, context=8, stride=3
    )
    rows = frame.filter(pl.col("time") >= pl.date(2020, 2, 20)).sort("time").to_dicts()
    rows = [row for row in rows if (row["series"], row["time"].day) != ("s1", 22)]  # a gap
    rows[5]["target"] = None
    stream = forecaster.stream()
    wanted = [stream.push(row) for row in rows]
    path = tmp_path / "s.db"
    made = []
    for start in range(0, len(rows), 7):
        stepper = forecaster.stepper()
        engine = StreamEngine(stepper, SQLiteStore(path), max_keys=1)
        answers = push(engine, stepper, rows[start : start + 7])
        assert (answers.status == FRESH).all()
        made += answers.values
        engine.close()
    assert [{**a, "series": row["series"]} for a, row in zip(made, rows, strict=True)] == wanted


def test_the_state_holds_two_targets_covariates_and_an_ensemble() -> None:
    frame = several((60,))
    forecaster = Forecaster(horizon=3, **{**QUICK, "steps": 20}, context=8, ensemble=2)
    roles = {"past": ("price", "sky"), "future": ("promo",), "static": ("size",)}
    forecaster.fit(frame.head(40), target=("target", "other"), **roles)
    stepper, stream = forecaster.stepper(), forecaster.stream()
    engine = StreamEngine(stepper, MemoryStore(), max_keys=1)
    rows = frame.to_dicts()
    for row in range(40, 50):
        event = {**rows[row], "future": rows[row + 1 : row + 4]}
        (answer,) = push(engine, stepper, [event]).values
        assert {**answer, "series": event["series"]} == stream.push(event)


def test_bad_rows_are_refused_and_repeated_ones_known() -> None:
    frame = several((60,))
    forecaster = fitted_on(frame.head(50), context=8)
    stepper = forecaster.stepper()
    engine = StreamEngine(stepper, MemoryStore())
    rows = frame.to_dicts()
    bad = {**rows[52], "target": "many"}
    answers = push(engine, stepper, [rows[40], rows[51], bad, rows[53], rows[51]])
    assert answers.status.tolist() == [REFUSED, FRESH, REFUSED, FRESH, DUPLICATE]
    assert "is not after its last one, 2020-02-19" in str(answers.errors[0])
    assert "'target' is 'many'; expected a finite number" in str(answers.errors[2])
    assert answers.gap.tolist() == [0, 0, 0, 1, 0]
    with pytest.raises(DataError, match="the event has no 'time'"):
        stepper.read({"series": "s0"})


def test_one_model_of_one_series_runs_over_many_keys_and_identities() -> None:
    frame = several((60,)).drop("series")
    forecaster = Forecaster(horizon=3, **{**QUICK, "steps": 20}, context=8).fit(frame.head(50))
    stepper = forecaster.stepper(key="pump", seq="n")
    engine = StreamEngine(stepper)
    rows = frame.select("time", "target").to_dicts()[:6]
    events = [{**row, "pump": pump, "n": n} for n, row in enumerate(rows) for pump in ("a", 7)]
    made = push(engine, stepper, events)
    assert len(engine) == 2
    assert made.values[0]["note"] == made.values[1]["note"]
    assert made.values[-1] == made.values[-2]
    assert stepper.read(events[1]).echo == {"pump": "7", "n": 0, "time": rows[0]["time"]}
    with pytest.raises(DataError, match="'pump', the key, is missing; expected text"):
        stepper.read(rows[0])
    with pytest.raises(DataError, match=r"'n' is 1\.5; expected a whole number"):
        stepper.read({**events[0], "n": 1.5})
    named = fitted_on(several((60,)), context=8)
    with pytest.raises(ConfigError, match="its series, which 'series' names; 'pump' cannot"):
        named.stepper(key="pump")


def test_states_of_another_training_are_refused(tmp_path: Path) -> None:
    frame = several((60,))
    first = fitted_on(frame.head(50), context=8)
    other = fitted_on(frame.head(50), context=8, seed=1)
    store = SQLiteStore(tmp_path / "s.db")
    stepper = first.stepper()
    push(StreamEngine(stepper, store), stepper, [frame.row(51, named=True)])
    store.close()
    with pytest.raises(StoreError, match="holds states made by other weights"):
        StreamEngine(other.stepper(), store)
    assert first.stepper().model_hash == stepper.model_hash
    assert np.dtype(stepper.record).hasobject is False
