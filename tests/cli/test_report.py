"""`recurra report`: one page of a run's own files, which nothing foreign gives way to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.cli.conftest import SALES, TINY, UNTIL, Recurra

from recurra.runs import RunFolder
from recurra.tasks.forecasting import baselines

URL = re.compile(r"https?:|@import|url\(|//[a-z]+\.[a-z]", re.IGNORECASE)


def test_the_report_is_written_into_the_run(recurra: Recurra, run: Path) -> None:
    path = run / "report.html"
    assert recurra("report", run) == (0, f"{path}\n", "")
    page = path.read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert not URL.search(page)
    assert "frequency: 1 day" in page
    assert "has not been evaluated" in page
    assert page.count("<figure") == 3  # two stores and the loss
    assert recurra("report", run).status == 0  # its own file is written anew


def test_gradients_are_drawn_where_they_were_measured(
    recurra: Recurra, run: Path, table: Path, tmp_path: Path
) -> None:
    done = recurra("report", run, "--gradients")
    assert (done.status, done.out) == (1, "")
    assert f"{run / 'gradients.jsonl'} is missing or empty" in done.err
    assert "--set training.gradient_flow_every=100" in done.err
    assert not (run / "report.html").exists()

    out = tmp_path / "measured"
    options = (*SALES, *UNTIL, *TINY, "--set", "training.gradient_flow_every=1")
    assert recurra("forecast", "train", table, *options, "--out", out).status == 0
    assert len((out / "gradients.jsonl").read_text().splitlines()) == 3
    assert recurra("report", out, "--gradients").status == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<h2>Gradient flow</h2>" in page
    assert "recurrent, layer 0" in page
    assert page.count("<figure") == 4
    assert not URL.search(page)
    assert recurra("report", out).status == 0
    assert "Gradient flow" not in (out / "report.html").read_text(encoding="utf-8")
    (out / "gradients.jsonl").write_text('{"step": 0, "layers": []}')
    done = recurra("report", out, "--gradients")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "gradients.jsonl is damaged: a line is not a measurement" in done.err


def test_scores_of_evaluate_are_in_the_report(
    recurra: Recurra, run: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "why_no_ets", lambda *_: "not now")
    assert recurra("forecast", "evaluate", run, table).status == 0
    assert recurra("report", run).status == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "has not been evaluated" not in page
    assert "seasonal_naive" in page
    assert "sales.csv, 6 windows of 4 steps" in page
    assert page.count("<figure") == 5  # errors by step and calibration too


def test_another_file_is_replaced_with_force_only(
    recurra: Recurra, run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    assert recurra("report", run, "--out", path).status == 0
    path.write_text("mine")
    done = recurra("report", run, "--out", path)
    assert (done.status, done.out) == (1, "")
    assert f"{path} is already there. Pass --force" in done.err
    assert path.read_text() == "mine"
    assert not (run / "report.html").exists()
    assert recurra("report", run, "--out", path, "--force") == (0, f"{path}\n", "")
    assert "<figure" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "state.safetensors"])
def test_a_damaged_run_is_named_and_keeps_its_report(
    recurra: Recurra, run: Path, name: str
) -> None:
    (run / "report.html").write_text("before")
    (run / name).write_bytes((run / name).read_bytes()[:-9])
    done = recurra("report", run)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"error: {run / name} is damaged" in done.err
    assert (run / "report.html").read_text() == "before"


def test_damaged_scores_are_named(recurra: Recurra, run: Path) -> None:
    (run / "metrics.json").write_text('{"task": "fore')
    done = recurra("report", run)
    assert (done.status, done.out) == (1, "")
    assert f"{run / 'metrics.json'} is damaged: not valid JSON" in done.err


def test_torn_lines_of_the_log_are_left_out(recurra: Recurra, run: Path) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    assert recurra("report", run).status == 0


def test_what_is_no_run_is_named(recurra: Recurra, tmp_path: Path) -> None:
    done = recurra("report", tmp_path / "gone")
    assert (done.status, done.out) == (1, "")
    assert "gone is not a folder; expected a run made by" in done.err


def test_a_task_without_reports_lists_those_that_have_one(recurra: Recurra, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write_config("forcasting", json.loads("{}"))
    done = recurra("report", run.path)
    assert (done.status, done.out) == (1, "")
    assert f"{run.config_path}: unknown task 'forcasting'; did you mean 'forecasting'?" in done.err
