"""`stream` on the command line, for every task: its options, and lines through an engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recurra.streaming.session import Reader
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


def run_stream(stepper: Stepper, read: Reader, store: Path | None) -> None:
    """Answer the lines on stdin until they end, or Ctrl-C.

    Raises: StoreError when the store cannot be used; typer.Exit 1 when lines were answered with an
    error, 130 after Ctrl-C.
    """
    from recurra.streaming.engine import StreamEngine
    from recurra.streaming.session import LineSession, serve
    from recurra.streaming.sqlite import SQLiteStore

    engine = StreamEngine(stepper, None if store is None else SQLiteStore(store))
    session = LineSession(engine, read)
    try:
        ended = serve(session, sys.stdin.buffer, _write)
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


def _write(lines: bytes) -> Any:
    sys.stdout.write(lines.decode())
    sys.stdout.flush()
