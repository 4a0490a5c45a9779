"""`stream` on the command line, for every task: its options, and lines through an engine."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recurra.streaming.mqtt import Address
    from recurra.streaming.session import LineSession, Reader
    from recurra.streaming.stepper import Stepper

Store = Annotated[
    Path | None,
    typer.Option(help="File that keeps the states, so that a restart goes on where it was."),
]
Key = Annotated[str | None, typer.Option(help="Column that names the stream of a line.")]
Seq = Annotated[
    str | None,
    typer.Option(help="Column of whole numbers that tell the events of a stream apart."),
]
From = Annotated[
    str | None,
    typer.Option("--from", help="Topic to read instead of stdin: mqtt://HOST[:PORT]/TOPIC."),
]
To = Annotated[
    str | None,
    typer.Option("--to", help="Topic to answer under instead of stdout: mqtt://HOST[:PORT]/TOPIC."),
]


def run_stream(
    stepper: Stepper,
    read: Reader,
    store: Path | None,
    source: str | None = None,
    sink: str | None = None,
) -> None:
    """Answer the lines on stdin, or the messages of a topic, until they end, or Ctrl-C.

    Raises: StoreError when the store cannot be used; ConfigError and BrokerError for an address of
    MQTT; typer.Exit 1 when lines were answered with an error, 130 after Ctrl-C.
    """
    from recurra.streaming.engine import StreamEngine
    from recurra.streaming.session import LineSession
    from recurra.streaming.sqlite import SQLiteStore

    addresses = _address(source, store), _address(sink, store)
    engine = StreamEngine(stepper, None if store is None else SQLiteStore(store))
    session = LineSession(engine, read)
    try:
        ended = _serve(session, *addresses)
    finally:
        engine.close()
    if session.errors:
        plural = "s" if session.errors > 1 else ""
        typer.echo(f"{session.errors} line{plural} answered with an error", err=True)
    if not ended:
        typer.echo("stopped; what was read is answered", err=True)
        raise typer.Exit(130)
    if session.errors:
        raise typer.Exit(1)


def _address(text: str | None, store: Path | None) -> Address | None:
    """The address of a topic; with a store it has a name that the broker knows again."""
    if text is None:
        return None
    from recurra.streaming.mqtt import read_address

    address = read_address(text)
    if store is None or address.client is not None:
        return address
    mark = hashlib.sha256(f"{address} {store.resolve()}".encode()).hexdigest()
    return address._replace(client=f"recurra-{mark[:15]}")  # 23 signs, which every broker takes


def _serve(session: LineSession, source: Address | None, sink: Address | None) -> bool:
    """Whether the input ended by itself."""
    from recurra.streaming.session import serve, serve_batches

    if source is None and sink is None:
        return serve(session, sys.stdin.buffer, _write)
    from recurra.streaming.mqtt import MqttSink, MqttSource

    with contextlib.ExitStack() as opened:
        write = _write if sink is None else opened.enter_context(MqttSink(sink)).write
        if source is None:
            return serve(session, sys.stdin.buffer, write)
        messages = opened.enter_context(MqttSource(source))
        return serve_batches(session, messages.batches, write)


def _write(lines: bytes) -> Any:
    sys.stdout.write(lines.decode())
    sys.stdout.flush()
