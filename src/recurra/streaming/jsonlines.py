"""JSON lines in, JSON lines out: the outside of every `recurra TASK stream`.

One object a line comes in and one goes out, at once. A line that cannot be used is answered with
`{"error": ..., "line": n}` and the stream goes on: one bad sensor must not stop the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NoReturn, TextIO

from recurra.errors import DataError, RecurraError
from recurra.runs import finite

LINE_LIMIT = 1 << 20  # bytes; a row of a stream is far smaller, a runaway line is not


def answer(
    lines: Iterable[str | bytes],
    push: Callable[[dict[str, Any]], dict[str, Any]],
    write: Callable[[str], object],
    *,
    limit: int = LINE_LIMIT,
    parse: Callable[..., dict[str, Any]] | None = None,
) -> int:
    """Answer each line with `push(object)`, and return how many lines were answered by an error.

    `parse` makes the object of a line, `parse_object` unless another is given, as `parse_text`.
    `write` gets one whole line at a time, newline included. Blank lines are passed over, but count
    in the line numbers, which start at 1. Numbers that JSON has not (NaN, infinities) are refused
    in what comes in and written as null in what goes out.

    >>> import sys
    >>> answer(['{"x": 2}', 'oops'], lambda row: {"double": 2 * row["x"]}, sys.stdout.write)
    {"double": 4}
    {"error": "not JSON: Expecting value at character 1; expected one object a line.", "line": 2}
    1
    """
    errors = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            reply = push((parse or parse_object)(line, limit=limit))
        except RecurraError as error:
            errors += 1
            reply = {"error": str(error), "line": number}
        write(json.dumps(finite(reply), ensure_ascii=False, allow_nan=False) + "\n")
    return errors


def read_key(event: Mapping[str, Any], column: str | None) -> str | int | None:
    """What names the stream of an event; None for all events, where no column does.

    Raises: DataError for an event without a text or a whole number there.
    """
    if column is None:
        return None
    key = event.get(column)
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise DataError(
            f"the event has no key under {column!r}; expected a text or a whole number."
        )
    return key


def parse_object(line: str | bytes, *, limit: int = LINE_LIMIT) -> dict[str, Any]:
    """The JSON object on one line.

    Raises: DataError for anything else: no JSON, another kind of value, NaN, too long a line.
    """
    if len(line) > limit:
        raise DataError(f"the line is longer than {limit} bytes; expected one short object a line.")
    try:
        text = line.decode() if isinstance(line, bytes) else line
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: byte {error.start + 1} of the line cannot be read.") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON: {error.msg} at character {error.pos + 1}; expected one object a line."
        ) from error
    except RecursionError as error:
        raise DataError("the line is nested too deeply; expected one flat object.") from error
    except RecurraError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"a number cannot be read: {error}.") from error
    if "\\ud" in text.lower():  # half a surrogate pair is no text, and could not be written back
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError("the line holds half a surrogate pair, which is no text.") from error
    if not isinstance(value, dict):
        raise DataError(f"the line is a {type(value).__name__}; expected an object, {{...}}.")
    return value


def parse_text(line: str | bytes, *, limit: int = LINE_LIMIT) -> dict[str, Any]:
    """{"text": the line}, for streams of plain text.

    Raises: DataError for bytes that are no UTF-8, and for too long a line.
    """
    if len(line) > limit:
        raise DataError(f"the line is longer than {limit} bytes; expected shorter lines of text.")
    try:
        return {"text": line.decode() if isinstance(line, bytes) else line}
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: byte {error.start + 1} of the line cannot be read.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise DataError(f"{name} is not JSON; write null for a missing value.")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise DataError(f"{text} is too large for a number.")
    return number


def read_lines(stream: BinaryIO, *, limit: int = LINE_LIMIT) -> Iterator[bytes]:
    """The lines of a stream in bounded memory: what is beyond the limit is dropped.

    Such a line is still one byte longer than the limit, so that `answer` refuses it.
    """
    while line := stream.readline(limit + 1):
        if line.endswith(b"\n"):
            yield line[:-1]
            continue
        rest = line
        while len(rest) > limit and not rest.endswith(b"\n"):
            rest = stream.readline(limit + 1)
        yield line


def flushed(stream: TextIO) -> Callable[[str], None]:
    """A `write` for `answer` that hands each line on at once."""

    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    return write
