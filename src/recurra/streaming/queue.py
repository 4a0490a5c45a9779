"""Single events from many threads, gathered into batches, with a limit on what waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from recurra.errors import ConfigError
from recurra.streaming.engine import DUPLICATE, REFUSED, Answers, StreamEngine


class _Waiting(NamedTuple):
    key: str
    input: Any
    seq: int | None
    answer: Future[Any]


class EventQueue:
    """Takes events from any thread and answers each with a Future, once it is committed.

    Whatever waits is one batch, of at most `most` events: a lone event is stepped at once, and
    under load batches grow. At most `limit` events wait; then `submit` blocks, so that senders go
    no faster than the engine. Events of one key are stepped in the order in which they came.

    Raises: ConfigError for limits that are no positive integers.

    >>> import numpy as np
    >>> from recurra import nn
    >>> from recurra.streaming import EventQueue, StackStepper, StreamEngine
    >>> with EventQueue(StreamEngine(StackStepper(nn.GRU(3, 8)))) as events:
    ...     answer = events.submit("pump", np.zeros(3, np.float32))
    ...     answer.result().shape
    (8,)
    """

    def __init__(self, engine: StreamEngine, *, limit: int = 4096, most: int = 1024) -> None:
        for name, value in (("limit", limit), ("most", most)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"EventQueue: {name} is {value!r}, but must be an integer of at least 1."
                )
        self.engine = engine
        self._most = most
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(limit)
        self._closing = threading.Lock()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="recurra-events", daemon=True)
        self._worker.start()

    def submit(
        self, key: str, input: Any, seq: int | None = None, *, timeout_s: float | None = None
    ) -> Future[Any]:
        """A Future of the event's answer: None for a duplicate, an error for one that is refused.

        Waits while the queue is full. Either all events have a `seq` or none.
        Raises: TimeoutError when it is still full after `timeout_s`; ConfigError after `close`.
        """
        answer: Future[Any] = Future()
        if self._closed:
            raise ConfigError("EventQueue: it is closed. Make another.")
        try:
            self._queue.put(_Waiting(key, input, seq, answer), timeout=timeout_s)
        except queue.Full:
            raise TimeoutError(
                f"{self._queue.maxsize} events wait for the engine, and after {timeout_s} s still "
                "do. Send more slowly, or try again later."
            ) from None
        return answer

    def __len__(self) -> int:
        """About how many events wait."""
        return self._queue.qsize()

    def close(self) -> None:
        """Answer what waits, and end. The engine and its store stay open."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
            self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _work(self) -> None:
        ended = False
        while not ended:
            batch = [self._queue.get()]
            while len(batch) < self._most and batch[-1] is not None:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            ended = batch[-1] is None
            events = [event for event in batch if event is not None]
            if events:
                self._answer(events)
        while not self._queue.empty():  # came between the end and the last look at `_closed`
            late = self._queue.get()
            if late is not None:
                late.answer.set_exception(ConfigError("EventQueue: it is closed. Make another."))

    def _answer(self, events: Sequence[_Waiting]) -> None:
        try:
            answers = self._push(events)
        except Exception as error:  # noqa: BLE001 - whoever waits for an answer must be told
            for event in events:
                event.answer.set_exception(error)
            return
        for n, event in enumerate(events):
            if answers.status[n] == REFUSED:
                event.answer.set_exception(answers.errors[n])
            else:
                duplicate = answers.status[n] == DUPLICATE
                event.answer.set_result(None if duplicate else answers.values[n])

    def _push(self, events: Sequence[_Waiting]) -> Answers:
        inputs: Any = [event.input for event in events]
        if self.engine.stepper.answer is not None:
            inputs = np.stack(inputs)
        identities = [event.seq for event in events if event.seq is not None]
        if 0 < len(identities) < len(events):
            raise ConfigError("EventQueue: some events have a seq and some have none.")
        return self.engine.push([event.key for event in events], inputs, identities or None)
