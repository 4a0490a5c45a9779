"""Every line has an answer, in order and at once, whatever is on it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.errors import DataError
from recurra.streaming.jsonlines import (
    LINE_LIMIT,
    answer,
    flushed,
    parse_object,
    read_key,
    read_lines,
)


def push(row: dict[str, Any]) -> dict[str, Any]:
    if "x" not in row:
        raise DataError("the row has no x; expected a number.")
    return {"y": row["x"]}


def replies(lines: Iterable[str | bytes], limit: int = LINE_LIMIT) -> list[dict[str, Any]]:
    written: list[str] = []
    errors = answer(lines, push, written.append, limit=limit)
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in written)
    parsed = [json.loads(line) for line in written]
    assert errors == sum("error" in reply for reply in parsed)
    return parsed


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("oops", "not JSON"),
        ('{"x": 1', "not JSON"),
        ('{"x": 1} {"x": 2}', "not JSON"),
        ('{"x": NaN}', "NaN is not JSON; write null"),
        ('{"x": -Infinity}', "-Infinity is not JSON"),
        ('{"x": 1e999}', "1e999 is too large"),
        ('{"x": ' + "9" * 5000 + "}", "number cannot be read"),
        ("[1]", "the line is a list; expected an object"),
        ("3", "the line is a int"),
        ("null", "NoneType"),
        ('{"z": 1}', "the row has no x"),
        (b'{"x": "\xff"}', "not UTF-8: byte 8"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_answered_and_the_stream_goes_on(bad: str | bytes, told: str) -> None:
    first, second, third = replies(['{"x": 1}\n', bad, '{"x": 3}'])
    assert first == {"y": 1}
    assert set(second) == {"error", "line"}
    assert told in second["error"]
    assert second["line"] == 2
    assert third == {"y": 3}


def test_blank_lines_are_passed_over_but_counted() -> None:
    assert replies(["\n", '{"x": 1}\n', "  \n", "?\n"])[1]["line"] == 4


def test_no_answer_holds_what_json_has_not() -> None:
    written: list[str] = []
    answer(["{}"], lambda _: {"a": float("nan"), "b": [float("inf")]}, written.append)
    assert written == ['{"a": null, "b": [null]}\n']


def test_faults_of_ours_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        answer(["{}"], lambda _: {"a": 1 / 0}, lambda _: None)


def test_each_line_is_answered_before_the_next_is_read() -> None:
    order: list[str] = []

    def lines() -> Iterable[str]:
        for number in range(3):
            order.append(f"read {number}")
            yield f'{{"x": {number}}}'

    answer(lines(), push, lambda _: order.append("answered"))
    assert order == ["read 0", "answered", "read 1", "answered", "read 2", "answered"]


@given(
    st.dictionaries(
        st.text(),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_every_object_comes_through_unchanged(row: dict[str, Any]) -> None:
    assert parse_object(json.dumps(row)) == row
    assert parse_object(json.dumps(row, ensure_ascii=False).encode()) == row


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=8))
def test_lines_are_those_of_the_stream(lines: list[bytes]) -> None:
    text = b"".join(line + b"\n" for line in lines)
    assert list(read_lines(io.BytesIO(text), limit=40)) == lines


@pytest.mark.parametrize("length", [8, 9, 10, 17, 18, 19, 5000])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_long_line_is_read_in_bounded_memory_and_refused(length: int, end: bytes) -> None:
    stream = io.BytesIO(b'{"x": 1}\n' + b"9" * length + end)
    lines = list(read_lines(stream, limit=8))
    assert all(len(line) <= 9 for line in lines)
    first, second = replies(lines, limit=8)
    assert first == {"y": 1}
    assert second["line"] == 2
    assert ("longer than 8 bytes" in second["error"]) == (length > 8)


def test_after_a_long_line_the_next_one_is_read_from_its_start() -> None:
    stream = io.BytesIO(b"9" * 1000 + b'\n{"x": 1}\n')
    assert replies(read_lines(stream, limit=8), limit=8)[1] == {"y": 1}


def test_flushed_hands_on_at_once() -> None:
    class Stream(io.StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    stream = Stream()
    write = flushed(stream)
    write("a\n")
    write("b\n")
    assert (stream.getvalue(), stream.flushes) == ("a\nb\n", 2)


def test_half_a_surrogate_pair_is_answered_with_an_error() -> None:
    written: list[str] = []
    lines = ['{"key": "\\ud800"}', '{"key": "\\ud83d\\ude00"}']
    assert answer(lines, dict, written.append) == 1
    assert "surrogate" in written[0]
    assert json.loads(written[1]) == {"key": "\U0001f600"}


def test_a_key_is_a_text_or_a_whole_number() -> None:
    assert read_key({"user": "ann"}, "user") == "ann"
    assert read_key({"user": 7}, "user") == 7
    assert read_key({"user": 7}, None) is None


@pytest.mark.parametrize("event", [{}, {"user": None}, {"user": True}, {"user": 1.5}])
def test_an_event_without_a_key_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no key under 'user'; expected a text or a whole number"):
        read_key(event, "user")
