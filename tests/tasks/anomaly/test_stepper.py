"""The detector in an engine of many streams: the answers of its own stream, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recurra.errors import ConfigError, DataError, StoreError
from recurra.streaming.engine import DUPLICATE, FRESH, REPEATED, StreamEngine
from recurra.streaming.session import LineSession
from recurra.streaming.sqlite import SQLiteStore
from recurra.tasks.anomaly.detector import AnomalyDetector

HOSTS = [f"h{n}" for n in range(12)]


def table(rows: int, hosts: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "time": np.tile(np.arange(rows), hosts),
            "host": np.repeat(HOSTS[:hosts], rows),
            "cpu": rng.normal(size=rows * hosts),
            "mem": rng.normal(5, 2, size=rows * hosts),
        }
    )


@pytest.fixture(scope="module")
def detector() -> AnomalyDetector:
    return AnomalyDetector().fit(table(60), value=("cpu", "mem"), series="host")


def events(count: int) -> list[dict[str, Any]]:
    """Rows of known and new hosts, some values missing, some strange."""
    rng = np.random.default_rng(1)
    made: list[dict[str, Any]] = []
    for n in range(count):
        values: list[float | None] = [float(v) for v in rng.normal(size=2)]
        if n % 7 == 0:
            values[int(rng.integers(2))] = None
        if n % 50 == 49:
            values = [40.0, None]
        made.append(
            {"time": 60 + n, "host": str(rng.choice(HOSTS)), "cpu": values[0], "mem": values[1]}
        )
    return made


def push(engine: StreamEngine, stepper: Any, rows: list[dict[str, Any]]) -> Any:
    read = [stepper.read(row) for row in rows]
    seq = [event.seq for event in read if event.seq is not None] or None
    return engine.push([event.key for event in read], [event.input for event in read], seq)


def test_answers_have_the_bits_of_the_stream_in_any_pieces_and_restarts(
    detector: AnomalyDetector, tmp_path: Path
) -> None:
    check_pieces_and_restarts(detector, events(400), tmp_path)


def test_the_states_of_one_channel_are_stepped_where_they_lie(tmp_path: Path) -> None:
    one = AnomalyDetector().fit(table(60), value="cpu", series="host")
    check_pieces_and_restarts(one, events(200), tmp_path)


def check_pieces_and_restarts(
    detector: AnomalyDetector, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    stream = detector.stream()
    wanted = [stream.push(row) for row in rows]
    for batch in (20, 100, 400):
        made = []
        for start in range(0, len(rows), 100 if batch < 100 else batch):
            stepper = detector.stepper(timed=True)
            engine = StreamEngine(stepper, SQLiteStore(tmp_path / f"{batch}.db"), max_keys=5)
            for begin in range(start, min(start + max(100, batch), len(rows)), batch):
                some = rows[begin : begin + batch]
                answers = push(engine, stepper, some)
                assert (answers.status == FRESH).all()
                made += [
                    {"time": row["time"], "host": row["host"], **answer}
                    for row, answer in zip(some, answers.values, strict=True)
                ]
            engine.close()
        assert str(made) == str(wanted)  # as text, in which NaN equals NaN
    assert any(answer["alarm"] for answer in wanted)


def test_rows_are_told_apart_by_seq_or_time_or_not_at_all(detector: AnomalyDetector) -> None:
    from recurra.streaming.store import MemoryStore

    row = {"time": 60, "host": "h0", "cpu": 1.0, "mem": 5.0, "n": 3}
    old = {**row, "time": 59, "n": 2}
    for keywords, wanted in (
        ({}, [FRESH, FRESH, FRESH]),
        ({"timed": True}, [FRESH, REPEATED, DUPLICATE]),
        ({"seq": "n"}, [FRESH, REPEATED, DUPLICATE]),
    ):
        stepper = detector.stepper(**keywords)  # type: ignore[arg-type]
        engine = StreamEngine(stepper, MemoryStore())
        assert push(engine, stepper, [row, row, old]).status.tolist() == wanted


def test_a_gap_is_told_of_seq_and_not_of_times(detector: AnomalyDetector) -> None:
    lines = [
        b'{"time": 60, "host": "h0", "cpu": 1, "mem": 5, "n": 1}',
        b'{"time": 90, "host": "h0", "cpu": 1, "mem": 5, "n": 4}',
    ]
    for keywords, told in (({"timed": True}, False), ({"seq": "n"}, True)):
        stepper = detector.stepper(**keywords)  # type: ignore[arg-type]
        out = LineSession(StreamEngine(stepper), stepper.read).answer(lines).splitlines()
        assert (b'"gap": 2' in out[1]) is told


def test_one_model_of_one_series_watches_many_keys() -> None:
    alone = table(60, 1).drop("host", "mem")
    detector = AnomalyDetector().fit(alone, value="cpu")
    stepper = detector.stepper(key="pump")
    engine = StreamEngine(stepper)
    fresh = AnomalyDetector().fit(table(60, 1).drop("mem"), value="cpu", series="host").stream()
    row = {"time": 61, "cpu": 0.5}
    answers = push(engine, stepper, [{**row, "pump": "a"}, {**row, "pump": 4}]).values
    assert str(answers[0]) == str(answers[1])
    wanted = fresh.push({**row, "host": "unknown"})
    assert str({"time": 61, "host": "unknown", **answers[0]}) == str(wanted)
    with pytest.raises(DataError, match="'pump', the key, is missing"):
        stepper.read(row)


def test_a_key_beside_the_models_own_and_other_trainings_are_refused(
    detector: AnomalyDetector, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="which 'host' names; 'pump' cannot be the key"):
        detector.stepper(key="pump")
    store = SQLiteStore(tmp_path / "s.db")
    stepper = detector.stepper()
    push(StreamEngine(stepper, store), stepper, events(1))
    store.close()
    other = AnomalyDetector().fit(table(61), value=("cpu", "mem"), series="host")
    with pytest.raises(StoreError, match="made by other weights"):
        StreamEngine(other.stepper(), store)
