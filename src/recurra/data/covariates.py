"""Covariates as numbers: one-hot columns for text, filled gaps, one row of static ones a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import Indices
from recurra.data.times import Where, text_of
from recurra.data.values import is_text, read_numbers
from recurra.errors import DataError

if TYPE_CHECKING:
    import narwhals as nw

_MOST_CATEGORIES = 256


@dataclass(frozen=True)
class Covariates:
    """Columns of covariates as numbers, NaN = missing.

    Shapes: values (rows, width); `source` and `is_text` (width,) say for each feature the column
    of the table that it comes from, and whether it is one-hot.
    """

    values: npt.NDArray[np.float64]
    source: tuple[str, ...]
    is_text: npt.NDArray[np.bool_]
    categories: dict[str, list[str]]
    notes: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.source)


class Span(NamedTuple):
    """Rows of one series on the grid of all: targets in top:stop, known future up to end."""

    top: int
    stop: int
    end: int


def called(name: str) -> str:
    """A series in a message; the only series of a table without a series column has no name."""
    return f"series {name!r}" if name else "the table"


def encode(
    table: nw.DataFrame[Any],
    columns: Sequence[str],
    categories: Mapping[str, Sequence[str]] | None,
    where: Where,
) -> Covariates:
    """Read covariate columns; text becomes one-hot over `categories` (None: those of the table).

    Raises: DataError for an infinity, dates, text where numbers were learned, too many categories.
    """
    parts: list[npt.NDArray[np.float64]] = []
    source: list[str] = []
    hot: list[bool] = []
    learned: dict[str, list[str]] = {}
    notes: list[str] = []
    for name in columns:
        column = table[name]
        if column.dtype.is_temporal():
            raise DataError(
                f"the covariate {name!r} holds dates; expected numbers or words. Leave it out (the "
                "calendar is known without it), or turn it into a number such as days since."
            )
        if categories is None and is_text(column):
            learned[name] = _categories(column, name)
        elif categories is not None and name in categories:
            learned[name] = list(categories[name])
        if name in learned:
            part, unknown = _one_hot(column, learned[name])
            if unknown:
                notes.append(
                    f"{name!r} has {len(unknown)} value(s) that training has not seen, such as "
                    f"{unknown[0]!r}; they count as none of the known ones"
                )
        else:
            part = read_numbers(column, name, where)[:, None]
        parts.append(part)
        source += [name] * part.shape[1]
        hot += [name in learned] * part.shape[1]
    values = np.concatenate([np.zeros((len(table), 0)), *parts], axis=1)
    return Covariates(values, tuple(source), np.array(hot, bool), learned, tuple(notes))


def _categories(column: nw.Series[Any], name: str) -> list[str]:
    values: list[str] = text_of(column).drop_nulls().unique().sort().to_list()
    if len(values) > _MOST_CATEGORIES:
        raise DataError(
            f"the text column {name!r} has {len(values)} different values, such as {values[0]!r}; "
            f"expected at most {_MOST_CATEGORIES}. Leave it out, or group the values."
        )
    return values


def _one_hot(
    column: nw.Series[Any], categories: list[str]
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """(rows, len(categories)) of 0 and 1, NaN where missing, and the values that are in none."""
    import polars as pl

    text = text_of(column)
    known = text.is_in(categories)
    unknown = text.filter(~known & text.is_not_null()).unique(maintain_order=True).to_list()
    codes = text.set(~known, None).cast(pl.Enum(categories)).to_physical().cast(pl.Int64)
    hot = np.zeros((len(text), len(categories)))
    rows = known.fill_null(False).to_numpy().nonzero()[0]
    hot[rows, codes.drop_nulls().to_numpy()] = 1.0
    hot[text.is_null().to_numpy()] = np.nan
    return hot, unknown


def fill_forward(
    values: npt.NDArray[np.float64],
    offsets: Indices,
    covariates: Covariates,
    spans: Sequence[Span],
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Fill missing values by the last known one of the same series; leading ones stay missing.

    Filling those as well, from later rows, would let the future into the past.

    Shapes: values (rows, width), offsets (series + 1,) where each series begins and the end.
    The notes count what was missing in the spans' rows only: others are not used.
    """
    missing = np.isnan(values)
    notes = []
    rows = np.arange(len(values))[:, None]
    begin = np.repeat(offsets[:-1], np.diff(offsets))[:, None]
    last = np.maximum.accumulate(np.where(missing, -1, rows), axis=0)
    chosen = np.where(last >= begin, last, rows)
    used = np.zeros(len(values), bool)
    for span in spans:
        used[span.top : span.end] = True
    for column in dict.fromkeys(covariates.source):
        count = int((missing[:, covariates.source.index(column)] & used).sum())
        if count:
            notes.append(
                f"{count} missing value(s) of {column!r} count as the last known one, "
                "or as unknown before it"
            )
    return np.take_along_axis(values, chosen, axis=0), notes


def static_rows(static: Covariates, codes: Indices, names: list[str]) -> npt.NDArray[np.float64]:
    """The static covariates of each series, (series, width); missing text is none of the values.

    Raises: DataError when one changes within a series, or a number is missing in all its rows.
    """
    out = np.zeros((len(names), static.width))
    for feature, source in enumerate(static.source):
        values = static.values[:, feature]
        present = ~np.isnan(values)
        rows, of = np.flatnonzero(present), codes[present]
        found = np.full(len(names), np.nan)
        found[of[::-1]] = values[rows[::-1]]  # the first row of each series is written last
        changed = np.flatnonzero(values[rows] != found[of])
        if changed.size:
            row = int(rows[changed[0]])
            first = int(rows[np.flatnonzero(of == codes[row])[0]])
            raise DataError(
                f"{called(names[codes[row]])}: the static covariate {source!r} is not the same in "
                f"row {first + 1} and row {row + 1}; expected one value for the whole series. "
                "Correct it, or make it a past or future covariate."
            )
        empty = np.flatnonzero(np.isnan(found))
        if empty.size and not static.is_text[feature]:
            raise DataError(
                f"{called(names[empty[0]])} has no value of the static covariate {source!r}; "
                "expected one. Fill it in, or leave the covariate out."
            )
        out[:, feature] = np.nan_to_num(found)
    return out
