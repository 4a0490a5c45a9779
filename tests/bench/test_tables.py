"""The tables and the page of an outcome."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.bench.fakes import outcome

from recurra.bench.tables import make_notes, make_page, make_tables, write_page
from recurra.errors import DataError


def test_tables_are_by_mode_and_threads_after_the_means() -> None:
    tables = make_tables(outcome())
    assert [table.title for table in tables] == [
        "Geometric means over the shapes: train",
        "Geometric means over the shapes: step",
        "Training: forward and backward, 2 threads",
        "One step at batch 1, 2 threads",
    ]
    train, step = tables[2:]
    assert train.rows[0] == ["gru", "64,96,32,64,1", "recurra", 4.93, 1, 5.71, 1, 84, 2e-7, 1e-6]
    assert train.rows[1][2] == "torch (disturbed)"
    assert dict(zip(step.headers, step.rows[0], strict=True)) | {"p50 µs": 4.1} == {
        "cell": "gru",
        "B,T,I,H,L": "64,96,32,64,1",
        "participant": "numpy",
        "p50 µs": 4.1,
        "p99 µs": pytest.approx(12.3),
        "min µs": 4.0,
        "ratio, medians": 12.0,
        "ratio, minima": 13.0,
        "output error": 1e-7,
    }


def test_notes_say_what_stands_beside_the_figures() -> None:
    notes = "\n".join(make_notes(outcome()))
    assert "3 of 12 rounds discarded" in notes
    assert "at most: 7 %" in notes
    assert "best matrix product, threads 2: 151.2 GFLOP/s" in notes
    assert "recurra ran on: cpu" in notes
    assert "jax is not installed: pip install jax" in notes
    assert "openvino failed at train gru: it fell" in notes
    assert "torch 2.13.0" in notes


def test_notes_of_memory_alone_speak_of_processes_and_not_of_rounds() -> None:
    row = {"mode": "memory", "cell": "gru", "threads": 1, "shape": [1, 1, 1, 1, 1], "processes": 3}
    untimed = {"rounds": 0, "discarded": 0, "waited": None}
    notes = make_notes({**outcome(), "rows": [row], "disturbed": untimed})
    assert notes[0] == "memory: median of 3 fresh processes"
    assert not any("rounds" in note for note in notes)


def test_the_page_is_assembled_from_the_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "performance.json"
    path.write_text(json.dumps(outcome()))
    assert write_page(path) == tmp_path / "performance.md"
    page = (tmp_path / "performance.md").read_text()
    assert page == make_page(outcome())
    assert "| gru | 64,96,32,64,1 | recurra | 4.93 | 1 | 5.71 | 1 | 84 | 2e-07 | 1e-06 |" in page
    assert "- machine: a machine\n- commit: abc\n" in page
    assert page.endswith("```\nrecurra bench --modes train,step\n```\n")


def test_a_file_of_something_else_is_said(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"task": "forecasting", "rows": []}')
    with pytest.raises(DataError, match="no outcome of `recurra bench`: it has no command, "):
        write_page(path)
    path.write_text('{"task": "bench"}')
    with pytest.raises(DataError, match="it has no command, "):
        write_page(path)
    path.write_text(json.dumps({**outcome(), "task": "other"}))
    with pytest.raises(DataError, match="it has no task as expected"):
        write_page(path)
    assert not (tmp_path / "other.md").exists()
