"""`recurra forecast` from outside: what it prints where, what it writes, and how it refuses."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.cli.conftest import SALES, TINY, UNTIL, Recurra, leave, sales

from recurra import Forecaster
from recurra.report.results import KEYS
from recurra.tasks.forecasting import baselines

LEVELS = [f"q0.{k}" for k in range(1, 10)]
METRICS = {"mase", "smape", "mae", "rmse", "wql", "coverage_80"}


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def config_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "config.json").read_bytes())["config"]
    return content


@pytest.fixture
def no_ets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out AutoETS, which takes as long as all the rest, with a note."""
    monkeypatch.setattr(baselines, "why_no_ets", lambda *_: "not now")


# train


def test_train_says_what_it_found_and_writes_the_run(
    recurra: Recurra, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recurra.training.progress._FIRST_LINE_S", -1.0)
    out = tmp_path / "new" / "run"
    done = recurra("forecast", "train", table, *SALES, *UNTIL, *TINY, "--out", out)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[:2] == ["frequency: 1 day", "season: 7 rows"]
    assert lines[-2].startswith("trained 3 steps in ")
    assert lines[-1] == f"saved to {out}"
    assert done.err.startswith("training: step 1/3  loss ")
    assert "loss" not in done.out
    assert set(files(out)) >= {"config.json", "model.safetensors", "state.safetensors", "log.jsonl"}
    assert not [name for name in files(out) if "/." in f"/{name}"]


def test_train_as_json_prints_one_object_alone(
    recurra: Recurra, table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = recurra("forecast", "train", table, *SALES, *UNTIL, *TINY, "--out", out, "--json")
    assert (done.status, done.out.count("\n")) == (0, 1)
    told = json.loads(done.out)
    assert (told["task"], told["run"], told["steps"], told["stopped"]) == (
        "forecasting",
        str(out),
        3,
        "steps",
    )
    assert "frequency: 1 day" in told["notes"]


def test_options_reach_the_forecaster(recurra: Recurra, table: Path, tmp_path: Path) -> None:
    words = [*("--context", "9"), *("--season", "7"), *("--cell", "lstm"), *("--seed", "5")]
    words += ["--future", "promo", "--past", "returns", "--device", "cpu", "--ensemble", "2"]
    words += ["--set", "training.learning_rate=0.01", "--set", "quantile_levels=[0.1,0.5,0.9]"]
    out = tmp_path / "run"
    done = recurra("forecast", "train", table, *SALES, *UNTIL, *TINY, *words, "--out", out)
    assert done.status == 0, done.err
    config = config_of(out)
    model, training, columns = config["model"], config["training"], config["table"]
    assert (model["context"], model["season"], model["cell"]) == (9, 7, "lstm")
    assert (model["hidden_size"], model["quantile_levels"]) == (8, [0.1, 0.5, 0.9])
    assert (training["seed"], training["learning_rate"], training["device"]) == (5, 0.01, "cpu")
    assert (columns["future"], columns["past"]) == (["promo"], ["returns"])
    assert [(one["cell"], one["context"]) for one in config["others"]] == [("lstm", 9)]


def test_model_is_chosen_by_name_and_says_what_it_keeps(
    recurra: Recurra, table: Path, tmp_path: Path
) -> None:
    words = ("--model", "segments", "--context", "12", "--set", "segment=4")
    done = recurra(
        "forecast", "train", table, *SALES, *UNTIL, *TINY, *words, "--out", tmp_path / "run"
    )
    assert done.status == 0, done.err
    wanted = "window of 12 rows in segments of 4, horizon 4; a stream keeps these rows and no"
    assert wanted in done.out
    assert config_of(tmp_path / "run")["model"]["model"] == "segments"
    words = ("--model", "segment")
    done = recurra("forecast", "train", table, *SALES, *UNTIL, *TINY, *words, "--out", tmp_path)
    assert done.status == 2
    assert "model='segment'" in done.err
    assert "'forking', 'segments' or 'autoregressive'" in done.err


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_options_go_over_the_config_file_and_set_over_both(
    recurra: Recurra, table: Path, tmp_path: Path, kind: str
) -> None:
    values: dict[str, Any] = {"hidden_size": 6, "seed": 1, "dropout": 0.3, "num_layers": 2}
    training = {"learning_rate": 0.5, "warmup_steps": 7}
    config = tmp_path / f"settings.{kind}"
    if kind == "json":
        config.write_text(json.dumps({**values, "training": training}))
    else:
        lines = [f"{name} = {value}" for name, value in values.items()]
        lines += ["[training]", *(f"{name} = {value}" for name, value in training.items())]
        config.write_text("\n".join(lines))
    out = tmp_path / "run"
    words = ["--config", config, "--steps", 3, "--seed", 2, "--set", "seed=3"]
    words += ["--set", "hidden_size=8", "--set", "training.learning_rate=0.01"]
    done = recurra("forecast", "train", table, *SALES, *UNTIL, *words, "--out", out)
    assert done.status == 0, done.err
    written = config_of(out)
    model, trained = written["model"], written["training"]
    assert (model["hidden_size"], model["dropout"], model["num_layers"]) == (8, 0.3, 2)
    assert trained["seed"] == 3
    assert (trained["learning_rate"], trained["warmup_steps"]) == (0.01, 7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "hiden_size=8"], "'hiden_size'; did you mean 'hidden_size'?"),
        (["--set", "training.learning_rat=1"], "did you mean 'learning_rate'?"),
        (["--set", "hidden_size=big"], "hidden_size='big'"),
        (["--set", "hidden_size"], "--set 'hidden_size'; expected key=value"),
        (["--horizon", "0"], "horizon=0"),
        (["--cell", "grru"], "cell='grru'"),
        (["--steps", "3", "--minutes", "1"], "steps=3 and minutes=1"),
        (["--target", "units,"], "'units,' has an empty name"),
        (["--target", "units,units"], "'units' is given twice"),
        (["--force", "--resume"], "force and resume contradict"),
        (["--horizon", "many"], "valid integer"),
        (["--hurry"], "No such option"),
    ],
)
def test_wrong_usage_is_2_and_writes_nothing(
    recurra: Recurra, table: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    out = tmp_path / "run"
    done = recurra("forecast", "train", table, *SALES, *words, "--out", out)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert not out.exists()


def test_a_horizon_is_needed_from_somewhere(recurra: Recurra, table: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "settings.json", tmp_path / "run"
    words = ["--time", "date", "--target", "units", "--series", "store", *TINY, "--out", out]
    done = recurra("forecast", "train", table, *words)
    assert (done.status, done.out) == (2, "")
    assert "horizon" in done.err
    assert not out.exists()
    config.write_text('{"horizon": 6}')
    assert recurra("forecast", "train", table, *words, "--config", config).status == 0
    assert config_of(out)["model"]["horizon"] == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "unit"], "unknown column 'unit'; did you mean 'units'"),
        (["--time", "dat"], "did you mean 'date'"),
        (["--until", "1999-01-01"], "is before every row"),
        (["--until", "soon"], "soon"),
        (["--freq", "2d"], "series 'north', row 1: time 2024-01-01 is not on the grid of 2 days"),
    ],
)
def test_a_table_that_does_not_fit_is_1_and_writes_nothing(
    recurra: Recurra, table: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    out = tmp_path / "run"
    done = recurra("forecast", "train", table, *SALES, *words, *TINY, "--out", out)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert "fault in recurra" not in done.err
    assert not out.exists()


def test_a_table_that_is_not_there_is_named(recurra: Recurra, tmp_path: Path) -> None:
    done = recurra("forecast", "train", tmp_path / "gone.csv", *SALES, "--out", tmp_path / "run")
    assert (done.status, done.out) == (1, "")
    assert str(tmp_path / "gone.csv") in done.err
    assert not (tmp_path / "run").exists()


def test_a_run_is_replaced_with_force_only(recurra: Recurra, table: Path, run: Path) -> None:
    before = files(run)
    words = ["forecast", "train", table, *SALES, *UNTIL, *TINY, "--seed", "9", "--out", run]
    done = recurra(*words)
    assert (done.status, done.out) == (1, "")
    assert "already holds files" in done.err
    assert "--force" in done.err
    assert files(run) == before
    (run / "notes.txt").write_text("mine")
    assert recurra(*words, "--force").status == 0
    after = files(run)
    assert after["notes.txt"] == b"mine"
    assert after["model.safetensors"] != before["model.safetensors"]


def test_force_with_a_table_that_cannot_be_used_keeps_the_run(
    recurra: Recurra, table: Path, run: Path
) -> None:
    before = files(run)
    for words in (["--target", "unit"], ["--set", "hiden_size=8"], ["--until", "1999-01-01"]):
        all_words = [*SALES, *TINY, *words, "--out", run, "--force"]
        assert recurra("forecast", "train", table, *all_words).status in (1, 2)
        assert files(run) == before


def test_resume_of_a_finished_run_changes_no_weight(
    recurra: Recurra, table: Path, run: Path
) -> None:
    before = files(run)
    words = ["forecast", "train", table, *SALES, *UNTIL, *TINY, "--out", run, "--resume"]
    assert recurra(*words).status == 0
    assert files(run)["model.safetensors"] == before["model.safetensors"]
    done = recurra(*words, "--seed", "9")
    assert (done.status, done.out) == (1, "")
    assert "seed" in done.err
    assert "--resume needs the same settings" in done.err


# evaluate


def test_evaluate_prints_a_row_per_model_and_keeps_the_scores(
    recurra: Recurra, run: Path, table: Path, no_ets: None
) -> None:
    done = recurra("forecast", "evaluate", run, table)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:3] == ["model", "source", "mase"]
    assert [line.split()[0] for line in lines[1:4]] == ["recurra", "naive", "seasonal_naive"]
    assert "sales.csv, 6 windows of 4 steps" in done.out
    assert "note: AutoETS left out: not now" in lines
    kept = json.loads((run / "metrics.json").read_bytes())
    assert [row["model"] for row in kept["results"]] == ["recurra", "naive", "seasonal_naive"]
    assert "calibration" in kept["details"]


