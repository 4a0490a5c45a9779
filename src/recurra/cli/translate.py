"""`recurra translate`: train, evaluate, predict and stream translators."""

from __future__ import annotations

import sys
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recurra.cli.parameters import (
    Config,
    Device,
    Force,
    Json,
    Minutes,
    Resume,
    Seed,
    Settings,
    Steps,
    interruptible,
)

if TYPE_CHECKING:
    from recurra.tasks.translation.pairs import Pairs
    from recurra.tasks.translation.translate import Translation

HELP = """Translation: train on sentences and their translations, evaluate, predict, stream.

\b
Example:
  recurra translate train --source a.en --target a.de --minutes 30 --out runs/en-de
  echo "A dog runs." | recurra translate predict runs/en-de
"""

app = typer.Typer(help=HELP)

Run = Annotated[Path, typer.Argument(help="Run folder made by `recurra translate train`.")]
Source = Annotated[
    str, typer.Option(help="File of sentences, plain, .gz or .xz; with --table, its column.")
]
Target = Annotated[
    str, typer.Option(help="File with the translation of line n in line n; or a column.")
]
Table = Annotated[
    Path | None, typer.Option(help="Table with both as columns: .csv, .tsv, .jsonl, .parquet.")
]
Beam = Annotated[int, typer.Option(min=1, help="Beams of the search; 1 is greedy, and faster.")]
Penalty = Annotated[
    float, typer.Option("--length-penalty", help="Above 0 favours longer translations.")
]
Coverage = Annotated[
    float, typer.Option(help="Above 0 favours translations that looked at all of the source.")
]
With = Annotated[
    list[Path] | None,
    typer.Option("--with", help="Another run with the same tokens, to average with; repeatable."),
]


