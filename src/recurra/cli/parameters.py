"""Parameters that the commands of every task share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Minutes = Annotated[
    float | None, typer.Option(help="Time that training may take at most [default: 10].")
]
Steps = Annotated[int | None, typer.Option(help="Train this many updates instead of by the clock.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all chance [default: 0].")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda [default: auto].")]
Config = Annotated[Path | None, typer.Option(help="Settings as .toml or .json.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting, once for each: hidden_size=64."),
]


@contextlib.contextmanager
def interruptible(out: Path) -> Iterator[None]:
    """Say how to go on when training into the folder `out` is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        if any((out / "checkpoints").glob("step-*.safetensors")):
            typer.echo("training is saved; go on with the same command and --resume", err=True)
        raise
