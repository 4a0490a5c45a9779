"""A small model for tests of engine and session, also as a program: lines in, lines out.

python smoothing.py STORE
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from recurra.errors import DataError
from recurra.streaming.engine import StreamEngine
from recurra.streaming.session import Event, LineSession, read_seq, serve
from recurra.streaming.sqlite import SQLiteStore


class Smoothing:
    """level = 0.9 level + 0.1 x: its bits show an event that is lost, doubled or out of order."""

    record = np.dtype([("level", "<f8"), ("trail", "<f4", (3, 2)), ("count", "<i8")])
    answer = None

    def __init__(self, model_hash: str = "ab" * 32) -> None:
        self.model_hash = model_hash

    def start(self, keys: Any) -> Any:
        return np.zeros(len(keys), self.record)

    def step(self, states: Any, inputs: Any) -> Any:
        answers, refused = [], {}
        for n, x in enumerate(inputs):
            answers.append(None)
            if x < 0:
                refused[n] = DataError(f"x is {x}; expected 0 or more.")
                continue
            states["level"][n] = 0.9 * states["level"][n] + 0.1 * x
            states["trail"][n, 1:] = states["trail"][n, :-1].copy()
            states["trail"][n, 0] = x, states["level"][n]
            states["count"][n] += 1
            trail = states["trail"][n].astype(float).tolist()
            answers[n] = {
                "level": float(states["level"][n]),
                "count": int(states["count"][n]),
                "trail": trail,
            }
        return answers, refused


def read(row: dict[str, Any]) -> Event:
    if not isinstance(row.get("x"), (int, float)):
        raise DataError("the row has no x; expected a number.")
    key, seq = str(row["key"]), read_seq(row, "seq")
    return Event(key, seq, {"key": key, "seq": seq}, row["x"])


def write(lines: bytes) -> None:
    while lines:
        lines = lines[os.write(1, lines) :]


if __name__ == "__main__":
    engine = StreamEngine(Smoothing(), SQLiteStore(sys.argv[1]), max_keys=5)
    serve(LineSession(engine, read), sys.stdin.buffer, write, most=50)
    engine.close()
