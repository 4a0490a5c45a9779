"""Progress of a run on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_BAR_EVERY_S = 0.2
_FIRST_LINE_S = 5.0
_LINE_EVERY_S = 15.0


class ProgressDisplay:
    """Shows step, loss, how often gradients were clipped, speed and time left.

    With `enabled` False it shows nothing.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._bar: Progress | None = None
        self._row: TaskID | None = None
        self._next = monotonic() + (0.0 if sys.stderr.isatty() else _FIRST_LINE_S)

    def start(self) -> None:
        """Open the bar where stderr is a terminal."""
        if not self._enabled or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("training"), BarColumn(), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._row = self._bar.add_task("", total=1.0, text="")
        self._bar.start()

    def due(self, ending: bool = False) -> bool:
        """Whether to call `show` now: enough time has passed, or a bar should show its end."""
        if not self._enabled:
            return False
        return monotonic() >= self._next or (ending and self._bar is not None)

    def show(
        self,
        step: int,
        total: int | None,
        loss: float,
        clipped: float | None,
        speed: float,
        share: float,
        left_s: float | None,
    ) -> None:
        """Show the run after `step` steps of `total` (None: not known yet).

        clipped   share of the latest steps that were clipped, None where nothing is
        """
        of_total = "" if total is None else f"/{total}"
        left = "" if left_s is None else f"  {clock_text(left_s)} left"
        share_text = "" if clipped is None else f"  clipped {clipped:.0%}"
        text = f"step {step}{of_total}  loss {loss:.4g}{share_text}  {speed:.3g} steps/s{left}"
        if self._bar is not None and self._row is not None:
            self._next = monotonic() + _BAR_EVERY_S
            self._bar.update(self._row, completed=share, text=text)
        else:
            self._next = monotonic() + _LINE_EVERY_S
            print(f"training: {text}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def clock_text(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss.

    >>> clock_text(75), clock_text(3725.4)
    ('1:15', '1:02:05')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
