"""`stream` on the command line, for every task: its options, and lines through an engine."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recurra.streaming.mqtt import Address
    from recurra.streaming.session import LineSession, Reader
    from recurra.streaming.stepper import Stepper
    from recurra.streaming.store import Store as Kept

Store = Annotated[
    str | None,
    typer.Option(
        help="File that keeps the states, so that a restart goes on where it was; or redis://HOST.",
        metavar="FILE",
    ),
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
Push = Callable[[dict[str, Any]], dict[str, Any]]
To = Annotated[
    str | None,
    typer.Option("--to", help="Topic to answer under instead of stdout: mqtt://HOST[:PORT]/TOPIC."),
]


def run_stream(
    stepper: Stepper,
    read: Reader,
    store: str | None,
    source: str | None = None,
    sink: str | None = None,
) -> None:
    """Answer the lines on stdin, or the messages of a topic, until they end, or Ctrl-C.

    Raises: StoreError when the store cannot be used; ConfigError and BrokerError for an address of
    MQTT; typer.Exit 1 when lines were answered with an error, 130 after Ctrl-C.
    """
    from recurra.streaming.engine import StreamEngine
    from recurra.streaming.session import LineSession

    addresses = _address(source, store), _address(sink, store)
    engine = StreamEngine(stepper, None if store is None else _store(store))
    session = LineSession(engine, read)
    try:
        ended = _serve(session, *addresses)
    finally:
        engine.close()
    _tell_errors(session.errors)
    if not ended:
        typer.echo("stopped; what was read is answered", err=True)
        raise typer.Exit(130)
    if session.errors:
        raise typer.Exit(1)


def run_lines(push: Push, is_json: bool, write: Callable[[str], object] | None = None) -> None:
    """Answer each line on stdin by itself: JSON objects, or lines of text, which come as {"text"}.

    write   where answers go, a line each; None for stdout
    Raises: typer.Exit 1 when lines were answered with an error.
    """
    from recurra.streaming.jsonlines import answer, flushed, parse_object, parse_text, read_lines

    lines, parse = read_lines(sys.stdin.buffer), parse_object if is_json else parse_text
    errors = answer(lines, push, write or flushed(sys.stdout), parse=parse)
    _tell_errors(errors)
    if errors:
        raise typer.Exit(1)


def _tell_errors(errors: int) -> None:
    if errors:
        plural = "s" if errors > 1 else ""
        typer.echo(f"{errors} line{plural} answered with an error", err=True)


def _store(text: str) -> Kept:
    """The store of a path or an address. Raises: ConfigError for a wrong address."""
    from recurra.streaming.redis import RedisStore, is_redis
    from recurra.streaming.sqlite import SQLiteStore

    return RedisStore(text) if is_redis(text) else SQLiteStore(text)


def _address(text: str | None, store: str | None) -> Address | None:
    """The address of a topic; with a store it has a name that the broker knows again."""
    if text is None:
        return None
    from recurra.streaming.mqtt import read_address

    address = read_address(text)
    if store is None or address.client is not None:
        return address
    place = store if "://" in store else Path(store).resolve()
    mark = hashlib.sha256(f"{address} {place}".encode()).hexdigest()
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
