"""Streams from outside: many keyed streams through one model, kept safe, as JSON lines.

Public names are imported on first use: an engine over a model of one's own needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recurra.streaming.engine import Answers as Answers
    from recurra.streaming.engine import StreamEngine as StreamEngine
    from recurra.streaming.mqtt import MqttSink as MqttSink
    from recurra.streaming.mqtt import MqttSource as MqttSource
    from recurra.streaming.mqtt import read_address as read_address
    from recurra.streaming.queue import EventQueue as EventQueue
    from recurra.streaming.session import Event as Event
    from recurra.streaming.session import LineSession as LineSession
    from recurra.streaming.session import serve as serve
    from recurra.streaming.session import serve_batches as serve_batches
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
    "MqttSink": "mqtt",
    "MqttSource": "mqtt",
    "SQLiteStore": "sqlite",
    "StackStepper": "stack",
    "Stepper": "stepper",
    "Store": "store",
    "StreamEngine": "engine",
    "read_address": "mqtt",
    "serve": "session",
    "serve_batches": "session",
}

__all__ = [
    "Answers",
    "Event",
    "EventQueue",
    "LineSession",
    "MemoryStore",
    "MqttSink",
    "MqttSource",
    "SQLiteStore",
    "StackStepper",
    "Stepper",
    "Store",
    "StreamEngine",
    "read_address",
    "serve",
    "serve_batches",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'recurra.streaming' has no attribute {name!r}")
    module = importlib.import_module(f"recurra.streaming.{_PUBLIC[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
