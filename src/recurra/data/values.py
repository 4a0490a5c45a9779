"""Reading a column of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recurra.data.tables import MISSING
from recurra.data.times import Where, text_of
from recurra.errors import DataError

if TYPE_CHECKING:
    import narwhals as nw


def is_text(column: nw.Series[Any]) -> bool:
    """True for a column of words; False for numbers, yes/no, or text that is all numbers."""
    import polars as pl

    if column.dtype.is_numeric() or _is_boolean(column):
        return False
    text = text_of(column).str.strip_chars()
    text = text.set(text.is_in(MISSING), None)
    return text.cast(pl.Float64, strict=False).null_count() > text.null_count()


def read_numbers(column: nw.Series[Any], name: str, where: Where) -> npt.NDArray[np.float64]:
    """Values as float64, NaN = missing.

    Raises: DataError naming the row for text, dates and infinities.
    """
    import narwhals as nw
    import polars as pl

    if column.dtype.is_numeric() or _is_boolean(column):
        values = column.cast(nw.Float64).to_numpy().astype(np.float64)
    else:
        text = text_of(column).str.strip_chars()
        text = text.set(text.is_in(MISSING), None)
        numbers = text.cast(pl.Float64, strict=False)
        bad = numbers.is_null() & text.is_not_null()
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise DataError(
                f"{where(row + 1)}: {name!r} is {text[row]!r}; expected a number, or nothing where "
                "it is missing. Correct the row or choose another column."
            )
        values = numbers.to_numpy().astype(np.float64)
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        row = int(infinite[0])
        raise DataError(
            f"{where(row + 1)}: {name!r} is {values[row]}; expected a finite number. "
            "Leave it empty if it is missing."
        )
    return values


def _is_boolean(column: nw.Series[Any]) -> bool:
    import narwhals as nw

    return bool(column.dtype == nw.Boolean)
