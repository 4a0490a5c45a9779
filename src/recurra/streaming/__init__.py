"""Streams from outside: many keyed streams through one model, kept safe, as JSON lines.

Public names are imported on first use: an engine over a model of one's own needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recurra.streaming.engine import Answers as Answers
    from recurra.streaming.engine import StreamEngine as StreamEngine
    from recurra.streaming.queue import EventQueue as EventQueue
    from recurra.streaming.session import Event as Event
    from recurra.streaming.session import LineSession as LineSession
    from recurra.streaming.session import serve as serve
    from recurra.streaming.sqlite import SQLiteStore as SQLiteStore
    from recurra.streaming.stack import StackStepper as StackStepper
    from recurra.streaming.stepper import Stepper as Stepper
    from recurra.streaming.store import MemoryStore as MemoryStore
    from recurra.streaming.store import Store as Store

_PUBLIC = {
    "Answers": "engine",
    "Event": "session",
    "EventQueue": "queue",
    "LineSession": "session",
    "MemoryStore": "store",
    "SQLiteStore": "sqlite",
    "StackStepper": "stack",
    "Stepper": "stepper",
    "Store": "store",
    "StreamEngine": "engine",
    "serve": "session",
}

__all__ = [
    "Answers",
    "Event",
    "EventQueue",
    "LineSession",
    "MemoryStore",
    "SQLiteStore",
    "StackStepper",
    "Stepper",
    "Store",
    "StreamEngine",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'recurra.streaming' has no attribute {name!r}")
    module = importlib.import_module(f"recurra.streaming.{_PUBLIC[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
