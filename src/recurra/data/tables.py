"""Reading a table: a frame that is already in memory, or a CSV, TSV, JSON lines or Parquet file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recurra.errors import DataError, MissingExtraError, unknown

if TYPE_CHECKING:
    import narwhals as nw
    import polars as pl

MISSING = ("", "NA", "NaN", "nan", "null")  # texts that mean "no value" in a file
_PACKED = ("", ".gz", ".xz")
_TSV, _JSONL = (tuple(f".{kind}{end}" for end in _PACKED) for kind in ("tsv", "jsonl"))
_SUFFIXES = (".csv", ".csv.gz", ".csv.xz", *_TSV, *_JSONL, ".parquet")
_SEPARATORS = (",", ";", "\t")


def read_table(source: Any, *, text: Collection[str] = ()) -> nw.DataFrame[Any]:
    """Table from a frame (pandas, polars or any other that narwhals knows) or from a file's path.

    Files: .csv (UTF-8; separated by comma, semicolon or tab as the header is), .tsv (by tabs, and
    quotes are characters like others) and .jsonl (one object a line, with the columns of the first
    one), all three also with .gz or .xz, and .parquet. Empty cells, `NA`, `NaN` and `null` are
    missing. A column of a CSV file is whole numbers, floating point or text, whichever first fits
    every row; columns named in `text` stay as they are written ('007', 'NA').

    Raises: DataError for a missing, empty, undecodable or ragged file and for anything else that
    is no table, MissingExtraError without narwhals or polars.

    >>> import polars
    >>> read_table(polars.DataFrame({"day": [1, 2]})).columns
    ['day']
    """
    try:
        import narwhals as nw
        import polars as pl
    except ImportError as error:
        package = error.name or "narwhals"
        raise MissingExtraError(package, "forecasting", "Reading tables") from error
    if isinstance(source, (str, os.PathLike)):
        return nw.from_native(_read_file(Path(source), text), eager_only=True)
    try:
        # A lazy polars frame is computed here; everything after this needs its values.
        frame = source.collect() if isinstance(source, pl.LazyFrame) else source
        table: nw.DataFrame[Any] = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise DataError(
            f"a {type(source).__name__} is not a table; expected a pandas or polars frame, or the "
            f"path of a file ending in {', '.join(_SUFFIXES)}."
        ) from error
    except ValueError as error:
        raise DataError(f"the frame cannot be used: {error}") from error
    return table


def check_columns(table: nw.DataFrame[Any], names: Collection[str]) -> None:
    """Raise a DataError that names the nearest column for the first of `names` not in the table."""
    for name in names:
        if name in table.columns:
            continue
        message = unknown("column", name, table.columns)
        if name in (getattr(getattr(table.to_native(), "index", None), "names", None) or ()):
            message += f" {name!r} is the frame's index: pass frame.reset_index()."
        raise DataError(message)


def _read_file(path: Path, text: Collection[str]) -> pl.DataFrame:
    import polars as pl

    name = path.name.lower()
    if not name.endswith(_SUFFIXES):
        raise DataError(f"{path} is no table by its name; expected {', '.join(_SUFFIXES)}.")
    content = _read_bytes(path)
    if not content.strip():
        raise DataError(f"{path} is empty; expected a header and at least one row.")
    if name.endswith(_JSONL):
        return _read_jsonl(path, content, text)
    if not name.endswith(".parquet"):
        return _read_csv(path, content, text)
    try:
        return pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is not a Parquet file ({error}). Write it again.") from error


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a table's file.")
    try:
        raw = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            return gzip.decompress(raw)
        return lzma.decompress(raw) if path.name.lower().endswith(".xz") else raw
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist; expected a table's file. Check the path."
        ) from error
    except (gzip.BadGzipFile, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path} is damaged: it does not decompress ({error}).") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_csv(path: Path, content: bytes, text: Collection[str]) -> pl.DataFrame:
    import polars as pl

    content = content.removeprefix(b"\xef\xbb\xbf")
    _check_encoding(path, content)
    # Old Mac line ends and a final line without one would both hide a row from the checks below.
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n") + b"\n"
    quote = None if path.name.lower().endswith(_TSV) else '"'
    separator = _check_shape(path, content, quote)
    try:
        table = pl.read_csv(
            io.BytesIO(content), separator=separator, quote_char=quote, infer_schema=False
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not a CSV table: {error}") from error
    if not len(table):
        raise DataError(f"{path} has a header but no rows; expected at least one row.")
    return table.with_columns(
        _typed(column) if column.name not in text else column for column in table.get_columns()
    )


def _read_jsonl(path: Path, content: bytes, text: Collection[str]) -> pl.DataFrame:
    """One JSON object a line; what is no text, number or null becomes JSON text."""
    import polars as pl

    content = content.removeprefix(b"\xef\xbb\xbf")
    _check_encoding(path, content)
    columns: dict[str, list[Any]] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _parse_row(path, number, line)
        columns = columns or {name: [] for name in row}
        if row.keys() != columns.keys():
            raise DataError(
                f"{path}, line {number} has the keys {', '.join(row)}; expected those of the first "
                f"line, {', '.join(columns)}. Give every line the same keys, null where there is "
                "no value."
            )
        for name, value in row.items():
            columns[name].append(value)
    return pl.DataFrame([_column(name, values, name in text) for name, values in columns.items()])


def _parse_row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # refuses half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number} is not JSON ({error}); expected one object a line."
        ) from error
    if not isinstance(row, dict) or not row:
        raise DataError(f"{path}, line {number} is no object with keys; expected one, {{...}}.")
    return row


def _column(name: str, values: list[Any], as_text: bool) -> pl.Series:
    import polars as pl

    kinds = {type(value) for value in values} - {type(None)}
    if not as_text and kinds <= {int, float} and kinds:
        dtype = pl.Int64 if kinds == {int} else pl.Float64
        try:
            return pl.Series(name, values, dtype=dtype, strict=False)
        except OverflowError:  # more digits than a number has
            pass
    return pl.Series(name, [_json_text(value) for value in values], dtype=pl.String)


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _check_encoding(path: Path, content: bytes) -> None:
    try:
        content.decode("utf-8")
        offset = content.find(b"\x00")
    except UnicodeDecodeError as error:
        offset = error.start
    if offset >= 0:
        line = content.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{path} is not UTF-8 text: byte 0x{content[offset]:02x} at offset {offset}, line "
            f"{line}. Save it as UTF-8."
        )


def _check_shape(path: Path, content: bytes, quote: str | None) -> str:
    """Check header and row widths; return the separator."""
    characters = np.frombuffer(content, np.uint8)
    outside = np.ones(len(characters), bool)
    if quote and b'"' in content:
        # Inside quotes after an odd number of them; a doubled quote toggles twice.
        outside = np.bitwise_xor.accumulate((characters == ord('"')).view(np.uint8)) == 0
    ends = np.flatnonzero((characters == ord("\n")) & outside)
    if not outside[-1]:
        raise DataError(f"{path} has an opening quote that is never closed. Correct the file.")
    first = content[: ends[0] + 1].decode()
    separator = max(_SEPARATORS, key=first.count) if quote else "\t"
    header = first.rstrip("\n").split(separator)
    if quote:
        header = next(csv.reader([first], delimiter=separator))
    for column, name in enumerate(header):
        if header.index(name) < column:
            raise DataError(
                f"{path} has two columns named {name!r} (columns {header.index(name) + 1} and "
                f"{column + 1}). Rename one of them."
            )
    marks = np.flatnonzero((characters == ord(separator)) & outside)
    widths = np.diff(np.searchsorted(marks, ends), prepend=0) + 1
    ragged = np.flatnonzero(widths != len(header))
    if ragged.size:
        row = int(ragged[0])
        line = content.count(b"\n", 0, int(ends[row - 1]) + 1) + 1
        raise DataError(
            f"{path}, line {line} (row {row}) has {int(widths[row])} field(s), but the header has "
            f"{len(header)}. Correct that line, or quote a field that contains {separator!r}."
        )
    return separator


def _typed(column: pl.Series) -> pl.Series:
    """Whole numbers, floating point or text: the first that loses no value."""
    import polars as pl

    text = column.str.strip_chars()
    text = text.set(text.is_in(MISSING), None)
    for dtype in (pl.Int64, pl.Float64):
        numbers = text.cast(dtype, strict=False)
        if numbers.null_count() == text.null_count():
            return numbers
    return text
