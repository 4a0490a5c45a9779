"""`recurra anomaly stream` between two topics of an MQTT broker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sized
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.cli.conftest import Recurra, leave
from tests.streaming.brokers import Broker, needs_broker

from recurra.streaming.mqtt import MqttSink, MqttSource, read_address

pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install 'recurra[mqtt]'")
ROWS = 60


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cpu.csv and `run` of all but its last rows."""
    folder = tmp_path_factory.mktemp("watched")
    cpu = np.random.default_rng(0).normal(50, 1, 200 + ROWS)
    frame = pl.DataFrame({"t": np.arange(200 + ROWS), "cpu": cpu})
    frame.write_csv(folder / "cpu.csv")
    words = ("anomaly", "train", folder / "cpu.csv", "--time", "t", "--value", "cpu")
    assert leave(*words, "--until", "199", "--out", folder / "run") == 0
    return folder


def lines(watched: Path) -> list[bytes]:
    rows = pl.read_csv(watched / "cpu.csv")[200:].rows()
    return [json.dumps({"t": t, "cpu": x}).encode() + b"\n" for t, x in rows]


class Until:
    """A stop that is asked for when `given` has so many entries, or after 60 seconds."""

    def __init__(self, given: Sized, count: int) -> None:
        self._given, self._count, self._until = given, count, time.monotonic() + 60

    @property
    def asked(self) -> bool:
        return len(self._given) >= self._count or time.monotonic() > self._until


def gather(told: MqttSource, given: dict[int, float], count: int) -> None:
    """Put the surprises of answers into `given`, by time, until it has so many."""
    for batch in told.batches(Until(given, count)):
        for one in batch:
            answer = json.loads(one.body)
            assert given.setdefault(answer["t"], answer["surprise"]) == answer["surprise"]


def ended(process: subprocess.Popen[bytes]) -> bytes:
    """What it said on stderr until it ended, after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=30)[1]
    finally:
        process.kill()


@needs_broker
def test_messages_are_answered_as_predict_does_over_a_restart(
    recurra: Recurra, watched: Path, tmp_path: Path
) -> None:
    wanted = json.loads(
        recurra("anomaly", "predict", watched / "run", watched / "cpu.csv", "--json").out
    )["answers"]["surprise"][200:]
    sent = lines(watched)
    with Broker(tmp_path, "log_type all") as broker:
        words = ["anomaly", "stream", str(watched / "run"), "--store", str(tmp_path / "s.db")]
        words += ["--from", broker.url("hall/+"), "--to", broker.url("alarms")]
        program = [sys.executable, "-c", "from recurra.cli.main import main; main()", *words]
        given: dict[int, float] = {}
        with (
            MqttSource(read_address(broker.url("alarms"))) as told,
            MqttSink(read_address(broker.url("hall/cpu"))) as sensor,
        ):
            watcher = subprocess.Popen(program, stderr=subprocess.PIPE)
            try:
                broker.wait_for("Sending SUBACK to recurra-")
                sensor.write(b"".join(sent[: ROWS // 2]))
                gather(told, given, ROWS // 2)
            finally:
                said = ended(watcher)
            assert (watcher.returncode, b"what was read is answered" in said) == (130, True)
            sensor.write(b"".join(sent[ROWS // 2 :]))  # the broker keeps them
            watcher = subprocess.Popen(program, stderr=subprocess.PIPE)
            try:
                gather(told, given, ROWS)
            finally:
                ended(watcher)
    assert given == dict(enumerate(wanted, 200))


@needs_broker
def test_lines_of_stdin_are_answered_under_a_topic(
    recurra: Recurra, watched: Path, tmp_path: Path
) -> None:
    with Broker(tmp_path) as broker:
        with MqttSource(read_address(broker.url("alarms", "?client=told"))):
            pass
        words = ("anomaly", "stream", watched / "run", "--to", broker.url("alarms"))
        done = recurra(*words, stdin=b"".join(lines(watched)[:3]))
        assert (done.status, done.out) == (0, "")
        with MqttSource(read_address(broker.url("alarms", "?client=told"))) as told:
            given: dict[int, float] = {}
            gather(told, given, 3)
    assert list(given) == [200, 201, 202]


def test_an_address_is_checked_before_anything_is_read(recurra: Recurra, watched: Path) -> None:
    done = recurra("anomaly", "stream", watched / "run", "--from", "http://hall/t")
    assert (done.status, "'http://hall/t' is no address of a topic" in done.err) == (2, True)
    done = recurra("anomaly", "stream", watched / "run", "--to", "mqtt://127.0.0.1:9/t")
    assert (done.status, "cannot connect to mqtt://127.0.0.1:9/t" in done.err) == (1, True)
