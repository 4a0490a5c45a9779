"""Ctrl-C during training: the step under way is finished, then the run is saved and stops."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class InterruptWatch:
    """Context in which the first Ctrl-C only sets `requested`; the second raises at once.

    A KeyboardInterrupt in the middle of an update would leave half of the weights changed. Where
    Python's own handler is not in charge (other threads, an application's handler, `nohup`),
    nothing is changed.

    told   what the first one writes to stderr
    """

    def __init__(
        self, told: str = "stopping after this step; press Ctrl-C again to stop at once"
    ) -> None:
        self.requested = False
        self._told = f"\n{told}\n".encode()
        self._previous: Any = None

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # Not print: the signal may have come in the middle of another print to the same stream.
        with contextlib.suppress(OSError):
            os.write(2, self._told)
