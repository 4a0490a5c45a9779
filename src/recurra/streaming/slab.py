"""The states of the streams in use, side by side in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.streaming.records import NEVER
from recurra.streaming.stepper import States

Rows = npt.NDArray[np.int64]


class Slab:
    """Rows of states with, for each, its key, the identity of its last event and when it came.

    Rows are reused; the arrays double when they are full and never shrink.
    """

    def __init__(self, record: np.dtype[Any], room: int = 1024) -> None:
        self.row: dict[str, int] = {}
        self.keys: list[str | None] = [None] * room
        self.record = record
        # Bytes: numpy gathers and scatters those several times as fast as structured rows.
        self._bytes = np.zeros((room, record.itemsize), np.uint8)
        self.last: Rows = np.full(room, NEVER, dtype=np.int64)
        self.seen: Rows = np.zeros(room, dtype=np.int64)
        self._turn: Rows = np.full(room, np.iinfo(np.int64).max)  # free rows are never the oldest
        self._turns = 0
        self._free = list(range(room - 1, -1, -1))

    def __len__(self) -> int:
        return len(self.row)

    def find(self, keys: Sequence[str]) -> Rows:
        """The row of each key, (N,); −1 for keys that have none."""
        get = self.row.get
        return np.array([get(key, -1) for key in keys], dtype=np.int64)

    def take(self, rows: Rows) -> States:
        """Copies of the states in these rows."""
        taken = np.take(self._bytes, rows, axis=0)
        return taken.view(self.record).reshape(len(rows))

    def put(
        self, rows: Rows, new: dict[int, str], states: States, last: Rows, seen: int | Rows
    ) -> None:
        """States and identities of different rows; `new`: the places and keys that have no row."""
        self._grow(len(new))
        rows = rows.copy()
        for n, key in new.items():
            rows[n] = self.row[key] = self._free.pop()
            self.keys[rows[n]] = key
        flat = np.ascontiguousarray(states).view(np.uint8).reshape(len(rows), self.record.itemsize)
        self._bytes[rows], self.last[rows], self.seen[rows] = flat, last, seen
        self._turns += 1
        self._turn[rows] = self._turns

    def drop(self, rows: Rows) -> None:
        """Free these rows."""
        for row in rows.tolist():
            key = self.keys[row]
            assert key is not None
            del self.row[key]
            self.keys[row] = None
        self._turn[rows] = np.iinfo(np.int64).max
        self._free += rows.tolist()

    def oldest(self, count: int) -> Rows:
        """The rows of the keys whose last use is the longest ago."""
        return np.argpartition(self._turn, count - 1)[:count] if count else np.zeros(0, np.int64)

    def idle(self, before: int) -> Rows:
        """The rows that were seen before this moment."""
        used = self._turn < np.iinfo(np.int64).max
        return np.flatnonzero(used & (self.seen < before))

    def _grow(self, more: int) -> None:
        """Room for `more` new keys."""
        old = len(self.last)
        room = old
        while room - len(self.row) < more:
            room *= 2
        if room == old:
            return
        self.keys += [None] * (room - old)
        self._free = [*range(room - 1, old - 1, -1), *self._free]
        for name, fill in (
            ("_bytes", 0),
            ("last", NEVER),
            ("seen", 0),
            ("_turn", np.iinfo(np.int64).max),
        ):
            before = getattr(self, name)
            grown = np.empty((room, *before.shape[1:]), before.dtype)
            grown[:old] = before
            if fill or before.ndim == 1:
                grown[old:] = fill
            setattr(self, name, grown)
