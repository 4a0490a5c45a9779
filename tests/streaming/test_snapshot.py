"""Snapshots: all states in one file, and nothing damaged or foreign is taken for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.streaming.smoothing import Smoothing

from recurra.errors import ConfigError, RunError, StoreError
from recurra.streaming.engine import StreamEngine
from recurra.streaming.store import MemoryStore

KEYS = ["süd", "", *(f"k{n}" for n in range(40))]


def running(model_hash: str = "ab" * 32) -> StreamEngine:
    engine = StreamEngine(Smoothing(model_hash))
    for n in range(3):
        engine.push(KEYS, [float(k + n) for k in range(len(KEYS))], [n] * len(KEYS))
    return engine


def test_a_snapshot_goes_on_to_the_same_bits_and_knows_duplicates(tmp_path: Path) -> None:
    engine, path = running(), tmp_path / "all.states"
    engine.snapshot(path)
    again = StreamEngine(Smoothing())
    again.push(["gone"], [1.0])
    again.restore(path)
    assert len(again) == len(KEYS)
    keys = [*KEYS, "new", "süd"]
    first, second = (e.push(keys, [2.0] * len(keys), [7] * len(keys)) for e in (engine, again))
    assert first.values == second.values
    assert second.gap[0] == 4
    assert again.push(["k3"], [1.0], [2]).status.tolist() == [2]


def test_an_empty_engine_has_a_snapshot_and_one_with_a_store_has_none(tmp_path: Path) -> None:
    path = tmp_path / "all.states"
    StreamEngine(Smoothing()).snapshot(path)
    engine = running()
    engine.restore(path)
    assert len(engine) == 0
    with pytest.raises(ConfigError, match="keeps its states in the store in memory"):
        StreamEngine(Smoothing(), MemoryStore()).snapshot(path)
    with pytest.raises(RunError, match="cannot write"):
        engine.snapshot(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> bytes:
    path = tmp_path_factory.mktemp("snapshot") / "all.states"
    running().snapshot(path)
    return path.read_bytes()


def refused(tmp_path: Path, content: bytes, told: str, model_hash: str = "ab" * 32) -> None:
    path = tmp_path / "bad.states"
    path.write_bytes(content)
    engine = running(model_hash)
    with pytest.raises(StoreError, match=told):
        engine.restore(path)
    assert len(engine) == len(KEYS)  # it goes on with what it had


def test_what_is_damaged_or_foreign_is_refused_in_words(tmp_path: Path, whole: bytes) -> None:
    refused(tmp_path, whole[:-1], rf"it has {len(whole) - 1} bytes, expected {len(whole)}")
    refused(tmp_path, whole + b"x", rf"it has {len(whole) + 1} bytes, expected {len(whole)}")
    refused(tmp_path, b"key,state", "is no snapshot of states")
    refused(tmp_path, b"", "is damaged: it is cut short")
    refused(tmp_path, whole[:8] + b"\xff" * 4 + whole[12:], "its header of 4294967295 bytes")
    refused(tmp_path, whole, "made by other weights", "cd" * 32)
    many = whole.replace(b'"streams": 42', b'"streams": -2')
    refused(tmp_path, many, "it says that it holds -2 streams")
    with pytest.raises(StoreError, match=r"cannot read .*No such file"):
        running().restore(tmp_path / "none")


@given(data=st.data())
def test_every_changed_byte_is_seen(tmp_path_factory: Any, whole: bytes, data: Any) -> None:
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("changed") / "bad.states"
    path.write_bytes(bytes(changed))
    with pytest.raises(StoreError, match=r"bad\.states"):
        StreamEngine(Smoothing()).restore(path)
