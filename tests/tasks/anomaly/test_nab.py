from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recurra.errors import DataError
from recurra.tasks.anomaly.nab import (
    PROFILES,
    NabFile,
    NabScorer,
    read_nab,
    sigmoid,
    windowed_gaussian,
    worth,
)

Find = Callable[[str], Path]


def make_file(*windows: tuple[int, int], rows: int = 1000) -> NabFile:
    times = np.datetime64("2024-01-01", "ns") + np.arange(rows) * np.timedelta64(5, "m")
    return NabFile("a/b.csv", times, np.zeros(rows), windows)


def detections(*rows: int, count: int = 1000, level: float = 1.0) -> np.ndarray:
    scores = np.zeros(count)
    scores[list(rows)] = level
    return scores


def test_a_perfect_and_a_silent_detector() -> None:
    scorer = NabScorer([make_file((300, 400), (600, 650))])
    first = scorer.sweep([detections(300, 600)])
    assert {name: swept.score for name, swept in first.items()} == dict.fromkeys(PROFILES, 100.0)
    silent = scorer.sweep([np.zeros(1000)])
    assert {name: swept.score for name, swept in silent.items()} == dict.fromkeys(PROFILES, 0.0)


def test_only_the_earliest_detection_of_a_window_counts() -> None:
    scorer = NabScorer([make_file((300, 400))])
    late = scorer.at([detections(350)], 0.5)
    both = scorer.at([detections(310, 350, 399)], 0.5)
    width = 101
    y = lambda row: float(sigmoid(np.array(-(400 - row + 1) / width)) / sigmoid(np.array(-1.0)))  # noqa: E731
    assert late["standard"] == pytest.approx(100 * (y(350) + 1) / 2)
    assert both["standard"] == pytest.approx(100 * (y(310) + 1) / 2)
    assert both["low_fn"] == pytest.approx(100 * (y(310) + 2) / 3)


def test_a_false_detection_costs_more_the_further_it_is() -> None:
    value, window = worth(make_file((300, 400)))
    assert window[149] == -2  # 15 % of 1,000 rows
    assert window[150] == -1
    assert value[200] == -1.0  # before any window
    assert value[410] == pytest.approx(2 / (1 + np.exp(5 * 10 / 100)) - 1)
    assert value[410] > value[450] > value[900] == -1.0
    scorer = NabScorer([make_file((300, 400))])
    found = scorer.at([detections(300, 200, 900)], 0.5)
    assert found["standard"] == pytest.approx(100 * (1 - 0.22 + 1) / 2)
    assert found["low_fp"] == pytest.approx(100 * (1 - 0.44 + 1) / 2)


def test_the_sweep_finds_the_best_threshold() -> None:
    scores = detections(300, level=0.9) + detections(500, 700, 900, level=0.5)
    swept = NabScorer([make_file((300, 400))]).sweep([scores])
    assert swept["standard"].score == 100.0
    assert swept["standard"].threshold == 0.9


def test_chosen_files_are_scored_alone() -> None:
    files = [make_file((300, 400)), make_file((300, 400))]
    scores = [detections(300), np.zeros(1000)]
    scorer = NabScorer(files)
    assert scorer.at(scores, 0.5)["standard"] == pytest.approx(50.0)
    assert scorer.at(scores, 0.5, [0])["standard"] == pytest.approx(100.0)
    assert scorer.at(scores, 0.5, [1])["standard"] == pytest.approx(0.0)


def test_the_corpus_and_the_published_floor(data_file: Find) -> None:
    """A full sweep scores the windowed Gaussian a little above the board's 39.6 / 20.9 / 47.4."""
    folder = data_file("anomaly/nab/nab.tar.xz").parent
    files = read_nab(folder)
    scorer = NabScorer(files)
    assert (len(files), scorer.windows) == (58, 116)
    swept = scorer.sweep([windowed_gaussian(file.values) for file in files])
    board = json.loads((folder / "final_results.json").read_text())["windowedGaussian"]
    names = {"standard": "standard", "low_fp": "reward_low_FP_rate", "low_fn": "reward_low_FN_rate"}
    for profile, (least, most) in {
        "standard": (0.0, 1.0), "low_fp": (0.0, 4.0), "low_fn": (0.0, 1.0),
    }.items():  # fmt: skip
        above = swept[profile].score - float(board[names[profile]])
        assert least <= above <= most


def test_another_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nab.tar.xz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"nab\.tar\.xz is not the archive of the benchmark"):
        read_nab(tmp_path)
