"""`recurra bench`: how fast the layers are on this machine, beside other frameworks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from recurra.cli.parameters import Json

QUICK_ROUNDS, QUICK_VISIT_S = 1, 0.02


def command(
    modes: Annotated[
        str, typer.Option(help="Of train, infer, step, ragged, memory; commas between.")
    ] = "train,infer,step,ragged,memory",
    cells: Annotated[str, typer.Option(help="Of lstm, gru, rnn; commas between.")] = "lstm,gru,rnn",
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            help="For train and infer: tuned, other (nobody tunes on these), or B,T,I,H,L; may be "
            "repeated. [default: tuned]"
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Numbers of threads. [default: 1, and 2 if allowed]")
    ] = None,
    rivals: Annotated[
        str | None,
        typer.Option(
            help="Of recurra-tuned, recurra-out, torch-tuned, onnxruntime, openvino, jax, numpy; "
            "recurra and torch always take part. [default: all but recurra-tuned]"
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds that count. [default: 5; with --quick 1]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the outcome to this JSON file.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One small shape, one thread: a try, no measurement.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(help="Run nothing: assemble FILE.md from the outcome FILE.json."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Time recurra's layers on this machine, beside torch.nn and other frameworks.

    \b
    Example:
      recurra bench --modes train --cells gru --quick

    Rivals that are not installed are listed and left out: pip install 'recurra[bench]' brings all.
    The full run takes an hour or so, and is right only while nothing else runs.
    """
    from recurra.bench.cases import make_cases, parse_shapes
    from recurra.bench.participants import choose
    from recurra.bench.protocol import Settings
    from recurra.bench.run import run
    from recurra.bench.tables import write_page
    from recurra.cli.output import print_json
    from recurra.runs import write_json

    if page is not None:
        path = write_page(page)
        if as_json:
            print_json({"page": str(path)})
        else:
            typer.echo(str(path))
        return
    cases = make_cases(
        _words("--modes", modes),
        _words("--cells", cells),
        None if shapes is None else parse_shapes(shapes),
        _threads(threads, quick=quick),
        quick=quick,
    )
    participants, absent = choose(None if rivals is None else _words("--rivals", rivals))
    settings = Settings(rounds=rounds or 5)
    if quick:
        settings = Settings(rounds=rounds or QUICK_ROUNDS, visit_s=QUICK_VISIT_S)
    for name, how in absent.items():
        typer.echo(f"{name} is not installed and left out: {how}", err=True)
    given = {"modes": modes, "cells": cells, "threads": threads, "rivals": rivals, "rounds": rounds}
    outcome = run(
        cases,
        participants,
        absent,
        settings,
        command=_command(given, shapes or (), quick=quick, out=out),
        say=lambda line: typer.echo(line, err=True),
    )
    if out is not None:
        write_json(out, outcome)
    if as_json:
        print_json(outcome)
    else:
        _print(outcome)


def _words(option: str, text: str) -> list[str]:
    from recurra.errors import ConfigError

    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ConfigError(
            f"{option} {text!r} has an empty name; expected names with commas between."
        )
    return words


def _threads(text: str | None, *, quick: bool) -> list[int]:
    """Numbers of threads, smallest first, none of them more than this process may use."""
    from recurra.errors import ConfigError
    from recurra.report.results import allowed_cpus

    allowed = allowed_cpus()
    if text is None:
        return [1] if quick or allowed == 1 else [1, 2]
    try:
        counts = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise ConfigError(f"--threads {text!r}; expected numbers, as in --threads 1,2.") from None
    for count in counts:
        if not 1 <= count <= allowed:
            raise ConfigError(
                f"--threads has {count}, but this process may use {allowed} "
                f"CPU{'s' if allowed > 1 else ''}; expected 1 to {allowed}."
            )
    return counts


def _command(
    given: Mapping[str, object], shapes: Sequence[str], *, quick: bool, out: Path | None
) -> str:
    """The command that repeats this run."""
    words = ["recurra bench"]
    words += [f"--{name} {value}" for name, value in given.items() if value is not None]
    words += [f"--shapes {shape}" for shape in shapes]
    return " ".join([*words, *(["--quick"] if quick else []), *([f"--out {out}"] if out else [])])


def _print(outcome: dict[str, Any]) -> None:
    from recurra.bench.tables import make_notes, make_tables
    from recurra.cli.output import print_table

    for table in make_tables(outcome):
        typer.echo(f"\n{table.title}\n")
        print_table(table.headers, table.rows)
    typer.echo("")
    for note in make_notes(outcome):
        typer.echo(f"- {note}")
    typer.echo(f"- {outcome['seconds']:.0f} s on {outcome['machine']}")
