"""What commands print on stdout: a table for people, or one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from recurra.report.results import KEYS, format_metric, metric_names
from recurra.runs import finite


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; NaN and infinities, which JSON has not, become null."""
    print(json.dumps(finite(value), ensure_ascii=False, allow_nan=False), flush=True)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headers, numbers to the right.

    >>> print_table(["model", "mase"], [["recurra", 0.75], ["naive", None]])
    model    mase
    recurra  0.75
    naive       -
    """
    cells = [[format_cell(value) for value in row] for row in rows]
    columns = range(len(headers))
    widths = [max(len(line[k]) for line in [list(headers), *cells]) for k in columns]
    right = [bool(rows) and all(_is_number(row[k]) for row in rows) for k in columns]
    for line in [list(headers), *cells]:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip())
    sys.stdout.flush()


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float, Mapping)) and value is not True)


def format_cell(value: object) -> str:
    """The text of one table cell: numbers to four figures, `-` for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (float, Mapping)):
        return format_metric(value)
    return str(value)


def print_outcome(outcome: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what `evaluate` or `reproduce` found: the JSON as it is, or a row for each model."""
    if as_json:
        print_json(outcome)
        return
    results = outcome["results"]
    names = metric_names(results)
    print_table(
        ["model", "source", *names],
        [
            [row["model"], row["source"], *(row["metrics"].get(name) for name in names)]
            for row in results
        ],
    )
    print(f"\n{outcome['data']}: {outcome['seconds']:.0f} s on {outcome['machine']}", flush=True)


def print_scores(outcome: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what `evaluate` found, with its notes: on stderr where stdout is for a program."""
    print_outcome({key: outcome[key] for key in KEYS}, as_json=as_json)
    for note in outcome["notes"]:
        print(f"note: {note}", file=sys.stderr if as_json else sys.stdout, flush=True)
