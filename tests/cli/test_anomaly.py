from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.cli.conftest import Recurra, leave

COLUMNS = ("--time", "t", "--value", "cpu")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cpu.csv, 300 rows with a labelled spike at 270, and `run` of the first 200."""
    folder = tmp_path_factory.mktemp("watched")
    cpu = np.random.default_rng(0).normal(50, 1, 300)
    cpu[270] = 90
    label = (np.arange(300) >= 268) & (np.arange(300) < 275)
    frame = pl.DataFrame({"t": np.arange(300), "cpu": cpu, "label": label.astype(int)})
    frame.write_csv(folder / "cpu.csv")
    words = ("anomaly", "train", folder / "cpu.csv", *COLUMNS, "--until", "199")
    assert leave(*words, "--out", folder / "run") == 0
    return folder


def test_train_says_what_was_watched(recurra: Recurra, watched: Path, tmp_path: Path) -> None:
    words = ("anomaly", "train", watched / "cpu.csv", *COLUMNS, "--out", tmp_path / "run")
    done = recurra(*words)
    assert done.status == 0
    assert "watched 300 rows of 1 series" in done.out
    assert "at surprise 1.15" in done.out
    again = recurra(*words)
    assert (again.status, "already holds files" in again.err) == (1, True)
    forced = recurra(*words, "--force", "--threshold", "3", "--set", "jump=2", "--json")
    answer = json.loads(forced.out)
    assert answer["task"] == "anomaly"
    assert (answer["threshold"], answer["rows"]) == (3.0, 300)


def test_train_refuses_a_wrong_setting(recurra: Recurra, watched: Path, tmp_path: Path) -> None:
    done = recurra(
        "anomaly", "train", watched / "cpu.csv", *COLUMNS, "--out", tmp_path / "r", "--set", "jmp=2"
    )
    assert done.status == 2
    assert "did you mean 'jump'" in done.err
    assert not (tmp_path / "r").exists()


def test_predict_lists_alarms_and_writes_every_row(
    recurra: Recurra, watched: Path, tmp_path: Path
) -> None:
    out, plot = tmp_path / "s.csv", tmp_path / "s.png"
    done = recurra(
        "anomaly", "predict", watched / "run", watched / "cpu.csv", "--out", out, "--plot", plot
    )
    assert done.status == 0
    assert "alarm" in done.out.splitlines()[-1]
    scores = pl.read_csv(out)
    assert scores.columns == [
        "t", "score", "surprise", "alarm", "expected", "lower", "upper", "status",
    ]  # fmt: skip
    assert len(scores) == 300
    assert scores.filter(pl.col("alarm"))["t"].to_list()[-1] == 270
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert (
        recurra("anomaly", "predict", watched / "run", watched / "cpu.csv", "--out", out).status
        == 1
    )


def test_predict_as_json_and_on_stdout(recurra: Recurra, watched: Path) -> None:
    words = ("anomaly", "predict", watched / "run", watched / "cpu.csv")
    answers = json.loads(recurra(*words, "--json").out)["answers"]
    assert len(answers["surprise"]) == 300
    rows = recurra(*words, "--out", "-").out.splitlines()
    assert len(rows) == 301
    both = recurra(*words, "--out", "-", "--json")
    assert (both.status, "both write to stdout" in both.err) == (2, True)


def test_evaluate_shows_every_baseline_and_report_keeps_it(recurra: Recurra, watched: Path) -> None:
    done = recurra("anomaly", "evaluate", watched / "run", watched / "cpu.csv", "--json")
    outcome = json.loads(done.out)
    assert [row["model"] for row in outcome["results"]] == [
        "recurra", "random", "moving_z", "difference", "pca_window",
    ]  # fmt: skip
    ours = outcome["results"][0]["metrics"]
    assert ours["event_recall"] == 1
    assert ours["delay"] == 2
    assert ours["vus_pr"] > outcome["results"][1]["metrics"]["vus_pr"]
    assert recurra("report", watched / "run").status == 0
    page = (watched / "run" / "report.html").read_text()
    assert "pca_window" in page
    assert "What was watched" in page


def test_evaluate_needs_labels_of_both_kinds(recurra: Recurra, watched: Path) -> None:
    done = recurra("anomaly", "evaluate", watched / "run", watched / "cpu.csv", "--label", "t")
    assert done.status == 1
    assert "row 3: the label 't' is 2; expected 0" in done.err


def test_stream_equals_predict_and_goes_on_after_bad_lines(recurra: Recurra, watched: Path) -> None:
    frame = pl.read_csv(watched / "cpu.csv")[200:]
    lines = [json.dumps({"t": t, "cpu": x}) for t, x in frame.select("t", "cpu").rows()]
    lines.insert(50, "{oops")
    done = recurra("anomaly", "stream", watched / "run", stdin="\n".join(lines).encode())
    assert done.status == 1
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert answers.pop(50)["line"] == 51
    wanted = recurra("anomaly", "predict", watched / "run", watched / "cpu.csv", "--json")
    surprise = json.loads(wanted.out)["answers"]["surprise"][200:]
    assert [answer["surprise"] for answer in answers] == surprise
