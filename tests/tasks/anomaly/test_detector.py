from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from recurra.errors import ConfigError, DataError, NotFittedError, RunError
from recurra.runs import read_tensors, write_tensors
from recurra.tasks.anomaly.detector import AnomalyDetector

ROWS = 260


def make_table(hosts: tuple[str, ...] = ("a", "b"), rows: int = ROWS) -> pl.DataFrame:
    """Two channels of some hosts, every five minutes; a spike in cpu near the end of the first."""
    frames = []
    for k, host in enumerate(hosts):
        rng = np.random.default_rng(k)
        cpu = rng.normal(50, 2, rows)
        if k == 0:
            cpu[rows - 30] = 400
        frames.append(
            pl.DataFrame(
                {
                    "t": np.datetime64("2024-03-01", "us")
                    + np.arange(rows) * np.timedelta64(5, "m"),
                    "host": [host] * rows,
                    "cpu": cpu,
                    "mem": rng.normal(0.5, 0.01, rows),
                }
            )
        )
    return pl.concat(frames).sort("t", maintain_order=True)


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return make_table()


@pytest.fixture(scope="module")
def fitted(table: pl.DataFrame) -> AnomalyDetector:
    """A detector that knows the first 200 rows of each host."""
    return AnomalyDetector().fit(
        table, time="t", value=("cpu", "mem"), series="host", until="2024-03-01 16:35"
    )


def test_one_answer_for_each_row_in_the_table_s_order(
    fitted: AnomalyDetector, table: pl.DataFrame
) -> None:
    answers = fitted.predict(table)
    assert answers["t"].to_list() == table["t"].to_list()
    assert answers["host"].to_list() == table["host"].to_list()
    assert answers.columns[2:5] == ["score", "surprise", "alarm"]
    assert {"expected_cpu", "lower_mem", "share_cpu", "status"} <= set(answers.columns)
    spike = answers.filter((pl.col("host") == "a") & pl.col("alarm"))[-1]
    assert spike["t"].to_list() == [table.filter(pl.col("host") == "a")["t"][ROWS - 30]]
    assert spike["share_cpu"][0] > 0.8
    assert spike["upper_cpu"][0] < 100


def test_a_pandas_frame_comes_back_as_pandas(fitted: AnomalyDetector, table: pl.DataFrame) -> None:
    answers = fitted.predict(table.to_pandas())
    assert isinstance(answers, pd.DataFrame)
    assert answers["surprise"].tolist() == fitted.predict(table)["surprise"].to_list()


def test_later_rows_go_on_from_training(fitted: AnomalyDetector, table: pl.DataFrame) -> None:
    """Rows after training alone are answered as when the training rows are given again."""
    late = table.filter(pl.col("t") > pl.datetime(2024, 3, 1, 16, 35))
    whole = fitted.predict(table).filter(pl.col("t") > pl.datetime(2024, 3, 1, 16, 35))
    assert len(late) == 2 * (ROWS - 200)
    assert fitted.predict(late).equals(whole)


def test_a_stream_is_the_table_bit_for_bit(fitted: AnomalyDetector, table: pl.DataFrame) -> None:
    late = table.filter(pl.col("t") > pl.datetime(2024, 3, 1, 16, 35))
    answers = fitted.predict(late)
    stream = fitted.stream()
    for row, wanted in zip(late.to_dicts(), answers.to_dicts(), strict=True):
        found = stream.push({**row, "t": str(row["t"])})
        for name in ("score", "surprise", "alarm", "status"):
            assert found[name] == wanted[name]
        assert found["expected"] == {"cpu": wanted["expected_cpu"], "mem": wanted["expected_mem"]}


def test_saved_and_loaded_answers_are_the_same(
    fitted: AnomalyDetector, table: pl.DataFrame, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "run")
    again = AnomalyDetector.load(tmp_path / "run")
    assert again.predict(table).equals(fitted.predict(table))
    assert again.settings == fitted.settings
    with pytest.raises(RunError, match="already holds files"):
        fitted.save(tmp_path / "run")


