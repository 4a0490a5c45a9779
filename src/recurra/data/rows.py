"""Which series each row of a long table belongs to, and how a message calls a row."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recurra.data.calendar import Indices
from recurra.data.tables import check_columns, read_table
from recurra.data.times import Times, text_of
from recurra.errors import DataError

if TYPE_CHECKING:
    import narwhals as nw


@dataclass(frozen=True)
class LongTable:
    """A table with a row for each time of each series.

    names   of the series, in order of first appearance; [""] for one without a name
    codes   (rows,) the number of each row's series
    """

    frame: nw.DataFrame[Any]
    column: str | None
    names: list[str]
    codes: Indices

    def where(self, row: int) -> str:
        """What a message calls a row, counted from 1: "series 'a', row 3"."""
        if self.column is None:
            return f"row {row}"
        return f"series {self.names[self.codes[row - 1]]!r}, row {row}"

    def check_present(self, times: Times, column: str) -> None:
        """Check that every row has a time. Raises: DataError naming the first that has none."""
        absent = np.flatnonzero(times.missing)
        if absent.size:
            raise DataError(
                f"{self.where(int(absent[0]) + 1)}: no time in the column {column!r} "
                f"({absent.size} row(s) in all). Fill it in or remove the row."
            )


def read_long(source: Any, series: str | None, names: Collection[str]) -> LongTable:
    """A frame, or a CSV or Parquet file, with all of the columns `names`.

    series   the column that names the series; None for a table of one
    Raises: DataError for a column that is not there, a table without rows, and a row whose series
    has no name.

    >>> import polars
    >>> table = read_long(polars.DataFrame({"s": ["b", "a", "b"], "y": [1, 2, 3]}), "s", ["s", "y"])
    >>> table.names, table.codes.tolist(), table.where(2)
    (['b', 'a'], [0, 1, 0], "series 'a', row 2")
    """
    frame = read_table(source, text=() if series is None else (series,))
    check_columns(frame, names)
    if not len(frame):
        raise DataError("the table has no rows; expected at least one.")
    return LongTable(frame, series, *_series_codes(frame, series))


def _series_codes(frame: Any, column: str | None) -> tuple[list[str], Indices]:
    import polars as pl

    if column is None:
        return [""], np.zeros(len(frame), np.int64)
    text = text_of(frame[column])
    if text.null_count():
        row = int(text.is_null().arg_max() or 0) + 1
        raise DataError(
            f"row {row}: no value in the column {column!r}, which names the series. "
            "Fill it in or remove the row."
        )
    distinct = text.unique(maintain_order=True)
    codes = text.cast(pl.Enum(distinct)).to_physical().cast(pl.Int64).to_numpy()
    return distinct.to_list(), codes
