"""What commands read on stdin, and files they write: whole, checked before work begins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

TABLES = (".csv", ".parquet")
PICTURES = (".png", ".svg", ".pdf")


def check_writable(option: str, path: Path | None, endings: tuple[str, ...], force: bool) -> None:
    """Before work begins: that the file has a known ending and would replace nothing."""
    from recurra.errors import ConfigError, RunError

    if path is None:
        return
    if path.suffix.lower() not in endings:
        known = ", ".join(endings[:-1]) + f" or {endings[-1]}"
        raise ConfigError(f"{option} {path}: expected a file ending in {known}.")
    if path.exists() and not force:
        raise RunError(f"{path} is already there. Pass --force to replace it.")


def read_stdin() -> str:
    """All of the text on stdin. Raises: DataError for bytes that are no UTF-8."""
    from recurra.errors import DataError

    raw = sys.stdin.buffer.read()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"stdin is not UTF-8: byte {raw[error.start]:#04x} at offset {error.start}, line "
            f"{line}, is no text. Convert it to UTF-8."
        ) from error


def write_frame(frame: Any, out: str) -> None:
    """Write a polars frame; the file appears whole or not at all. CSV has times as text."""
    import io

    from recurra.runs import write_bytes

    if not out.lower().endswith(".parquet"):
        frame = frame.with_columns(
            _texts(frame[name]) for name in frame.columns if frame[name].dtype.is_temporal()
        )
    if out == "-":
        sys.stdout.write(frame.write_csv())
        sys.stdout.flush()
        return
    buffer = io.BytesIO()
    if out.lower().endswith(".parquet"):
        frame.write_parquet(buffer)
    else:
        frame.write_csv(buffer)
    write_bytes(Path(out), buffer.getvalue())


def _texts(column: Any) -> Any:
    import polars as pl

    return pl.Series(column.name, plain(column))


def plain(column: Any) -> list[Any]:
    """A polars column as JSON values: times as text."""
    import polars as pl

    if column.dtype.is_temporal():
        return [
            str(value).removesuffix(" 00:00:00")
            for value in column.cast(pl.Datetime("us")).to_list()
        ]
    return list(column.to_list())