def test_a_state_of_another_shape_is_refused(fitted: AnomalyDetector, tmp_path: Path) -> None:
    fitted.save(tmp_path / "run")
    path = tmp_path / "run" / "state.safetensors"
    tensors, metadata = read_tensors(path)
    tensors["state.mean"] = torch.zeros(3, 2, dtype=torch.float64)
    write_tensors(path, tensors, metadata)
    with pytest.raises(RunError, match="checksum"):
        AnomalyDetector.load(tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    value = json.loads(config.read_text())
    from recurra.runs import RunFolder

    RunFolder(tmp_path / "run").write_config("anomaly", value["config"], [path])
    with pytest.raises(
        RunError, match=re.escape("'mean' is float64 (3, 2), expected float64 (2, 2)")
    ):
        AnomalyDetector.load(tmp_path / "run")


def test_a_wanted_rate_of_alarms_sets_the_threshold() -> None:
    values = np.random.default_rng(5).normal(size=1500)
    table = pl.DataFrame({"time": np.arange(1500), "value": values})
    fitted = AnomalyDetector(false_alarms=2.0, refractory=0).fit(table).fitted
    assert fitted.training["alarms"] == 3  # 2 in a thousand
    assert fitted.threshold > 1.1


@pytest.mark.parametrize("head", ["alarm", "segment"])
def test_a_threshold_found_in_training_leaves_what_watching_with_it_would(head: str) -> None:
    values = np.random.default_rng(5).normal(size=(900, 2))
    values[600:620, 1] += 8
    values[880, 0] = np.nan
    table = pl.DataFrame({"time": np.arange(900), "a": values[:, 0], "b": values[:, 1]})
    names = {"value": ("a", "b")}
    found = AnomalyDetector(head=head, false_alarms=6.0).fit(table, **names).fitted
    again = AnomalyDetector(head=head, threshold=found.threshold).fit(table, **names).fitted
    assert found.training["alarms"] == again.training["alarms"] > 0
    for name, values in again.state.items():
        assert np.array_equal(values, found.state[name]), name
    (one,), (other,) = found.traces, again.traces
    assert one.rows.alarm.tolist() == other.rows.alarm.tolist()
    assert one.rows.status.tolist() == other.rows.status.tolist()


def test_a_stream_reads_zones_as_training_did() -> None:
    """A time alone does not say whether clocks differ; then it is UTC as in the table."""
    hours = [f"2024-01-{day:02}T{hour:02}:30+05:00" for day in range(1, 9) for hour in range(24)]
    values = np.random.default_rng(0).normal(size=len(hours))
    table = pl.DataFrame({"time": hours, "value": values})
    detector = AnomalyDetector().fit(table[:150])
    wanted = detector.predict(table[150:])["surprise"].to_list()
    assert wanted == detector.predict(table)["surprise"].to_list()[150:]
    stream = detector.stream()
    assert [stream.push(row)["surprise"] for row in table[150:].to_dicts()] == wanted
    assert max(wanted) > 0


def test_rows_are_watched_whatever_their_times() -> None:
    """Gaps, repeats and a clock set back are said, and change nothing but the time of day."""
    time = np.datetime64("2024-01-01", "ns") + np.arange(100) * np.timedelta64(1, "D")
    time[50:] -= np.timedelta64(20, "D")
    time[80] = time[79]
    table = pl.DataFrame({"time": time, "value": np.random.default_rng(0).normal(size=100)})
    fitted = AnomalyDetector().fit(table)
    notes = " ".join(fitted.fitted.notes)
    assert "1 row(s) have an earlier time than the row before, first 2024-01-31" in notes
    assert "1 row(s) have the time of the row before" in notes
    even = table.with_columns(
        pl.Series(
            "time", np.datetime64("2024-01-01", "ns") + np.arange(100) * np.timedelta64(1, "D")
        )
    )
    assert fitted.predict(table)["surprise"].equals(fitted.predict(even)["surprise"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpu": [1.0, float("inf")]}, "row 2: 'cpu' is inf; expected a finite number"),
        ({"cpu": ["a", "b"]}, "row 1: 'cpu' is 'a'; expected a number"),
        ({"t": ["2024-01-01", None]}, "row 2: no time in the column 't'"),
        ({"t": ["2024-01-01", "soon"]}, "soon"),
        ({"host": ["a", None]}, "row 2: no value in the column 'host'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(change: dict[str, object], message: str) -> None:
    good = {"t": ["2024-01-01", "2024-01-02"], "host": ["a", "a"], "cpu": [1.0, 2.0]}
    frame = pl.DataFrame({**good, **change})
    with pytest.raises(DataError, match=re.escape(message)):
        AnomalyDetector().fit(frame, time="t", value="cpu", series="host")


def test_settings_and_use_are_checked(table: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match="did you mean 'threshold'"):
        AnomalyDetector.from_settings({"treshold": 2})
    with pytest.raises(ConfigError, match="threshold=2 and false_alarms=1 contradict"):
        AnomalyDetector(threshold=2, false_alarms=1)
    with pytest.raises(NotFittedError, match=r"call fit\(table\) first"):
        AnomalyDetector().predict(table)
    with pytest.raises(DataError, match="unknown time column 'time'"):
        AnomalyDetector().fit(table, value="cpu")
    with pytest.raises(ConfigError, match="'cpu' is given twice"):
        AnomalyDetector().fit(table, time="t", value=("cpu", "cpu"))
    with pytest.raises(DataError, match="no row is at or before until=2023-01-01"):
        AnomalyDetector().fit(table, time="t", value="cpu", series="host", until="2023-01-01")


def test_another_kind_of_time_is_refused(fitted: AnomalyDetector, table: pl.DataFrame) -> None:
    counted = table.with_columns(t=pl.int_range(len(table)))
    with pytest.raises(DataError, match="are whole numbers, but those of training were dates"):
        fitted.predict(counted)
