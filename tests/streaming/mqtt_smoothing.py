"""The model of smoothing.py between two topics: python mqtt_smoothing.py STORE FROM TO."""

from __future__ import annotations

import sys

from tests.streaming.smoothing import Smoothing, read

from recurra.streaming.engine import StreamEngine
from recurra.streaming.mqtt import MqttSink, MqttSource, read_address
from recurra.streaming.session import LineSession, serve_batches
from recurra.streaming.sqlite import SQLiteStore

if __name__ == "__main__":
    engine = StreamEngine(Smoothing(), SQLiteStore(sys.argv[1]), max_keys=5)
    source, sink = read_address(sys.argv[2]), read_address(sys.argv[3])
    with MqttSink(sink) as answers, MqttSource(source) as messages:
        serve_batches(LineSession(engine, read), messages.batches, answers.write)
    engine.close()
