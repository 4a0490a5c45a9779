"""Pairs of sentences: two files aligned line by line, or a table of two columns, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recurra.data.tables import check_columns, read_table
from recurra.data.textfiles import read_line_pieces
from recurra.errors import DataError

_SHOWN = 5
# What is no character of a text: C0 and C1 controls, and separators that would break a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class Pairs:
    """Sentences and the translation of each.

    notes   what was found and left out
    lines   where each pair stood, from 1; () when all that stood there are here
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    name: str = "the pairs"
    notes: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> Pairs:
        """Some of them, by number."""
        return Pairs(
            tuple(self.source[k] for k in rows),
            tuple(self.target[k] for k in rows),
            self.name,
            self.notes,
            tuple(self.line(k) for k in rows),
        )

    def line(self, k: int) -> int:
        """The line, from 1, in which pair `k`, from 0, stood."""
        return self.lines[k] if self.lines else int(k) + 1


def read_pairs(source: Any, target: Any) -> Pairs:
    """Pairs out of two files (plain, .gz or .xz) or two sequences of texts, line by line.

    Only a line feed ends a line. Control characters become blanks, and pairs with an empty side are
    left out; both are noted with their line numbers.
    Raises: DataError for files that cannot be read or differ in their number of lines, and when no
    pair is left.

    >>> read_pairs(["a cat", ""], ["eine Katze", "ein Hund"]).notes
    ('1 pair with an empty side left out: line 2 of the source',)
    """
    sides = [_lines(side, name) for side, name in ((source, "source"), (target, "target"))]
    names = [_name(side, name) for side, name in ((source, "source"), (target, "target"))]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{names[0]} has {len(sides[0])} lines and {names[1]} has {len(sides[1])}; expected "
            "the translation of line n in line n, so equally many. Compare the ends of both files, "
            "and look for a line that was split or lost."
        )
    return clean(sides[0], sides[1], names)


def read_pair_table(table: Any, source: str, target: str) -> Pairs:
    """Pairs out of two columns of a table, a file or a frame; checked as by `read_pairs`.

    Raises: DataError for a table that cannot be read or lacks a column.
    """
    frame = read_table(table, text=(source, target))
    check_columns(frame, (source, target))
    sides = [
        ["" if value is None else str(value) for value in frame[name].to_list()]
        for name in (source, target)
    ]
    return clean(sides[0], sides[1], [f"column {source!r}", f"column {target!r}"])


def clean(source: Sequence[str], target: Sequence[str], names: Sequence[str]) -> Pairs:
    """Pairs without control characters and empty sides, noted by line.

    Raises: DataError when no pair is left.
    """
    notes: list[str] = []
    sides = []
    for side, name in ((source, names[0]), (target, names[1])):
        found = [k for k, text in enumerate(side, 1) if _CONTROL.search(text)]
        if found:
            notes.append(f"control characters became blanks in {_numbered(found)} of {name}")
        sides.append([tidy(text) for text in side])
    empty = {
        name: [k for k, text in enumerate(side, 1) if not text]
        for side, name in zip(sides, names, strict=True)
    }
    lost = sorted({k for numbers in empty.values() for k in numbers})
    if lost:
        where = ", ".join(
            f"{_numbered(numbers)} of {name}" for name, numbers in empty.items() if numbers
        )
        count = f"{len(lost)} pair{'s' if len(lost) > 1 else ''}"
        notes.append(f"{count} with an empty side left out: {where}")
    gone = set(lost)
    kept = [k for k in range(len(sides[0])) if k + 1 not in gone]
    if not kept:
        raise DataError(
            f"{names[0]} and {names[1]} have no pair of sentences; expected text on both sides of "
            "at least one line."
        )
    name = " and ".join(names)
    return Pairs(
        tuple(sides[0][k] for k in kept),
        tuple(sides[1][k] for k in kept),
        name,
        tuple(notes),
        tuple(k + 1 for k in kept) if lost else (),
    )


def tidy(text: str) -> str:
    """A sentence as it is read everywhere: no control characters, single blanks."""
    return _BLANKS.sub(" ", _CONTROL.sub(" ", text)).strip()


def read_sentences(path: Path) -> list[str]:
    """The lines of a file, as they are but for their ends."""
    return split_lines("".join(read_line_pieces(path)))


def split_lines(text: str) -> list[str]:
    """The lines of a text; only a line feed ends one, with a carriage return before it or not."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _lines(side: Any, name: str) -> list[str]:
    if isinstance(side, (str, os.PathLike)):
        return read_sentences(Path(side))
    lines = list(side)
    wrong = next((k for k, text in enumerate(lines) if not isinstance(text, str)), None)
    if wrong is not None:
        raise DataError(
            f"the {name} holds a {type(lines[wrong]).__name__} at {wrong + 1}; expected texts, or "
            "the path of a file."
        )
    return lines


def _name(side: Any, name: str) -> str:
    return str(side) if isinstance(side, (str, os.PathLike)) else f"the {name}"


def _numbered(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN]))
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"
