"""What is printed: JSON that every reader accepts, and tables that line up."""

from __future__ import annotations

import json

import pytest

from recurra.cli.output import format_cell, print_json, print_outcome, print_table

OUTCOME = {
    "task": "forecasting",
    "data": "weather",
    "results": [
        {
            "model": "recurra",
            "source": "measured",
            "metrics": {"mase": {"mean": 0.71, "sd": 0.02, "n": 3}},
        },
        {"model": "naive", "source": "measured", "metrics": {"mase": 1.0, "owa": None}},
    ],
    "seconds": 12.4,
    "machine": "a laptop",
    "commit": "abc",
}


def test_json_is_one_line_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": -float("inf")}, "é": "ü"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": None, "b": [None, 1.5], "c": {"d": None}, "é": "ü"}
    assert "é" in out


def test_columns_line_up_and_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "value"], [["a", 1.0], ["longer", 123.456]])
    assert capsys.readouterr().out.splitlines() == [
        "name    value",
        "a           1",
        "longer  123.5",
    ]


def test_a_table_without_rows_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "value"], [])
    assert capsys.readouterr().out == "name  value\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (3, "3"),
        (float("nan"), "-"),
        (0.123456, "0.1235"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert format_cell(value) == text


def test_an_outcome_is_a_row_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(OUTCOME, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "source", "mase", "owa"]
    assert lines[1].split() == ["recurra", "measured", "0.71", "±", "0.02", "-"]
    assert lines[2].split() == ["naive", "measured", "1", "-"]
    assert lines[4] == "weather: 12 s on a laptop"


def test_an_outcome_as_json_is_itself(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(OUTCOME, as_json=True)
    assert json.loads(capsys.readouterr().out) == OUTCOME