def test_the_json_of_evaluate_is_the_contract(
    recurra: Recurra, run: Path, table: Path, no_ets: None
) -> None:
    done = recurra("forecast", "evaluate", run, table, "--windows", "2", "--json")
    assert (done.status, done.out.count("\n")) == (0, 1)
    told = json.loads(done.out)
    assert tuple(told) == KEYS == ("task", "data", "results", "seconds", "machine", "commit")
    assert (told["task"], told["data"]) == ("forecasting", "sales.csv, 4 windows of 4 steps")
    assert [set(row) for row in told["results"]] == [{"model", "source", "metrics"}] * 3
    assert [row["model"] for row in told["results"]] == ["recurra", "naive", "seasonal_naive"]
    assert {row["source"] for row in told["results"]} == {"measured"}
    assert all(set(row["metrics"]) == METRICS for row in told["results"])
    assert all(0 <= row["metrics"]["coverage_80"] <= 1 for row in told["results"])
    assert told["seconds"] > 0
    assert "AutoETS left out" in done.err


def test_auto_ets_is_a_row_where_it_is_installed(recurra: Recurra, run: Path, table: Path) -> None:
    pytest.importorskip("statsforecast", reason="statsforecast is not installed")
    done = recurra("forecast", "evaluate", run, table, "--windows", "1", "--json")
    assert [row["model"] for row in json.loads(done.out)["results"]][-1] == "auto_ets"


