"""The history of a run: averaged losses in memory, and one JSON line each in log.jsonl.

What `gradient_flow` measured goes to gradients.jsonl, in lines of the same kind.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, TextIO

from recurra.runs import explained, finite, write_bytes


class JsonLines:
    """A file of one JSON object a line, each with its `step`, that is written as a run goes on.

    `path` None writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: TextIO | None = None

    def open(self, kept: list[dict[str, Any]]) -> None:
        """Begin with these entries, in place of what the file holds.

        Raises: RunError when the file cannot be written.
        """
        if self.path is None:
            return
        write_bytes(self.path, "".join(map(_line, kept)).encode())
        with explained(self.path, "write"):
            self._file = self.path.open("a", encoding="utf-8")

    def append(self, entry: dict[str, Any]) -> None:
        """Write one more line."""
        if self._file is not None and self.path is not None:
            with explained(self.path, "write"):
                self._file.write(_line(entry))
                self._file.flush()

    def sync(self) -> None:
        """Force the file to the disk, so that a checkpoint never knows more than the file."""
        if self._file is not None and self.path is not None:
            with explained(self.path, "write"):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TrainingLog:
    """Entries of step, loss, learning_rate, gradient_norm, clipped, steps_per_s, maybe validation.

    `loss` and `gradient_norm` (before clipping) are means over the steps since the entry before,
    `clipped` is the share of these steps in which a gradient was clipped.
    `path` None keeps the history in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.history: list[dict[str, Any]] = []
        self.sums = {"loss": 0.0, "losses": 0.0, "norm": 0.0, "norms": 0.0, "clipped": 0.0}
        self._lines = JsonLines(path)

    def open(self, step: int, sums: dict[str, float] | None = None) -> None:
        """Begin, or go on after `step`: entries of later steps are cut off, torn lines dropped.

        Raises: RunError when the file cannot be read or written.
        """
        self.sums.update(sums or {})
        if self.path is not None and step > 0:
            self.history = [entry for entry in read_log(self.path) if entry["step"] <= step]
        self._lines.open(self.history)

    def add(self, loss: float, gradient_norm: float, clipped: bool) -> None:
        """Take one step's numbers into the next entry's means."""
        self.sums["loss"] += loss
        self.sums["losses"] += 1
        self.sums["clipped"] += clipped
        if math.isfinite(gradient_norm):  # a float16 step that overflowed has none
            self.sums["norm"] += gradient_norm
            self.sums["norms"] += 1

    def clipped_share(self) -> float:
        """Share of the steps since the last entry that were clipped; right after it, its own."""
        if self.sums["losses"] == 0 and self.history:
            return float(self.history[-1]["clipped"])
        return self.sums["clipped"] / max(1.0, self.sums["losses"])

    def write(
        self, step: int, learning_rate: float, steps_per_s: float, validation: float | None
    ) -> None:
        """Close the means and append an entry."""
        sums = self.sums
        entry = {
            "step": step,
            "loss": sums["loss"] / max(1.0, sums["losses"]),
            "learning_rate": learning_rate,
            "gradient_norm": sums["norm"] / sums["norms"] if sums["norms"] else None,
            "clipped": self.clipped_share(),
            "steps_per_s": round(steps_per_s, 2),
        }
        if validation is not None:
            entry["validation"] = validation
        self.sums = dict.fromkeys(sums, 0.0)
        self.history.append(finite(entry))
        self._lines.append(self.history[-1])

    def sync(self) -> None:
        """Force the file to the disk, so that a checkpoint never knows more than the log."""
        self._lines.sync()

    def close(self) -> None:
        """Close the file; the history stays."""
        self._lines.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a file of JSON lines, torn ones left out; none when there is no such file."""
    if not path.is_file():
        return []
    with explained(path, "read"):
        lines = path.read_bytes().splitlines()
    return [entry for entry in map(_parse, lines) if entry is not None]


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, allow_nan=False) + "\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        return None
    return entry
