"""Texts with their labels: read from a table, checked row by row, held against each other."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recurra.data.tables import check_columns, read_table
from recurra.errors import DataError, unknown
from recurra.tasks.sentiment.words import Ids

_SHOWN = 5


@dataclass(frozen=True)
class Examples:
    """Texts and the label of each; `source` is what messages call them."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    source: str = "the table"

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise DataError(
                f"{self.source}: {len(self.texts)} texts and {len(self.labels)} labels; expected "
                "one label for each text."
            )

    def take(self, rows: Sequence[int] | Ids) -> Examples:
        """Some of them, by number."""
        return Examples(
            tuple(self.texts[k] for k in rows), tuple(self.labels[k] for k in rows), self.source
        )

    @property
    def balance(self) -> dict[str, int]:
        """How many texts each label has, labels in order."""
        return dict(sorted(Counter(self.labels).items(), key=lambda item: _order(item[0])))


def read_examples(source: Any, text: str, label: str) -> Examples:
    """Examples from a table with these columns, a file or a frame; `Examples` are only checked.

    Labels are texts: 1 and 1.0 become "1".
    Raises: DataError for a table that cannot be read, and for rows without text or label, by
    number, the first row after the header being 1.
    """
    if isinstance(source, Examples):
        examples = source
    else:
        table = read_table(source, text=(text, label))
        check_columns(table, (text, label))
        examples = Examples(
            tuple(map(_as_text, table[text].to_list())),
            tuple(map(_as_text, table[label].to_list())),
            str(source) if isinstance(source, (str, os.PathLike)) else "the table",
        )
    _refuse(examples, "text", text, [k for k, t in enumerate(examples.texts, 1) if not t.strip()])
    empty = [k for k, name in enumerate(examples.labels, 1) if not name.strip()]
    _refuse(examples, "label", label, empty)
    if not examples.texts:
        raise DataError(f"{examples.source} has no rows; expected texts with labels.")
    return examples


def read_texts(source: Any, text: str) -> list[str]:
    """Only the texts of a table. Raises: DataError as `read_examples`."""
    table = read_table(source, text=(text,))
    check_columns(table, (text,))
    return [_as_text(value) for value in table[text].to_list()]


def check_labels(examples: Examples, known: Sequence[str]) -> None:
    """Raise a DataError naming the first rows whose label was not trained."""
    valid = set(known)
    rows = [k for k, label in enumerate(examples.labels, 1) if label not in valid]
    if rows:
        message = unknown("label", examples.labels[rows[0] - 1], known)
        raise DataError(f"{examples.source}, {_rows(rows)}: {message}")


def fingerprints(texts: Sequence[str]) -> Ids:
    """A number for each text (N,); texts that differ in case and blanks only have the same."""
    digests = (
        hashlib.blake2b(" ".join(text.lower().split()).encode("utf-8", "replace"), digest_size=8)
        for text in texts
    )
    return np.array([int.from_bytes(d.digest(), "big", signed=True) for d in digests], np.int64)


def split_examples(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """(to learn from, to validate on): a share of the texts of each label, drawn by the seed.

    Copies of a text go to the same side.
    Raises: DataError when a label has fewer than two distinct texts.
    """
    rng = np.random.default_rng(seed)
    marks = fingerprints(examples.texts)
    kept = np.zeros(len(marks), bool)
    labels = np.array(examples.labels, dtype=object)
    for label in examples.balance:
        own = np.unique(marks[labels == label])
        if len(own) < 2:
            raise DataError(
                f"{examples.source}: label {label!r} has {len(own)} distinct text; expected at "
                "least 2, one to learn from and one to validate on. Add texts, or leave it out."
            )
        count = min(max(1, round(share * len(own))), len(own) - 1)
        kept |= np.isin(marks, rng.choice(own, count, replace=False))
    return examples.take(np.flatnonzero(~kept)), examples.take(np.flatnonzero(kept))


def count_copies(texts: Sequence[str]) -> int:
    """How many texts are there again, after their first time."""
    return len(texts) - len(np.unique(fingerprints(texts)))


def describe_balance(balance: Mapping[str, int]) -> str:
    """'neg 50.0 % (10), pos 50.0 % (10)', the largest first, and how many more there are."""
    total = sum(balance.values())
    ranked = sorted(balance.items(), key=lambda item: -item[1])
    words = [f"{name} {100 * n / total:.1f} % ({n})" for name, n in ranked[:10]]
    more = f" and {len(ranked) - 10} more" if len(ranked) > 10 else ""
    return ", ".join(words) + more


def label_order(labels: Sequence[str]) -> list[str]:
    """Distinct labels, numbers by their size and others by their letters."""
    return sorted(set(labels), key=_order)


def _order(label: str) -> tuple[int, float, str]:
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _refuse(examples: Examples, what: str, column: str, rows: list[int]) -> None:
    if rows:
        raise DataError(
            f"{examples.source}, {_rows(rows)}: no {what} in column {column!r}; expected one in "
            "every row. Fill it in, or take these rows out."
        )


def _rows(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:_SHOWN]))
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"
