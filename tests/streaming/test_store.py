"""Stores: one transaction, and nothing that is damaged or foreign is taken for a state."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.streaming.smoothing import Smoothing

from recurra.errors import ConfigError, StoreError
from recurra.streaming.engine import StreamEngine
from recurra.streaming.records import HEAD_BYTES, NEVER, Layout, decode, encode
from recurra.streaming.sqlite import SQLiteStore
from recurra.streaming.store import Entry, MemoryStore

KEYS = [f"k{n}" for n in range(300)]


def filled(path: Path) -> Path:
    engine = StreamEngine(Smoothing(), SQLiteStore(path))
    engine.push(KEYS, [1.0] * 300, [5] * 300)
    engine.close()
    return path


def reopened(path: Path, model_hash: str = "ab" * 32) -> Any:
    engine = StreamEngine(Smoothing(model_hash), SQLiteStore(path))
    try:
        return engine.push(KEYS, [1.0] * 300, [6] * 300)
    finally:
        engine.close()


def test_states_answers_and_output_are_there_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "s.db")
    engine = StreamEngine(Smoothing(), SQLiteStore(path))
    assert len(engine) == 300
    answers = engine.step(KEYS, [1.0] * 300, [6] * 300)
    assert {value["count"] for value in answers.values} == {2}
    engine.commit(output=b"told")
    engine.close()
    store = SQLiteStore(path)
    store.open(Layout.of(Smoothing()))
    assert store.last_output() == b"told"
    assert set(store.read([*KEYS, "other"])) == set(KEYS)
    store.close()
    with pytest.raises(StoreError, match="is not open"):
        store.read(["k1"])


def test_a_commit_that_fails_changes_nothing(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    store.open(Layout.of(Smoothing()))
    store.commit([Entry("a", b"one", 1)], b"first")
    bad: Any = Entry("b", None, 1)
    with pytest.raises(StoreError, match=r"cannot write .*s\.db: NOT NULL"):
        store.commit([Entry("a", b"two", 2), bad], b"second")
    assert store.read(["a", "b"]) == {"a": b"one"}
    assert store.last_output() == b"first"
    store.close()


def test_a_store_has_one_user_at_a_time(tmp_path: Path) -> None:
    path = filled(tmp_path / "s.db")
    engine = StreamEngine(Smoothing(), SQLiteStore(path))
    with pytest.raises(StoreError, match=r"locked.*Another process has it open"):
        StreamEngine(Smoothing(), SQLiteStore(path))
    engine.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_states_of_other_weights_are_refused(tmp_path: Path, kind: str) -> None:
    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "s.db")
    StreamEngine(Smoothing(), store).push(["a"], [1.0])
    store.close()
    with pytest.raises(StoreError, match=r"made by other weights: model abababababab.*cdcdcd"):
        StreamEngine(Smoothing("cd" * 32), store)

    class Wider(Smoothing):
        record = np.dtype([("level", "<f8")])

    with pytest.raises(StoreError, match="another layout, though of the same model"):
        StreamEngine(Wider(), store)


def test_a_record_with_objects_is_no_record() -> None:
    class Loose(Smoothing):
        record = np.dtype([("level", "O")])

    with pytest.raises(ConfigError, match="must be a structured dtype of numbers"):
        StreamEngine(Loose())


# Hostile files


def change(path: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.rindex(b"RCSR") + HEAD_BYTES + 3
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (cut, "malformed"),
        (lambda path: path.write_bytes(b"key,state\n1,2\n"), "does not begin as an SQLite file"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "not a database|malformed"),
        (flip, "checksum is not that of its content"),
        (lambda path: change(path, "PRAGMA user_version = 9"), "has format 9; this version reads"),
        (lambda path: change(path, "PRAGMA application_id = 7"), "of another application"),
        (lambda path: change(path, "CREATE TABLE more (x)"), "its tables are not those of a store"),
        (
            lambda path: change(
                path,
                "CREATE TRIGGER t AFTER UPDATE ON streams BEGIN DELETE FROM streams; END",
            ),
            "its tables are not those of a store",
        ),
        (lambda path: change(path, "DROP TABLE output"), "its tables are not those of a store"),
        (lambda path: change(path, "DELETE FROM about"), "does not say its model"),
        (
            lambda path: change(path, "UPDATE about SET description = ?", "[" * 90_000),
            "does not say its model",
        ),
        (
            lambda path: change(path, "UPDATE about SET description = ?", '{"model": 1}'),
            "does not say its model",
        ),
        (
            lambda path: change(path, "UPDATE output SET content = ?", b"lies"),
            "checksum of the last output",
        ),
        (
            lambda path: change(path, "UPDATE streams SET record = ? WHERE key = 'k7'", b"short"),
            "the state of 'k7' is damaged: it is 5 bytes, expected 44 or more",
        ),
        (
            lambda path: change(path, "UPDATE streams SET record = ? WHERE key = 'k7'", "text"),
            "the state of 'k7' is damaged: it is a str",
        ),
        (
            lambda path: change(
                path,
                "UPDATE streams SET record = (SELECT record FROM streams WHERE key = 'k8') "
                "WHERE key = 'k7'",
            ),
            "the state of 'k7' is damaged: its checksum",
        ),
    ],
)
def test_what_is_damaged_or_foreign_is_refused_in_words(
    tmp_path: Path, harm: Callable[[Path], Any], told: str
) -> None:
    path = filled(tmp_path / "s.db")
    harm(path)
    with pytest.raises(StoreError, match=told) as caught:
        reopened(path)
    assert "s.db" in str(caught.value)


def test_an_empty_file_and_one_left_before_its_first_transaction_are_new(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"")
    assert {value["count"] for value in reopened(path).values} == {1}
    other = tmp_path / "t.db"
    sqlite3.connect(other).execute("PRAGMA journal_mode = WAL").connection.close()
    assert {value["count"] for value in reopened(other).values} == {1}
    with pytest.raises(StoreError, match=r"cannot read|unable to open"):
        reopened(tmp_path)


# Records


def one_record(answer: bytes = b"so") -> tuple[Layout, bytes, Any]:
    layout = Layout.of(Smoothing())
    state = np.zeros(1, layout.record)
    state["level"], state["trail"][0, 1] = 2.5, (1, 2)
    (raw,) = encode(layout, ["k"], state, np.array([9]), np.array([7]), [answer])
    return layout, raw, state


def test_a_record_is_what_its_description_says() -> None:
    layout, raw, state = one_record()
    assert raw[:8] == b"RCSR\x01\x00\x00\x00"
    assert struct.unpack_from("<qqII", raw, 16) == (9, 7, 40, 2)
    assert struct.unpack_from("<d", raw, 44) == (2.5,)
    assert raw[44 + 40 :] == b"so"
    record = decode(layout, "k", raw, "here")
    assert (record.state == state).all()
    assert (record.last, record.seen, record.answer) == (9, 7, b"so")
    assert NEVER == -(2**63)


@given(place=st.integers(0, 85), bit=st.integers(0, 7))
def test_every_changed_bit_is_seen(place: int, bit: int) -> None:
    layout, raw, _ = one_record()
    changed = bytearray(raw)
    changed[place] ^= 1 << bit
    with pytest.raises(StoreError, match="here: the state of 'k'"):
        decode(layout, "k", bytes(changed), "here")


@given(raw=st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    layout, _, _ = one_record()
    with pytest.raises(StoreError, match="here: the state of 'k'"):
        decode(layout, "k", raw, "here")


def test_a_record_of_another_key_version_or_length_is_refused() -> None:
    layout, raw, _ = one_record()
    with pytest.raises(StoreError, match="the state of 'other' is damaged: its checksum"):
        decode(layout, "other", raw, "here")
    with pytest.raises(StoreError, match="has version 2; this version reads 1"):
        decode(layout, "k", raw[:4] + b"\x02" + raw[5:], "here")
    with pytest.raises(StoreError, match="it has 85 bytes, expected 86"):
        decode(layout, "k", raw[:-1], "here")
    other = Layout("cd" * 32, layout.record)
    with pytest.raises(StoreError, match="made by other weights or has another layout"):
        decode(other, "k", raw, "here")