def test_several_targets_are_scored_each(
    recurra: Recurra, table: Path, tmp_path: Path, no_ets: None
) -> None:
    out = tmp_path / "run"
    words = [*SALES, "--target", "units,returns", *UNTIL, *TINY, "--out", out]
    assert recurra("forecast", "train", table, *words).status == 0
    told = json.loads(recurra("forecast", "evaluate", out, table, "--json").out)
    assert tuple(told) == (*KEYS, "targets")
    assert list(told["targets"]) == ["units", "returns"]
    text = recurra("forecast", "evaluate", out, table).out
    assert [line.split()[0] for line in text.splitlines() if "mase" in line] == [
        "units",
        "returns",
        "model",
    ]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--windows", "99"], 1, "99 windows of 4 rows were asked for, but at most 3 fit"),
        (["--windows", "0"], 2, "windows=0"),
        (["--windows", "x"], 2, "valid integer"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    recurra: Recurra, run: Path, table: Path, words: list[str], status: int, message: str
) -> None:
    before = files(run)
    done = recurra("forecast", "evaluate", run, table, *words)
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert files(run) == before


def test_nothing_after_training_is_said(recurra: Recurra, run: Path, tmp_path: Path) -> None:
    early = tmp_path / "early.csv"
    early.write_text(
        "date,store,units\n" + "".join(f"2024-01-{day:02},north,{day}\n" for day in range(1, 20))
    )
    done = recurra("forecast", "evaluate", run, early)
    assert (done.status, done.out) == (1, "")
    assert "no window of 4 rows lies after the end of the training data" in done.err


