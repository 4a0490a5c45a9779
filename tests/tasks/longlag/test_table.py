"""The page is made of the cases' files, and says what was not solved."""

from __future__ import annotations

from typing import Any

import pytest

from recurra.errors import DataError
from recurra.tasks.longlag.table import format_page


def case(
    cell: str = "lstm",
    clip: str = "norm",
    seed: int = 0,
    length: int | None = 200,
    steps: int | None = 100,
    **changes: Any,
) -> dict[str, Any]:
    score = changes.pop("score", {"mse": 0.005 if steps else 0.16})
    solved = {} if length is None else {"steps_to_solve": steps}
    outcome = {
        "task": "longlag",
        "data": "adding" if length is None else f"adding, T = {length}",
        "results": [{"model": cell.upper(), "source": "measured", "metrics": {**solved, **score}}],
        "seconds": 10.0 + seed,
        "machine": "a machine",
        "commit": "abc",
        "case": {"cell": cell, "length": length, "clip": clip, "seed": seed},
        "problem": {"measure": "mse", "baseline": 1 / 6, "solved_below": 0.01},
        "training": {
            "steps": 5000,
            "hidden_size": 64,
            "num_layers": 1,
            "batch_size": 50,
            "learning_rate": 2e-3,
            "clip_limit": 1.0,
            "parameters": 12345,
            "steps_done": steps or 5000,
            "stopped": "target" if steps else "steps",
            "clipped": 0.25 if clip == "norm" else 0.0,
        },
    }
    for key, value in changes.items():
        outcome[key] = outcome[key] | value if isinstance(value, dict) else value
    return outcome


def rows(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_row_has_the_case_and_its_numbers() -> None:
    page = format_page("adding", "About it.\n", [case()])
    assert page.startswith("# adding\n\nAbout it.\n\n## adding, T = 200\n")
    assert "Baseline, without memory: mse 0.1667. Solved: mse below 0.01." in page
    assert rows(page) == [
        [
            "cell",
            "clip",
            "seeds",
            "solved",
            "steps to solve",
            "test mse",
            "clipped steps",
            "seconds",
            "CPU seconds",
            "parameters",
        ],
        ["LSTM", "norm", "0", "1 of 1", "100", "0.005", "25.0%", "10", "-", "12,345"],
    ]
    assert "- learning rate: 0.002" in page
    assert "- steps: 5000\n" in page
    assert "- commit: abc\n" in page
    assert "recurra reproduce adding\n" in page


def test_seeds_become_mean_and_deviation_of_those_that_solved_it() -> None:
    page = format_page("adding", "", [case(seed=1, steps=300), case(), case(seed=2, steps=None)])
    (_, row) = rows(page)
    assert row[2:5] == ["0, 1, 2", "2 of 3", "200 ± 141"]
    assert row[5] == "0.05667 ± 0.0895"
    assert row[7] == "11"


def test_the_cpu_time_is_that_of_the_runs_that_have_it() -> None:
    timed = [case(seed=seed, training={"cpu_seconds": 40.0 + 10 * seed}) for seed in (0, 1)]
    (_, row) = rows(format_page("adding", "", [*timed, case(seed=2)]))
    assert row[7:9] == ["11", "45"]


def test_not_solved_and_diverged_are_said() -> None:
    diverged = {"stopped": "diverged", "steps_done": 777, "clipped": None}
    page = format_page(
        "adding", "", [case("gru", steps=None, training=diverged), case("elman", steps=None)]
    )
    _, elman, gru = rows(page)
    assert elman[:5] == ["ELMAN", "norm", "0", "0 of 1", "not in 5,000"]
    assert gru[3:5] == ["0 of 1", "diverged within 777"]
    assert gru[6] == "-"


def test_lengths_have_tables_of_their_own_and_cells_keep_their_order() -> None:
    cases = [case(length=1000), case("gru"), case("elman", "none"), case("elman"), case()]
    page = format_page("adding", "", cases)
    assert page.index("T = 200") < page.index("T = 1000")
    first = [row[:2] for row in rows(page[: page.index("T = 1000")])[1:]]
    assert first == [["ELMAN", "none"], ["ELMAN", "norm"], ["LSTM", "norm"], ["GRU", "norm"]]
    assert len(rows(page[page.index("T = 1000") :])) == 2


def test_accuracy_has_a_baseline_and_a_criterion_of_its_own() -> None:
    coin = {"measure": "error", "baseline": 0.5, "solved_below": 0.01}
    page = format_page("parity", "", [case(score={"accuracy": 0.998}, problem=coin)])
    assert "accuracy 0.5. Solved: accuracy above 0.99." in page
    assert rows(page)[1][5] == "0.998"
    images = {"measure": "error", "baseline": 0.9, "solved_below": None}
    page = format_page("digits", "", [case(length=None, score={"accuracy": 0.8}, problem=images)])
    assert "accuracy 0.1.\n" in page
    assert "solve" not in page
    assert rows(page)[1][3] == "0.8"


def test_settings_that_differ_are_all_said() -> None:
    page = format_page("adding", "", [case(), case("gru", training={"steps": 900})])
    assert "- steps: 5000; 900" in page


def test_an_outcome_of_something_else_is_refused() -> None:
    broken = case()
    del broken["training"]
    with pytest.raises(DataError, match="'adding, T = 200' has no training; expected the form"):
        format_page("adding", "", [broken])
