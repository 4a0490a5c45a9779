"""A store in Redis: one transaction, one owner, and nothing damaged is taken for a state."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.streaming.smoothing import Smoothing

from recurra.errors import ConfigError, StoreError
from recurra.streaming.engine import StreamEngine
from recurra.streaming.records import Layout
from recurra.streaming.redis import RedisStore
from recurra.streaming.store import Entry

redis = pytest.importorskip("redis", reason="needs redis: pip install 'recurra[redis]'")
SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
KEYS = [f"k{n}" for n in range(40)]
pytestmark = pytest.mark.skipif(SERVER is None, reason="needs redis-server (Debian package)")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """That of a server of these tests, which keeps nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    folder: Path = tmp_path_factory.mktemp("redis")
    words = [SERVER, "--port", str(number), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    process = subprocess.Popen([*words, "--requirepass", "sesame"], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", number), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield number
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def server(port: int) -> Iterator[Any]:
    client = redis.Redis(port=port, password="sesame")
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def url(port: int, server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RECURRA_REDIS_PASSWORD", "sesame")
    return f"redis://127.0.0.1:{port}/0"


def fill(url: str) -> None:
    engine = StreamEngine(Smoothing(), RedisStore(url))
    engine.push(KEYS, [1.0] * 40, [5] * 40)
    engine.close()


def counts(url: str, seq: int) -> set[int]:
    engine = StreamEngine(Smoothing(), RedisStore(url))
    try:
        return {one["count"] for one in engine.push(KEYS, [1.0] * 40, [seq] * 40).values}
    finally:
        engine.close()


def test_states_and_output_are_there_again_and_names_apart(url: str) -> None:
    fill(url)
    engine = StreamEngine(Smoothing(), RedisStore(url), max_keys=3)
    assert len(engine) == 40
    answers = engine.step(KEYS, [1.0] * 40, [6] * 40)
    assert {one["count"] for one in answers.values} == {2}
    engine.commit(output=b"told\n")
    assert engine.push(["k1"], [1.0], [6]).status[0] != 0  # known as sent twice
    engine.close()
    store = RedisStore(url)
    store.open(Layout.of(Smoothing()))
    assert set(store.read([*KEYS, "other"])) == set(KEYS)
    store.close()
    with pytest.raises(StoreError, match=r"127.0.0.1:\d+/0 is not open"):
        store.read(["k1"])
    assert counts(url + "#other", 1) == {1}


def test_what_was_seen_before_a_time_is_dropped_in_the_same_commit(url: str) -> None:
    store = RedisStore(url)
    store.open(Layout.of(Smoothing()))
    store.commit([Entry("a", b"1", 10), Entry("b", b"1", 10), Entry("ü", b"1", 30)], b"first")
    store.commit([Entry("b", b"2", 25), Entry("c", b"2", 15)], b"second", expire_before=20)
    assert store.read(["a", "b", "c", "ü"]) == {"b": b"2", "ü": b"1"}
    assert (len(store), store.last_output()) == (2, b"second")
    store.close()


def test_who_opens_it_last_owns_it(url: str) -> None:
    first, second = RedisStore(url), RedisStore(url)
    first.open(Layout.of(Smoothing()))
    first.commit([Entry("a", b"one", 1)], b"first")
    second.open(Layout.of(Smoothing()))
    with pytest.raises(StoreError, match=r"another process has opened it since\. Nothing was"):
        first.commit([Entry("a", b"two", 2)], b"late")
    assert second.read(["a"]) == {"a": b"one"}
    second.commit([Entry("a", b"three", 3)], b"third")
    assert second.last_output() == b"third"
    for store in (first, second):
        store.close()


def test_an_owner_that_changes_during_a_commit_is_noticed(
    url: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(url)
    store.open(Layout.of(Smoothing()))
    checked = store._check_owner

    def overtaken(found: bytes | None) -> None:
        checked(found)
        server.set("{recurra}:owner", b"somebody")

    monkeypatch.setattr(store, "_check_owner", overtaken)
    with pytest.raises(StoreError, match="another process has opened it since"):
        store.commit([Entry("a", b"one", 1)])
    assert store.read(["a"]) == {}
    store.close()


def test_states_of_other_weights_are_refused_and_stay_their_owner_s(url: str) -> None:
    engine = StreamEngine(Smoothing(), RedisStore(url))
    engine.push(["a"], [1.0])
    with pytest.raises(StoreError, match=r"made by other weights: model abababababab.*cdcdcd"):
        StreamEngine(Smoothing("cd" * 32), RedisStore(url))
    assert engine.push(["a"], [1.0]).values[0]["count"] == 2
    engine.close()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (
            lambda at: at.hset("{recurra}:records", "k7", b"x"),
            "the state of 'k7' is damaged: it is 1",
        ),
        (
            lambda at: at.hset("{recurra}:records", "k7", at.hget("{recurra}:records", "k8")),
            "the state of 'k7' is damaged: its checksum",
        ),
        (
            lambda at: at.set("{recurra}:records", b"x"),
            r"cannot read .*WRONGTYPE.*Restore the store",
        ),
        (lambda at: at.set("{recurra}:output", b"lies"), "checksum of the last output"),
        (
            lambda at: at.set("{recurra}:about", b"mine"),
            "about is of something else. Choose another",
        ),
        (lambda at: at.set("{recurra}:about", b"RCSR 9\n{}"), "has another format; this version"),
    ],
)
def test_what_is_damaged_or_foreign_is_refused_in_words(
    url: str, server: Any, harm: Callable[[Any], Any], told: str
) -> None:
    fill(url)
    harm(server)
    with pytest.raises(StoreError, match=told):
        counts(url, 6)


def test_without_a_server_or_its_password_the_error_says_so(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECURRA_REDIS_PASSWORD")
    with pytest.raises(StoreError, match=r"cannot open redis://127.0.0.1:\d+/0: .*Check address"):
        RedisStore(url).open(Layout.of(Smoothing()))
    with pytest.raises(StoreError, match=r"cannot open redis://127.0.0.1:9: .*Check address"):
        RedisStore("redis://:secret@127.0.0.1:9").open(Layout.of(Smoothing()))


@pytest.mark.parametrize(
    "text", ["redis://", "http://h", "redis://u:secret@h:x", "redis://h/one", "redis://h?db=1"]
)
def test_what_is_no_address_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a store; expected redis://") as caught:
        RedisStore(text)
    assert "secret" not in str(caught.value)
