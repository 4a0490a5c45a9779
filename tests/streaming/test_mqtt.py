"""Messages through an engine: what is answered, acknowledged, delivered again, and refused."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.streaming.brokers import Broker, needs_broker
from tests.streaming.smoothing import Smoothing, read

from recurra.errors import BrokerError, ConfigError
from recurra.streaming.engine import StreamEngine
from recurra.streaming.mqtt import PASSWORD, USER, MqttSink, MqttSource, read_address
from recurra.streaming.session import LineSession, Message
from recurra.streaming.store import MemoryStore

pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install 'recurra[mqtt]'")
PROGRAM = Path(__file__).with_name("mqtt_smoothing.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path) as started:
        yield started


class Until:
    """A stop that is asked for as soon as `done` says so, or after 20 seconds."""

    def __init__(self, done: Callable[[], bool]) -> None:
        self._done, self._until = done, time.monotonic() + 20

    @property
    def asked(self) -> bool:
        return self._done() or time.monotonic() > self._until


def line(key: str, seq: int, x: float = 1.5) -> bytes:
    return json.dumps({"key": key, "seq": seq, "x": x}).encode() + b"\n"


def gather(source: MqttSource, count: int) -> list[Message]:
    """The next messages, at least so many, acknowledged."""
    found: list[Message] = []
    stop = Until(lambda: len(found) >= count)
    for batch in source.batches(stop):
        found.extend(batch)
    return found


# Addresses


def test_an_address_has_all_that_a_connection_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(USER, raising=False)
    monkeypatch.delenv(PASSWORD, raising=False)
    made = read_address("mqtts://me:a%40b@hall.example:99/s/%20x/#?ca=/etc/my.pem&client=pump")
    assert made[:5] == ("hall.example", 99, "s/ x/#", "me", "a@b")
    assert (made.is_secure, made.ca, made.client) == (True, "/etc/my.pem", "pump")
    assert "a@b" not in str(made)
    assert read_address("mqtt://h/t")[:5] == ("h", 1883, "t", None, None)
    monkeypatch.setenv(USER, "you")
    monkeypatch.setenv(PASSWORD, "secret")
    assert read_address("mqtt://h/t")[3:5] == ("you", "secret")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h/t", "'h/t' is no address of a topic; expected mqtt://"),
        ("http://h/t", "'http://h/t' is no address of a topic"),
        ("mqtt://h", "'mqtt://h' is no address of a topic"),
        ("mqtt:///t", "'mqtt:///t' is no address of a topic"),
        ("mqtt://h:port/t", "'mqtt://h:port/t' has no usable port"),
        ("mqtt://h:70000/t", "has no usable port"),
        ("mqtt://h/t?cient=a", "unknown option 'cient'; did you mean 'client'?"),
        ("mqtt://h/a/#/b", "a wildcard of the topic 'a/#/b' is not a level of its own"),
        ("mqtt://h/a+", "a wildcard of the topic 'a+' is not a level of its own"),
        ("mqtt://a:secret@h:x/t", "'mqtt://…@h:x/t' has no usable port"),
    ],
)
def test_what_is_no_address_is_refused_without_its_password(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_address(text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_answers_need_one_topic() -> None:
    with pytest.raises(ConfigError, match=r"h:1883/a/\+ has a wildcard; expected one topic"):
        MqttSink(read_address("mqtt://h/a/+"))


# Brokers that cannot be used


def test_without_a_broker_the_error_says_where_none_is() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(BrokerError, match=rf"127.0.0.1:{port}/t: Connection refused. Check host"),
        MqttSource(read_address(f"mqtt://127.0.0.1:{port}/t")),
    ):
        pass


@needs_broker
def test_a_broker_that_asks_who_we_are(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    # "open sesame", as mosquitto_passwd writes it.
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "me", "open sesame"], check=True)
    access = tmp_path / "access"
    access.write_text("user me\ntopic readwrite allowed/#\n")
    for file in (passwords, access):
        file.chmod(0o644)
    lines = ("allow_anonymous false", f"password_file {passwords}", f"acl_file {access}")
    with Broker(tmp_path, *lines) as broker:
        url = f"mqtt://me:{{}}@127.0.0.1:{broker.port}/allowed/t"
        with pytest.raises(BrokerError, match="allowed/t refuses the connection: Not authorized"):
            MqttSource(read_address(url.format("wrong"))).__enter__()
        address = read_address(url.format("open%20sesame"))
        with MqttSource(address) as source, MqttSink(address) as sink:
            sink.write(b"1\n")
            assert gather(source, 1) == [Message(b"1", "allowed/t")]


# Messages


@needs_broker
def test_messages_are_answered_as_lines_are(broker: Broker) -> None:
    sent = [line("a", 1), b"oops\n", line("b", 1), line("a", 1), line("a", 3)]
    session = LineSession(StreamEngine(Smoothing(), MemoryStore()), read)
    wanted = LineSession(StreamEngine(Smoothing(), MemoryStore()), read).answer(
        [one.strip() for one in sent]
    )
    with (
        MqttSource(read_address(broker.url("out"))) as told,
        MqttSink(read_address(broker.url("in/cpu"))) as sensor,
        MqttSource(read_address(broker.url("in/#"))) as source,
        MqttSink(read_address(broker.url("out"))) as sink,
    ):
        sensor.write(b"".join(sent))
        topics: list[str] = []
        stop = Until(lambda: len(topics) >= len(sent))
        for batch in source.batches(stop):
            topics.extend(one.topic for one in batch)
            sink.write(session.answer(batch))
        assert set(topics) == {"in/cpu"}
        answers = [one.body + b"\n" for one in gather(told, len(sent))]
    assert b"".join(answers) == wanted
    assert session.errors == 1


def test_the_topic_can_name_the_stream() -> None:
    def by_topic(row: dict[str, Any]) -> Any:
        return read({**row, "key": row["topic"]})

    session = LineSession(StreamEngine(Smoothing()), by_topic)
    bodies = [Message(b'{"seq": 1, "x": 1}', "hall/a"), Message(b'{"seq": 1, "x": 1}', "hall/b")]
    bodies.append(Message(b'{"seq": 2, "x": 1, "topic": "hall/b"}', "hall/a"))
    told = [json.loads(one) for one in session.answer(bodies).splitlines()]
    assert [(one["key"], one["count"]) for one in told] == [
        ("hall/a", 1),
        ("hall/b", 1),
        ("hall/b", 2),
    ]


@needs_broker
def test_what_is_not_acknowledged_comes_again_to_the_same_client(broker: Broker) -> None:
    address = read_address(broker.url("t", "?client=watch"))
    with MqttSource(address):
        pass
    with MqttSink(read_address(broker.url("t"))) as sensor:
        sensor.write(b"1\n2\n3\n")  # nobody listens; the broker keeps them
    with MqttSource(address) as source:
        for batch in source.batches(Until(lambda: False)):
            assert [one.body for one in batch][:1] == [b"1"]
            break  # left before it was done with
    with MqttSource(address) as source:
        assert [one.body for one in gather(source, 3)] == [b"1", b"2", b"3"]
    end = time.monotonic() + 0.5
    with MqttSource(address) as source:
        assert list(source.batches(Until(lambda: time.monotonic() > end))) == []


@needs_broker
def test_no_batch_is_larger_than_asked_for(broker: Broker) -> None:
    with (
        MqttSource(read_address(broker.url("t"))) as source,
        MqttSink(read_address(broker.url("t"))) as sensor,
    ):
        sensor.write(b"".join(b"%d\n" % n for n in range(100)))
        sizes: list[int] = []
        for batch in source.batches(Until(lambda: sum(sizes) >= 100), 8):
            sizes.append(len(batch))
    assert sum(sizes) == 100
    assert max(sizes) <= 8


@needs_broker
def test_a_broker_that_comes_back_is_found_again(
    broker: Broker, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        MqttSource(read_address(broker.url("t"))) as source,
        MqttSink(read_address(broker.url("t"))) as sink,
    ):
        broker.stop()
        until = time.monotonic() + 20
        while source.is_ready and time.monotonic() < until:
            source.turn(0.1)
        broker.start()
        while not source.is_ready and time.monotonic() < until:
            source.turn(0.1)
        sink.write(b"1\n")
        assert [one.body for one in gather(source, 1)] == [b"1"]
    assert f"lost mqtt://127.0.0.1:{broker.port}/t; connecting again" in capfd.readouterr().err


# Processes


class Watcher:
    """mqtt_smoothing.py between two topics of a broker."""

    def __init__(self, store: Path, broker: Broker) -> None:
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, store, broker.url("in", "?client=watch"), broker.url("out")],
            env={**os.environ, "PYTHONPATH": path},
        )


@needs_broker
def test_after_kills_every_message_is_answered_as_without_them(
    broker: Broker, tmp_path: Path
) -> None:
    rng = random.Random(5)
    sent = [line(f"k{rng.randrange(12)}", n, rng.random()) for n in range(1500)]
    session = LineSession(StreamEngine(Smoothing(), MemoryStore()), read)
    wanted = dict(enumerate(session.answer(sent).splitlines()))
    given: dict[int, bytes] = {}
    source = read_address(broker.url("in", "?client=watch"))
    with MqttSource(source):  # the broker keeps what comes from here on
        pass
    with (
        MqttSource(read_address(broker.url("out"))) as told,
        MqttSink(read_address(broker.url("in"))) as sensor,
    ):
        # More than the broker keeps for one client would be dropped, so a part at a time.
        for part, kill in enumerate((True, True, True, True, False)):
            sensor.write(b"".join(sent[part * 300 : part * 300 + 300]))
            watcher = Watcher(tmp_path / "s.db", broker)
            until = time.monotonic() + 20
            due = part * 300 + (rng.randrange(300) if kill else 300)
            for batch in told.batches(Until(lambda due=due: len(given) >= due)):
                for message in batch:
                    answer = json.loads(message.body)
                    if "duplicate" not in answer:
                        assert given.setdefault(answer["seq"], message.body) == message.body
            assert time.monotonic() < until
            watcher.process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
            assert watcher.process.wait(20) == (-signal.SIGKILL if kill else 0)
    assert given == wanted
