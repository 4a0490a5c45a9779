"""EventQueue: many senders, one engine, and a limit on what waits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.streaming.smoothing import Smoothing

from recurra.errors import ConfigError, DataError
from recurra.streaming.engine import StreamEngine
from recurra.streaming.queue import EventQueue


class Held(Smoothing):
    """Steps only while it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.batches: list[int] = []

    def step(self, states: Any, inputs: Any) -> Any:
        assert self.let.wait(30)
        self.batches.append(len(inputs))
        return super().step(states, inputs)


def test_many_senders_get_the_answers_of_their_own_streams() -> None:
    def send(key: str) -> list[Any]:
        waiting = [events.submit(key, float(n), n) for n in range(50)]
        return [answer.result(30) for answer in waiting]

    keys = [f"k{n}" for n in range(16)]
    with EventQueue(StreamEngine(Smoothing()), limit=20) as events, ThreadPoolExecutor(16) as pool:
        given = dict(zip(keys, pool.map(send, keys), strict=True))
    alone = StreamEngine(Smoothing())
    wanted = [alone.push(["k"], [float(n)]).values[0] for n in range(50)]
    assert all(answers == wanted for answers in given.values())


def test_a_full_queue_holds_its_senders_back() -> None:
    stepper = Held()
    events = EventQueue(StreamEngine(stepper), limit=3)
    waiting = [events.submit("a", 1.0)]
    while len(events):  # until the worker has taken it, and waits in the step
        pass
    waiting += [events.submit("a", 1.0) for _ in range(3)]
    with pytest.raises(TimeoutError, match=r"3 events wait for the engine, and after 0\.01 s"):
        events.submit("a", 1.0, timeout_s=0.01)
    stepper.let.set()
    events.close()  # answers what waits
    assert [answer.result(0)["count"] for answer in waiting] == [1, 2, 3, 4]
    assert sum(stepper.batches) == 4
    with pytest.raises(ConfigError, match="it is closed"):
        events.submit("a", 1.0)
    events.close()


def test_refusals_duplicates_and_failures_come_to_whoever_waits() -> None:
    with EventQueue(StreamEngine(Smoothing())) as events:
        assert events.submit("a", 1.0, 5).result(30)["count"] == 1
        assert events.submit("a", 1.0, 5).result(30) is None
        with pytest.raises(DataError, match=r"x is -1\.0; expected 0 or more"):
            events.submit("a", -1.0, 6).result(30)
        with pytest.raises(TypeError):
            events.submit("a", "text", 7).result(30)
        assert events.submit("a", 1.0, 8).result(30)["count"] == 2
    with pytest.raises(ConfigError, match="limit is 0, but must be"):
        EventQueue(StreamEngine(Smoothing()), limit=0)
