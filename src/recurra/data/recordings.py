"""Tables of recordings and what is said in them: CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.data.audio import Samples
from recurra.data.textfiles import read_text
from recurra.errors import DataError, unknown

SUFFIXES = (".csv", ".tsv", ".jsonl")
_FIELD_LIMIT = 1 << 20


@dataclass(frozen=True)
class Recording:
    """One row: the audio, by the name of its file or as samples, and its transcript.

    row   where it stands in its table, from 1, for messages
    """

    row: int
    audio: str | Samples
    text: str

    @property
    def name(self) -> str:
        """The file's name, or that it has none."""
        return self.audio if isinstance(self.audio, str) else f"{len(self.audio)} samples"


def read_recordings(path: Path, audio: str, text: str) -> list[Recording]:
    """The rows of a table: `audio` names the column of file names, `text` that of transcripts.

    A .csv has commas, semicolons or tabs as its header has, and may quote fields; a .tsv has tabs,
    and quotes are characters like any other; a .jsonl has one object a line.

    Raises: DataError for a table that cannot be read, a column that it has not (with the nearest),
    and a row without a file name.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path} is no table of recordings by its name; expected {', '.join(SUFFIXES)}."
        )
    content = "".join(read_text(path))
    is_json = path.suffix.lower() == ".jsonl"
    rows = list(_json_rows(path, content) if is_json else _csv_rows(path, content))
    if not rows:
        raise DataError(f"{path} has no rows; expected a recording in each.")
    found = []
    for number, row in enumerate(rows, start=1):
        for column in (audio, text):
            if column not in row:
                where = f"row {number} of {path}: " if is_json else f"{path}: "
                raise DataError(where + unknown("column", column, row))
        if not row[audio].strip():
            raise DataError(f"row {number} of {path} has no file name in {audio!r}.")
        found.append(Recording(number, row[audio].strip(), clean(row[text])))
    return found


def given_recordings(pairs: Sequence[Any]) -> list[Recording]:
    """Rows out of (audio, text) pairs: audio a path, or samples at the model's rate.

    Raises: DataError for what is no such pair.
    """
    import numpy as np

    found = []
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], str):
            raise DataError(
                f"recording {number} is {type(pair).__name__}; expected (audio, text): a path or "
                "an array of samples, and what is said in it."
            )
        audio = pair[0]
        if not isinstance(audio, str | Path):
            audio = np.asarray(audio)
            if audio.ndim != 1 or audio.dtype.kind != "f" or not np.isfinite(audio).all():
                raise DataError(
                    f"recording {number} has samples of shape {audio.shape} and dtype "
                    f"{audio.dtype}; expected one axis of finite floating-point numbers."
                )
            found.append(Recording(number, audio.astype(np.float32), clean(pair[1])))
        else:
            found.append(Recording(number, str(audio), clean(pair[1])))
    if not found:
        raise DataError("no recordings are given; expected at least one pair (audio, text).")
    return found


def clean(text: str) -> str:
    """A transcript with composed characters (NFC) and single blanks.

    >>> clean(" SEVEN\\u00a0 NINE ")
    'SEVEN NINE'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def _csv_rows(path: Path, content: str) -> Iterator[dict[str, str]]:
    is_tsv = path.suffix.lower() == ".tsv"
    first = content.partition("\n")[0]
    separator = "\t" if is_tsv else max(",;\t", key=first.count)
    csv.field_size_limit(_FIELD_LIMIT)
    lines = io.StringIO(content, newline="")
    if is_tsv:
        reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{path} has two columns of one name: {', '.join(header)}.")
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num} has {len(row)} fields, but the header has "
                    f"{len(header)}. Correct that line."
                )
            yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error


def _json_rows(path: Path, content: str) -> Iterator[dict[str, str]]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number} holds no object; expected {{...}}.")
        yield {key: value for key, value in row.items() if isinstance(value, str)}