def test_scores_are_printed_also_when_they_cannot_be_kept(
    recurra: Recurra, run: Path, table: Path, no_ets: None
) -> None:
    (run / "metrics.json").mkdir()  # stands for a run that may only be read
    done = recurra("forecast", "evaluate", run, table, "--json")
    assert done.status == 1
    assert tuple(json.loads(done.out)) == KEYS
    assert f"cannot write {run / 'metrics.json'}" in done.err


# predict


def test_predict_prints_a_table_of_the_next_steps(recurra: Recurra, trained: Path) -> None:
    done = recurra("forecast", "predict", trained / "run")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["store", "date", "target", "step", "q0.1", "q0.5", "q0.9"]
    assert [line.split()[:4] for line in lines[1:5]] == [
        ["north", f"2024-02-{15 + step}", "units", str(step)] for step in range(1, 5)
    ]
    assert len(lines) == 1 + 2 * 4


def test_predict_as_json_goes_on_from_the_table(
    recurra: Recurra, trained: Path, table: Path
) -> None:
    done = recurra("forecast", "predict", trained / "run", table, "--json", "--seed", "3")
    assert (done.status, done.err, done.out.count("\n")) == (0, "", 1)
    told = json.loads(done.out)
    assert (told["task"], told["run"]) == ("forecasting", str(trained / "run"))
    forecast = told["forecast"]
    assert list(forecast) == ["store", "date", "target", "step", *LEVELS]
    assert forecast["store"] == ["north"] * 4 + ["süd"] * 4
    assert forecast["date"][:4] == [f"2024-03-{day:02}" for day in range(1, 5)]
    wanted = Forecaster.load(trained / "run").predict(table)
    assert forecast["q0.5"] == wanted["q0.5"].to_list()


def test_predict_draws_paths_of_a_seed(recurra: Recurra, trained: Path, tmp_path: Path) -> None:
    words = ("forecast", "predict", trained / "run", "--samples", "3")
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        done = recurra(*words, "--seed", seed, "--out", tmp_path / f"{name}.csv")
        assert done.status == 0, done.err
    made, again, other = (pl.read_csv(tmp_path / f"{name}.csv") for name in "abc")
    assert made.equals(again)
    assert not made.equals(other)
    assert made["sample"].unique().sort().to_list() == [0, 1, 2]
    shown = recurra(*words)
    assert "value" in shown.out.splitlines()[0]


def test_train_goes_on_from_a_run(
    recurra: Recurra, trained: Path, table: Path, tmp_path: Path
) -> None:
    words = ("forecast", "train", table, "--from", trained / "run", "--steps", "2")
    done = recurra(*words, "--out", tmp_path / "tuned")
    assert done.status == 0, done.err
    first, tuned = config_of(trained / "run"), config_of(tmp_path / "tuned")
    assert tuned["model"] == first["model"]
    assert tuned["training"]["steps"] == 2
    done = recurra(*words, "--horizon", "9", "--target", "units", "--out", tmp_path / "other")
    assert done.status == 2
    assert "horizon, target cannot be given with --from" in done.err
    assert not (tmp_path / "other").exists()


