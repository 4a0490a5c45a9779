"""Events as JSON lines through an engine: read, stepped, committed with their answers, written.

    {"key": "pump", "seq": 4, ...}  ->  {"key": "pump", "seq": 4, ..., "gap": 2}

What is read at once is one batch, so a lone event is answered at once and a flood goes through in
large steps. The answers of a batch are committed together with the states and only then written;
after a crash the last committed answers are written again, byte for byte. So each answer is
delivered at least once, can be told from its repetition by key and identity, and no state counts an
event twice.

- An event with the identity of its key's last one is given the same line again; an older one is
  answered `"duplicate": true`, without a score.
- `"gap": n` says that n identities are missing before this event.
- A line that cannot be used is answered `{"error": ..., "line": n}` and changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, BinaryIO, NamedTuple, Protocol

from recurra.errors import DataError, RecurraError
from recurra.runs import finite
from recurra.streaming.engine import DUPLICATE, REFUSED, REPEATED, Answers, StreamEngine
from recurra.streaming.jsonlines import LINE_LIMIT, parse_object

MOST_EVENTS = 1024
"""Events in one batch: more wait in the pipe, and so does whoever writes into it."""
PIECE = 1 << 16


class Event(NamedTuple):
    """One line as the engine sees it.

    seq: the identity, None when events are counted; echo: what every answer repeats; input: what
    the stepper takes; dense: whether identities follow one another, so that gaps can be told.
    """

    key: str
    seq: int | None
    echo: dict[str, Any]
    input: Any
    dense: bool = True


class Message(NamedTuple):
    """A line that came under a topic, which its object has as "topic" unless it has its own."""

    body: bytes
    topic: str


class Reader(Protocol):
    """Makes an event of a line's object. Raises: DataError when it cannot be used."""

    def __call__(self, row: dict[str, Any]) -> Event: ...


class LineSession:
    """Lines in, lines out, through an engine whose answers are JSON objects."""

    def __init__(self, engine: StreamEngine, read: Reader) -> None:
        self.engine = engine
        self.errors = 0
        self._read = read
        self._line = 0

    def answer(self, lines: Sequence[bytes | Message]) -> bytes:
        """The answers to these lines or messages, one line each, after they are committed.

        Blank lines are passed over, but count. Raises: StoreError when the commit fails.
        """
        events: list[Event] = []
        replies: list[bytes | Event] = []
        where: list[int] = []
        for line in lines:
            self._line += 1
            body, more = (line, {}) if isinstance(line, bytes) else (line[0], {"topic": line[1]})
            if not body.strip():
                continue
            try:
                events.append(self._read({**more, **parse_object(body)}))
                replies.append(events[-1])
            except RecurraError as error:
                replies.append(self._error(error, self._line))
            where.append(self._line)
        return self._commit(events, replies, where)

    def _commit(self, events: list[Event], replies: list[bytes | Event], where: list[int]) -> bytes:
        if not replies:
            return b""
        identities = [event.seq for event in events if event.seq is not None]
        answers = self.engine.step(
            [event.key for event in events],
            [event.input for event in events],
            identities or None,
        )
        told: list[bytes] = []
        made: list[bytes] = []
        for reply, number in zip(replies, where, strict=True):
            if isinstance(reply, Event):
                made.append(self._line_of(reply, answers, len(made), made, number))
                reply = made[-1]
            told.append(reply)
        output = b"".join(told)
        self.engine.commit(made, output)
        return output

    def _line_of(
        self, event: Event, answers: Answers, n: int, made: list[bytes], number: int
    ) -> bytes:
        status = answers.status[n]
        if status == REFUSED:
            return self._error(answers.errors[n], number)
        if status == REPEATED:
            before = answers.repeats[n]
            return made[before] if isinstance(before, int) else before
        if status == DUPLICATE:
            return as_line({**event.echo, "duplicate": True})
        gap = {"gap": int(answers.gap[n])} if event.dense and answers.gap[n] else {}
        return as_line({**event.echo, **answers.values[n], **gap})

    def _error(self, error: RecurraError, number: int) -> bytes:
        self.errors += 1
        return as_line({"error": str(error), "line": number})


def as_line(value: Mapping[str, Any]) -> bytes:
    """One JSON object and the end of its line; NaN and infinities are null."""
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_seq(row: Mapping[str, Any], column: str) -> int:
    """The identity under `column`. Raises: DataError when it is no whole number of 62 bits."""
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**62:
        shown = "missing" if value is None else repr(value)[:40]
        raise DataError(
            f"{column!r} is {shown}; expected a whole number that grows with each event of a key."
        )
    return value


def serve(
    session: LineSession,
    source: BinaryIO,
    write: Callable[[bytes], object],
    *,
    most: int = MOST_EVENTS,
) -> bool:
    """Answer all lines of `source`; whether it ended by itself, and not by Ctrl-C or SIGTERM.

    First the last committed answers are written again, if there are any. At a signal what has been
    read so far is answered and committed, and an unfinished line is left.
    """
    return serve_batches(session, lambda stop: _batches(source, stop, most), write)


def serve_batches(
    session: LineSession,
    batches: Callable[[_Stop], Iterator[Sequence[bytes | Message]]],
    write: Callable[[bytes], object],
) -> bool:
    """As `serve`, of batches that end at a stop.

    The iterator is asked for the next batch when the one before is committed and its answers are
    written.
    """
    last = session.engine.last_output()
    if last:
        write(last)
    with _Stop() as stop:
        for lines in batches(stop):
            write(session.answer(lines))
        return not stop.asked


def _batches(source: BinaryIO, stop: _Stop, most: int) -> Iterator[list[bytes]]:
    """All whole lines that have come in, up to `most` at once, waiting only when there are none.

    A line that is too long is cut to one byte more than the limit, so that it is refused.
    """
    rest = b""
    dropping = False
    read = getattr(source, "read1", source.read)
    while not stop.asked:
        stop.wait(source)
        if stop.asked:
            return
        piece = read(PIECE)
        *lines, end = piece.split(b"\n")
        if lines:
            lines[0] = rest if dropping else rest + lines[0]
            rest, dropping = b"", False
        if not dropping:
            rest += end
        if len(rest) > LINE_LIMIT:
            rest, dropping = rest[: LINE_LIMIT + 1], True
        if not piece and rest:
            lines, rest = [rest], b""
        for start in range(0, len(lines), most):
            yield lines[start : start + most]
        if not piece:
            return


class _Stop:
    """Context in which Ctrl-C and SIGTERM only set `asked`, and end the waiting for input.

    A second signal raises KeyboardInterrupt wherever it comes. In other threads, and under an
    application's own handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}
        self._woken = self._wake = -1

    def __enter__(self) -> _Stop:
        self._woken, self._wake = os.pipe()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._wake)

    def wait(self, source: BinaryIO) -> None:
        """Until there is something to read, or a signal has come."""
        # Not all sources have a number, and Windows cannot wait for pipes: those are read at once,
        # and a signal is then seen after the next piece.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            select.select([source.fileno(), self._woken], [], [])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(self._wake, b"!")