@app.command()
def train(
    source: Source,
    target: Target,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    table: Table = None,
    valid_source: Annotated[
        Path | None,
        typer.Option(help="Sentences to find the best weights by [default: 2 % of the others]."),
    ] = None,
    valid_target: Annotated[Path | None, typer.Option(help="And their translations.")] = None,
    tokens: Annotated[
        str | None, typer.Option(help="subword, word or char [default: subword].")
    ] = None,
    cell: Annotated[
        str | None, typer.Option(help="Any cell, such as lstm or min-gru [default: gru].")
    ] = None,
    minutes: Minutes = None,
    steps: Steps = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Settings = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a translator on sentences and their translations, and write it to a run folder.

    \b
    Example:
      recurra translate train --source a.en --target a.de --minutes 30 --out runs/en-de

    What is out of order in the files is noted with its line numbers: different numbers of lines are
    refused, pairs with an empty side, too long or too uneven ones left out.
    """
    from recurra.cli.options import merge_settings
    from recurra.cli.output import print_json
    from recurra.errors import ConfigError
    from recurra.tasks.translation.model import Translator

    if (valid_source is None) != (valid_target is None):
        raise ConfigError("--valid-source and --valid-target go together; give both, or neither.")
    explicit = {
        "tokens": tokens,
        "cell": cell,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "device": device,
    }
    model = Translator.from_settings(merge_settings(config, explicit, set_ or []))
    valid = None if valid_source is None else (valid_source, valid_target)
    with interruptible(out):
        model.fit(
            _read_pairs(source, target, table), valid=valid, out=out, force=force, resume=resume
        )
    fitted = model.fitted
    result = fitted.training["result"]
    if as_json:
        notes = {"notes": fitted.notes}
        print_json({"task": "translation", "run": str(out), **notes, **result})
        return
    for note in fitted.notes:
        typer.echo(note)
    typer.echo(
        f"trained {result['steps']} steps in {result['seconds']:.0f} s, best at step "
        f"{result['best_step']}: {result['best_loss']:.4f} nats a token on the validation pairs"
    )
    typer.echo(f"saved to {out}")


@app.command()
def evaluate(
    run: Run,
    source: Source,
    target: Target,
    table: Table = None,
    beam: Beam = 5,
    length_penalty: Penalty = 1.0,
    coverage: Coverage = 0.0,
    tokenize: Annotated[
        str | None, typer.Option(help="sacrebleu's tokenizer, such as none or zh [default: 13a].")
    ] = None,
    others: With = None,
    as_json: Json = False,
) -> None:
    """BLEU and chrF by sacrebleu, with its signatures, and the worst and best sentences.

    \b
    Example:
      recurra translate evaluate runs/en-de --source test.en --target test.de

    The scores, these sentences and pictures of the attention are kept in the run folder, for
    `recurra report`.
    """
    from recurra.cli.output import print_scores
    from recurra.report.results import make_outcome
    from recurra.runs import RunFolder, write_json
    from recurra.tasks.translation.evaluation import SHOWN
    from recurra.tasks.translation.model import Translator

    started = clock.monotonic()
    model = Translator.load(run)
    evaluation = model.evaluate(
        _read_pairs(source, target, table),
        beam_size=beam,
        length_penalty=length_penalty,
        coverage=coverage,
        tokenize=tokenize,
        ensemble=[Translator.load(other) for other in others or []],
    )
    name = Path(source).name if table is None else table.name
    outcome = make_outcome(
        "translation",
        f"{name}, {len(evaluation.rows)} sentences",
        evaluation.results(),
        clock.monotonic() - started,
    )
    outcome["notes"] = list(evaluation.notes)
    try:  # a run that may only be read is scored all the same, and a closed pipe loses no scores
        print_scores(outcome, as_json=as_json)
        if not as_json:
            ranked = evaluation.ranked()
            for title, rows in (("worst", ranked[:SHOWN]), ("best", ranked[::-1][:SHOWN])):
                typer.echo(f"\n{title}, by chrF of the sentence:")
                for row in rows:
                    typer.echo(f"{row.chrf:5.1f}  {row.source}")
                    typer.echo(f"       said       {row.translation}")
                    typer.echo(f"       reference  {row.reference}")
    finally:
        write_json(RunFolder(run).metrics_path, {**outcome, "details": evaluation.details()})


@app.command()
def predict(
    run: Run,
    file: Annotated[
        str | None, typer.Argument(help="Lines of text; - for stdin [default: -].")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Translate this text instead of a file.")
    ] = None,
    beam: Beam = 5,
    count: Annotated[
        int | None, typer.Option(min=1, help="Print so many translations of each line.")
    ] = None,
    length_penalty: Penalty = 1.0,
    coverage: Coverage = 0.0,
    prefix: Annotated[str | None, typer.Option(help="What each translation begins with.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Draw translations at this temperature; no search.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    others: With = None,
    out: Annotated[
        Path | None, typer.Option(help="Table to write: source, translation, log_prob, score.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Translate lines of text: one line out for each line in.

    \b
    Example:
      recurra translate predict runs/en-de test.en > test.de

    Words that the model does not know are copied from the source; lines longer than those of the
    training are translated in pieces, with a warning. --json adds scores, and alignments from the
    attention: for each piece the piece of the source that it looked at most.
    """
    from recurra.cli.files import TABLES, check_writable, write_frame
    from recurra.cli.output import print_json
    from recurra.errors import ConfigError
    from recurra.tasks.translation.model import Translator

    check_writable("--out", out, TABLES, force)
    if text is not None and file is not None:
        raise ConfigError(f"--text and the file {file} are both given; expected one of them.")
    if temperature is not None and count is not None:
        raise ConfigError(
            f"--count {count} has no meaning with --temperature, which draws one translation of "
            "each line; leave one of them out, or draw again with another --seed."
        )
    model = Translator.load(run)
    lines = [text] if text is not None else _read_lines(file or "-")
    found, notes = model.translate_all(
        lines,
        beam_size=max(beam, count or 1),
        count=count or 1,
        length_penalty=length_penalty,
        coverage=coverage,
        prefixes=None if prefix is None else [prefix] * len(lines),
        sampling=None if temperature is None else {"temperature": temperature},
        seed=seed,
        ensemble=[Translator.load(other) for other in others or []],
    )
    for note in notes:
        typer.echo(f"warning: {note}", err=True)
    if out is not None:
        write_frame(_frame(lines, found), str(out))
        typer.echo(f"wrote {out}", err=True)
    if as_json:
        rows = [
            {"source": line, "translations": [_described(one) for one in own]}
            for line, own in zip(lines, found, strict=True)
        ]
        print_json({"task": "translation", "run": str(run), "predictions": rows})
    elif out is None:
        for own in found:
            for one in own:
                typer.echo(one.text if count is None else f"{one.score:.4f}\t{one.text}")


@app.command()
def stream(
    run: Run,
    text: Annotated[
        str | None,
        typer.Option(help="Lines are JSON objects that hold the text in this column."),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Also tell the translation as it grows, token by token."),
    ] = False,
    beam: Beam = 5,
    length_penalty: Penalty = 1.0,
    coverage: Coverage = 0.0,
) -> None:
    """Answer each line on stdin that is not empty with its translation: text in, JSON lines out.

    \b
    Example:
      tail -f chat.txt | recurra translate stream runs/en-de --partial

    Partial translations are greedy; the last answer to a line is that of the beams.
    """
    import json

    from recurra.cli.streams import run_lines
    from recurra.streaming.jsonlines import flushed
    from recurra.tasks.translation.model import Translator
    from recurra.tasks.translation.stream import LineStream

    write = flushed(sys.stdout)
    session = LineStream(
        Translator.load(run).stream(
            beam_size=beam, length_penalty=length_penalty, coverage=coverage
        ),
        text=text or "text",
        partial=(
            (lambda event: write(json.dumps(event, ensure_ascii=False) + "\n")) if partial else None
        ),
    )
    run_lines(session.push, is_json=text is not None, write=write)


def _read_pairs(source: str, target: str, table: Path | None) -> Pairs:
    from recurra.tasks.translation.pairs import read_pair_table, read_pairs

    if table is not None:
        return read_pair_table(table, source, target)
    return read_pairs(Path(source), Path(target))


def _read_lines(file: str) -> list[str]:
    from recurra.cli.files import read_stdin
    from recurra.tasks.translation.pairs import read_sentences, split_lines

    if file != "-":
        return read_sentences(Path(file))
    return split_lines(read_stdin())


def _described(one: Translation) -> dict[str, Any]:
    """A translation as JSON, with what each of its pieces looked at most."""
    return {
        "text": one.text,
        "log_prob": round(one.log_prob, 6),
        "score": round(one.score, 6),
        "alignment": [
            [piece, one.source_pieces[int(row.argmax())], round(float(row.max()), 4)]
            for piece, row in zip(one.pieces, one.attention, strict=False)
        ],
    }


def _frame(lines: list[str], found: list[list[Translation]]) -> Any:
    import polars as pl

    rows = [(line, one) for line, own in zip(lines, found, strict=True) for one in own]
    return pl.DataFrame(
        {
            "source": [line for line, _ in rows],
            "translation": [one.text for _, one in rows],
            "log_prob": [one.log_prob for _, one in rows],
            "score": [one.score for _, one in rows],
        }
    )
