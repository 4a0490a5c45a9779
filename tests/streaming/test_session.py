"""JSON lines through an engine: what is answered, what is written again, what a kill changes."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.streaming.smoothing import Smoothing, read

from recurra.errors import StoreError
from recurra.streaming.engine import StreamEngine
from recurra.streaming.jsonlines import LINE_LIMIT
from recurra.streaming.session import LineSession, serve
from recurra.streaming.sqlite import SQLiteStore
from recurra.streaming.store import MemoryStore

PROGRAM = Path(__file__).with_name("smoothing.py")
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


def line(key: str, seq: Any, x: Any = 1.5) -> bytes:
    return json.dumps({"key": key, "seq": seq, "x": x}).encode() + b"\n"


def session(store: Any = None) -> LineSession:
    return LineSession(StreamEngine(Smoothing(), store), read)


def served(made: LineSession, source: bytes) -> list[dict[str, Any]]:
    out = io.BytesIO()
    assert serve(made, io.BytesIO(source), out.write)
    assert out.getvalue().endswith(b"\n") or not out.getvalue()
    return [json.loads(one) for one in out.getvalue().splitlines()]


def test_lines_are_answered_in_order_with_gaps_duplicates_and_errors() -> None:
    made = session(MemoryStore())
    lines = [line("a", 1), line("b", 5), b"oops\n", b"\n", line("a", 4), line("a", 4, 9)]
    lines += [line("a", 2), line("a", 5, -1), line("c", "x"), line("a", 6), line("b", 5)]
    told = served(made, b"".join(lines))
    assert [(a.get("key"), a.get("seq"), a.get("count")) for a in told] == [
        ("a", 1, 1),
        ("b", 5, 1),
        (None, None, None),
        ("a", 4, 2),
        ("a", 4, 2),
        ("a", 2, None),
        (None, None, None),
        (None, None, None),
        ("a", 6, 3),
        ("b", 5, 1),
    ]
    assert told[2] == {
        "error": "not JSON: Expecting value at character 1; expected one object a line.",
        "line": 3,
    }
    assert (told[3]["gap"], told[8]["gap"]) == (2, 1)
    assert told[4] == told[3]
    assert told[5] == {"key": "a", "seq": 2, "duplicate": True}
    assert told[6] == {"error": "x is -1; expected 0 or more.", "line": 8}
    assert told[7]["error"].startswith("'seq' is 'x'; expected a whole number")
    assert made.errors == 3


def test_the_last_answers_are_written_again_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = session(SQLiteStore(path))
    first.answer([line("a", 1), line("a", 2)])
    last = first.answer([line("a", 3), b"oops", line("b", 1)])
    first.engine.close()
    again = session(SQLiteStore(path))
    out = io.BytesIO()
    serve(again, io.BytesIO(line("a", 3) + line("a", 2) + line("a", 4)), out.write)
    assert out.getvalue().startswith(last)
    told = [json.loads(one) for one in out.getvalue()[len(last) :].splitlines()]
    assert last.startswith(out.getvalue()[len(last) :].splitlines()[0])  # the old line itself
    assert told[1] == {"key": "a", "seq": 2, "duplicate": True}
    assert told[2]["count"] == 4
    again.engine.close()


def test_nothing_is_written_that_is_not_committed() -> None:
    class Broken(MemoryStore):
        def commit(self, *arguments: Any) -> None:
            raise StoreError("no space")

    out: list[bytes] = []
    with pytest.raises(StoreError, match="no space"):
        serve(session(Broken()), io.BytesIO(line("a", 1)), out.append)
    assert out == []


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_answers_do_not_depend_on_the_pieces_that_lines_come_in(most: int) -> None:
    source = b"".join(line(f"k{n % 7}", n, n / 3) for n in range(200)) + line("k", 0).strip()
    whole = session().answer(source.splitlines())

    class Pieces(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return super().read1(random.Random(most).randint(1, 300))

    out: list[bytes] = []
    serve(session(), Pieces(source), out.append, most=most)
    assert b"".join(out) == whole


def test_a_line_without_end_is_refused_in_bounded_memory() -> None:
    source = line("a", 1) + b'{"x": "' + b"y" * (5 * LINE_LIMIT) + b'"}\n' + line("a", 2)
    told = served(session(), source)
    assert [a.get("count") for a in told] == [1, None, 2]
    assert told[1] == {
        "error": f"the line is longer than {LINE_LIMIT} bytes; expected one short object a line.",
        "line": 2,
    }


# Processes


class Program:
    """The program of smoothing.py on a store, its output collected while it runs."""

    def __init__(self, store: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.out = b""
        self._collector = threading.Thread(target=self._collect)
        self._collector.start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        while piece := self.process.stdout.read(1 << 16):
            self.out += piece

    def feed(self, lines: Sequence[bytes]) -> None:
        """Write all lines and close, unless the program dies first."""
        assert self.process.stdin is not None
        try:
            for start in range(0, len(lines), 20):
                self.process.stdin.write(b"".join(lines[start : start + 20]))
            self.process.stdin.close()
        except BrokenPipeError:
            pass

    def ended(self) -> int:
        status = self.process.wait(30)
        self._collector.join(30)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return status


def whole_lines(out: bytes) -> list[bytes]:
    return out.split(b"\n")[:-1]


@posix
def test_after_kills_the_answers_equal_those_of_an_uninterrupted_run(tmp_path: Path) -> None:
    rng = random.Random(4)
    sent = [line(f"k{rng.randrange(12)}", n, rng.random()) for n in range(4000)]
    place = {json.loads(one)["seq"]: n for n, one in enumerate(sent)}
    wanted = dict(zip(place, session().answer(sent).splitlines(), strict=True))
    given: dict[int, bytes] = {}
    duplicates, kills, begin = 0, 0, 0
    for _ in range(9):
        program = Program(tmp_path / "s.db")
        feeder = threading.Thread(target=program.feed, args=(sent[begin:],))
        feeder.start()
        if kills < 8:
            until = time.monotonic() + 20
            while not program.out and time.monotonic() < until:
                time.sleep(0.002)  # killed before its first answer it would test nothing
            time.sleep(rng.random() * 0.1)
            program.process.send_signal(signal.SIGKILL)
            kills += 1
        program.ended()
        feeder.join(30)
        for reply in whole_lines(program.out):
            answer = json.loads(reply)
            if "duplicate" in answer:
                duplicates += 1
                continue
            assert given.setdefault(answer["seq"], reply) == reply
        unanswered = min((place[seq] for seq in place if seq not in given), default=len(sent))
        begin = max(0, unanswered - rng.randrange(100))
    assert given == wanted
    assert (kills, duplicates > 0) == (8, True)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_commits(tmp_path: Path, number: signal.Signals) -> None:
    store = tmp_path / "s.db"
    program = Program(store)
    assert program.process.stdin is not None
    sent = [line(f"k{n % 3}", n) for n in range(30)]
    program.process.stdin.write(b"".join(sent) + b'{"key": "half')
    until = time.monotonic() + 20
    while program.out.count(b"\n") < 30 and time.monotonic() < until:
        time.sleep(0.005)
    program.process.send_signal(number)
    assert program.ended() == 0
    assert [json.loads(one)["seq"] for one in whole_lines(program.out)] == list(range(30))
    engine = StreamEngine(Smoothing(), SQLiteStore(store))
    assert len(engine) == 3
    assert engine.push(["k2"], [1.0], [32]).values[0]["count"] == 11
    engine.close()