def test_train_searches_for_settings_first(
    recurra: Recurra, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    from recurra.tasks.forecasting import search

    monkeypatch.setattr(search, "SPACE", {"hidden_size": [5]})
    done = recurra(
        "forecast",
        "train",
        table,
        *SALES,
        *UNTIL,
        *TINY,
        "--search",
        "2",
        "--out",
        tmp_path / "run",
    )
    assert done.status == 0, done.err
    assert config_of(tmp_path / "run")["model"]["hidden_size"] == 5


def test_predict_explains_the_forecast(recurra: Recurra, trained: Path, table: Path) -> None:
    done = recurra("forecast", "predict", trained / "run", table, "--explain", "--out", "-")
    assert done.status == 0, done.err
    frame = pl.read_csv(io.StringIO(done.out))
    assert frame.columns == ["store", "date", "target", "input", "attribution"]
    assert "units" in frame["input"].to_list()
    done = recurra("forecast", "predict", trained / "run", "--explain")
    assert done.status == 2
    assert "--explain needs the table" in done.err


def test_train_can_calibrate(recurra: Recurra, table: Path, tmp_path: Path) -> None:
    done = recurra(
        "forecast", "train", table, *SALES, *UNTIL, *TINY, "--calibrate", "--out", tmp_path / "run"
    )
    assert done.status == 0, done.err
    assert "calibrated on" in done.out
    assert "before   after" in done.out
    assert config_of(tmp_path / "run")["calibration"]["windows"] > 1


def test_predict_writes_csv_and_parquet_with_the_same_numbers(
    recurra: Recurra, trained: Path, tmp_path: Path
) -> None:
    for name in ("next.csv", "next.parquet"):
        done = recurra("forecast", "predict", trained / "run", "--out", tmp_path / name)
        assert done == (0, "", f"wrote {tmp_path / name}\n")
    first, second = pl.read_csv(tmp_path / "next.csv"), pl.read_parquet(tmp_path / "next.parquet")
    assert first.columns == second.columns == ["store", "date", "target", "step", *LEVELS]
    assert first.select(LEVELS).equals(second.select(LEVELS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["next.csv", "next.parquet"]


def test_predict_to_stdout_is_csv_and_nothing_else(recurra: Recurra, trained: Path) -> None:
    done = recurra("forecast", "predict", trained / "run", "--out", "-")
    assert (done.status, done.err) == (0, "")
    frame = pl.read_csv(io.StringIO(done.out))
    assert frame.columns == ["store", "date", "target", "step", *LEVELS]
    assert len(frame) == 8


def test_a_file_and_json_are_both_given(recurra: Recurra, trained: Path, tmp_path: Path) -> None:
    words = ["forecast", "predict", trained / "run", "--json", "--out"]
    done = recurra(*words, tmp_path / "next.csv")
    assert done.status == 0
    assert len(json.loads(done.out)["forecast"]["step"]) == len(pl.read_csv(tmp_path / "next.csv"))
    done = recurra(*words, "-")
    assert (done.status, done.out) == (2, "")
    assert "both write to stdout" in done.err


@pytest.mark.parametrize(
    ("name", "start"),
    [("fan.png", b"\x89PNG\r\n\x1a\n"), ("fan.svg", b"<?xml"), ("fan.pdf", b"%PDF-")],
)
def test_the_plot_is_a_picture(
    recurra: Recurra, trained: Path, table: Path, tmp_path: Path, name: str, start: bytes
) -> None:
    path = tmp_path / name
    words = [] if name != "fan.png" else [table]
    done = recurra("forecast", "predict", trained / "run", *words, "--plot", path)
    assert done.status == 0, done.err
    content = path.read_bytes()
    assert content.startswith(start)
    assert len(content) > 5000
    assert "q0.5" in done.out  # the table is still printed


@pytest.mark.parametrize(
    ("option", "name"), [("--out", "next.csv"), ("--plot", "fan.png"), ("--out", "next.parquet")]
)
def test_a_file_is_replaced_with_force_only(
    recurra: Recurra, trained: Path, tmp_path: Path, option: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"mine")
    words = ["forecast", "predict", trained / "run", option, path]
    done = recurra(*words)
    assert (done.status, done.out) == (1, "")
    assert f"{path} is already there. Pass --force" in done.err
    assert path.read_bytes() == b"mine"
    assert recurra(*words, "--force").status == 0
    assert path.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "next.xlsx"], "--out next.xlsx: expected a file ending in .csv or .parquet"),
        (["--plot", "fan.gif"], "--plot fan.gif: expected a file ending in .png, .svg or .pdf"),
        (["--out", "next"], "--out next: expected a file ending in"),
    ],
)
def test_an_unknown_ending_is_found_before_anything_is_read_or_written(
    recurra: Recurra,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = recurra("forecast", "predict", "no-such-run", "--plot", "a.png", *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert files(tmp_path) == {}


def test_columns_that_begin_with_q_are_shown(recurra: Recurra, tmp_path: Path) -> None:
    table = tmp_path / "quarters.csv"
    table.write_text("quarter,qty\n" + "".join(f"{k},{k % 4}\n" for k in range(40)))
    words = ["--time", "quarter", "--target", "qty", "--horizon", "2", *TINY]
    assert recurra("forecast", "train", table, *words, "--out", tmp_path / "run").status == 0
    lines = recurra("forecast", "predict", tmp_path / "run").out.splitlines()
    assert lines[0].split()[:3] == ["quarter", "target", "step"]
    assert lines[1].split()[:3] == ["40", "qty", "1"]


def test_a_long_forecast_is_cut_on_the_screen_only(
    recurra: Recurra, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recurra.cli.forecast.SHOWN_ROWS", 3)
    lines = recurra("forecast", "predict", trained / "run").out.splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[-1].startswith("… 5 more rows")


def test_known_future_covariates_are_asked_for(
    recurra: Recurra, table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = [*SALES, "--future", "promo", *UNTIL, *TINY, "--out", out]
    assert recurra("forecast", "train", table, *words).status == 0
    done = recurra("forecast", "predict", out)
    assert (done.status, done.out) == (1, "")
    assert "known-future covariates (promo)" in done.err


# stream


def lines_of(*events: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def event(day: int, units: Any = 21.5, store: str = "north") -> dict[str, Any]:
    return {"date": f"2024-02-{day:02}", "store": store, "units": units}


def test_stream_answers_each_line_with_its_key_time_and_forecast(
    recurra: Recurra, trained: Path
) -> None:
    given = lines_of(event(16), event(16, store="süd"), event(17, None), event(1, 5, "new"))
    done = recurra("forecast", "stream", trained / "run", stdin=given)
    assert (done.status, done.err) == (0, "")
    told = [json.loads(line) for line in done.out.splitlines()]
    assert all({"store", "date", "forecast"} <= set(answer) for answer in told)
    assert not any("error" in answer for answer in told)
    assert [(answer["store"], answer["date"]) for answer in told] == [
        ("north", "2024-02-16"),
        ("süd", "2024-02-16"),
        ("north", "2024-02-17"),
        ("new", "2024-02-01"),
    ]
    assert told[0]["forecast"]["time"] == [f"2024-02-{day}" for day in range(17, 21)]
    assert list(told[0]["forecast"]["units"]) == LEVELS


def test_stream_equals_predict(recurra: Recurra, trained: Path, table: Path) -> None:
    rows = pl.read_csv(table).filter(pl.col("date") > "2024-02-15").to_dicts()
    done = recurra("forecast", "stream", trained / "run", stdin=lines_of(*rows))
    last = {row["store"]: row for row in map(json.loads, done.out.splitlines())}
    told = json.loads(recurra("forecast", "predict", trained / "run", table, "--json").out)
    streamed = [*last["north"]["forecast"]["units"]["q0.5"]]
    streamed += last["süd"]["forecast"]["units"]["q0.5"]
    assert streamed == pytest.approx(told["forecast"]["q0.5"], rel=1e-5)
    begun = recurra("forecast", "stream", trained / "run", "--table", table, stdin=b"")
    assert begun == (0, "", "")


def test_a_bad_line_is_answered_and_the_stream_goes_on(recurra: Recurra, trained: Path) -> None:
    bad: list[bytes] = [
        b"oops\n",
        b"[1]\n",
        b"\xff\n",
        lines_of(event(10)),
        lines_of(event(17, "many")),
        lines_of({"store": "north", "units": 1}),
        lines_of({"date": "2024-02-17", "units": 1}),
        lines_of({"date": "2024-02-17", "store": "north"}),
        lines_of({"date": "soon", "store": "north", "units": 1}),
        b'{"date": "2024-02-17", "store": "north", "units": NaN}\n',
    ]
    done = recurra("forecast", "stream", trained / "run", stdin=b"\n".join([*bad, b""]))
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [answer["line"] for answer in told] == list(range(1, 2 * len(bad), 2))
    assert all(set(answer) == {"error", "line"} for answer in told)
    # A stream that met bad lines in between says the same of the good ones.
    good = [lines_of(event(16)), lines_of(event(17))]
    mixed = recurra("forecast", "stream", trained / "run", stdin=good[0] + b"".join(bad) + good[1])
    clean = recurra("forecast", "stream", trained / "run", stdin=b"".join(good))
    answers = [line for line in mixed.out.splitlines() if '"error"' not in line]
    late = '{"store": "north", "date": "2024-02-10", "duplicate": true}'  # after one of the 16th
    assert answers == [clean.out.splitlines()[0], late, clean.out.splitlines()[1]]
    assert (done.status, mixed.status, clean.status) == (1, 1, 0)
    assert done.err == f"{len(bad)} lines answered with an error\n"
    assert mixed.err == f"{len(bad) - 1} lines answered with an error\n"


def test_a_stream_with_a_store_goes_on_where_it_was(
    recurra: Recurra, trained: Path, tmp_path: Path
) -> None:
    run, store = trained / "run", tmp_path / "states.db"
    days = [
        event(day, 20.0 + day, store=name) for day in range(16, 24) for name in ("north", "süd")
    ]
    whole = recurra("forecast", "stream", run, stdin=lines_of(*days)).out.splitlines()
    first = recurra("forecast", "stream", run, "--store", store, stdin=lines_of(*days[:7]))
    again = recurra("forecast", "stream", run, "--store", store, stdin=lines_of(*days[4:]))
    assert first.out.splitlines() == whole[:7]
    # What was committed last, then the answers to what is sent: one duplicate, two repetitions.
    told = again.out.splitlines()
    assert told[:7] == whole[:7]
    assert told[7] == '{"store": "north", "date": "2024-02-18", "duplicate": true}'
    assert told[8:] == whole[5:]
    other = recurra("forecast", "stream", run, "--store", run / "config.json")
    assert (other.status, other.out) == (1, "")
    assert "config.json is no store of states" in other.err
    wrong = recurra("forecast", "stream", run, "--key", "shop")
    assert (wrong.status, wrong.out) == (2, "")
    assert "which 'store' names; 'shop' cannot be the key. Leave --key out." in wrong.err


def test_a_gap_in_a_stream_is_told_by_time_or_seq(recurra: Recurra, trained: Path) -> None:
    given = lines_of(event(16), event(19), {**event(20), "n": 1})
    told = recurra("forecast", "stream", trained / "run", stdin=given).out.splitlines()
    assert [json.loads(line).get("gap") for line in told] == [None, 2, None]
    given = lines_of({**event(16), "n": 1}, {**event(19), "n": 2}, {**event(20), "n": 9})
    done = recurra("forecast", "stream", trained / "run", "--seq", "n", stdin=given)
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [(answer["n"], answer.get("gap")) for answer in told] == [(1, None), (2, None), (9, 6)]


# Runs that are not there or damaged


@pytest.mark.parametrize("command", ["evaluate", "predict", "stream"])
def test_a_run_that_is_not_there_or_damaged_is_named(
    recurra: Recurra, run: Path, table: Path, command: str
) -> None:
    words = [table] if command == "evaluate" else []
    done = recurra("forecast", command, run / "gone", *words)
    assert (done.status, done.out) == (1, "")
    assert f"{run / 'gone'} is not a folder" in done.err
    model = run / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    done = recurra("forecast", command, run, *words)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(f"error: {model} is damaged")


def test_debug_shows_where_it_failed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "model.safetensors").unlink()
    assert leave("forecast", "predict", run, "--debug") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert f"error: {run / 'model.safetensors'} is missing" in err


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
@pytest.mark.parametrize(
    "words", [["predict", "--out", "-"], ["predict", "--json"], ["predict"], ["stream"]]
)
def test_a_reader_that_leaves_is_no_error_message(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, words: list[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines_of(event(16)))))
    closed = os.fdopen(writer, "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        status = leave("forecast", words[0], trained / "run", *words[1:])
    os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    closed.close()
    assert status == 1  # a text that was still waiting to be written would be 0
    assert capfd.readouterr().err == ""


def test_scores_are_kept_also_when_the_reader_leaves(
    run: Path, table: Path, monkeypatch: pytest.MonkeyPatch, no_ets: None
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    closed = os.fdopen(writer, "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        leave("forecast", "evaluate", run, table, "--json")
    os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    closed.close()
    assert (run / "metrics.json").is_file()


# Killed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork and SIGKILL")
def test_a_training_killed_at_random_moments_ends_in_the_same_bytes(tmp_path: Path) -> None:
    sales(tmp_path)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.killed_train", str(tmp_path), "1"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    killed = [(step, what) for status, step, what in found if status == -signal.SIGKILL]
    assert sum(step > 0 and what == "begun" for step, what in killed) >= 2  # while it trained
    steps = [step for _, step, _ in found]
    assert steps == sorted(steps)  # each life went on where the one before was killed
    assert files(tmp_path / "killed").keys() == files(tmp_path / "whole").keys()
    for name in ("model.safetensors", "state.safetensors", "checkpoints/fit.json"):
        ours, theirs = (tmp_path / run / name for run in ("killed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes(), name
    made = [Forecaster.load(tmp_path / run).predict() for run in ("killed", "whole")]
    assert made[0].equals(made[1])
