"""`recurra sentiment`: train, evaluate, predict and stream classifiers of texts."""

from __future__ import annotations

import sys
import time as clock
from enum import StrEnum
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
    from recurra.tasks.sentiment.attribution import Explanation
    from recurra.tasks.sentiment.model import SentimentClassifier

HELP = """Sentiment, or any labels of texts: train on a table, evaluate, predict, stream.

\b
Example:
  recurra sentiment train reviews.csv --text text --label label --minutes 3 --out runs/reviews
  echo "not bad at all" | recurra sentiment predict runs/reviews --explain
"""

app = typer.Typer(help=HELP)

EXPLAINED = 6
"""Texts that `evaluate` explains for the report: the surest right ones and wrong ones."""
UNSURE = "?"
"""What `predict` prints for a text that it does not answer."""
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".csv.xz", ".tsv.gz", ".tsv.xz")


class Every(StrEnum):
    """After what the running opinion is told."""

    word = "word"
    sentence = "sentence"


Run = Annotated[Path, typer.Argument(help="Run folder made by `recurra sentiment train`.")]


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help="Table: .csv, .tsv, .jsonl or .parquet.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    text: Annotated[str | None, typer.Option(help="Column of texts [default: text].")] = None,
    label: Annotated[str | None, typer.Option(help="Column of labels [default: label].")] = None,
    valid: Annotated[
        Path | None,
        typer.Option(help="Table to stop by and to calibrate on [default: a tenth of the first]."),
    ] = None,
    pretrain: Annotated[
        Path | None,
        typer.Option(help="Run of `recurra lm train` on words to begin with; its sizes are taken."),
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
    """Train a classifier on a table of texts and labels, and write it to a run folder.

    \b
    Example:
      recurra sentiment train reviews.csv --text text --label stars --minutes 3 --out runs/reviews

    Labels may be any texts or numbers, two or more. Training ends after --minutes, or earlier when
    it stops getting better. `recurra sentiment words --help` says how to make a language model for
    --pretrain.
    """
    from recurra.cli.options import merge_settings
    from recurra.cli.output import print_json
    from recurra.tasks.sentiment.model import SentimentClassifier

    explicit = {
        "text": text,
        "label": label,
        "cell": cell,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "device": device,
    }
    model = SentimentClassifier.from_settings(merge_settings(config, explicit, set_ or []))
    with interruptible(out):
        model.fit(table, valid=valid, pretrain=pretrain, out=out, force=force, resume=resume)
    fitted = model.fitted
    result = fitted.training["result"]
    if as_json:
        print_json(
            {
                "task": "sentiment",
                "run": str(out),
                "labels": list(fitted.labels),
                "temperature": fitted.temperature,
                "notes": fitted.notes,
                **result,
            }
        )
        return
    for note in fitted.notes:
        typer.echo(note)
    typer.echo(
        f"trained {result['steps']} steps in {result['seconds']:.0f} s, best at step "
        f"{result['best_step']}: accuracy {result['valid_accuracy']:.4f} on the validation texts"
    )
    typer.echo(f"saved to {out}")


@app.command()
def words(
    tables: Annotated[list[Path], typer.Argument(help="Tables of texts; labels are not needed.")],
    text: Annotated[str, typer.Option(help="Column of texts.")] = "text",
) -> None:
    """Print the words of texts as a classifier reads them, a text a line, for a language model.

    \b
    Example:
      recurra sentiment words reviews.csv more.csv > words.txt
      recurra lm train words.txt --tokens word --minutes 30 --out runs/words
      recurra sentiment train reviews.csv --pretrain runs/words --out runs/reviews

    Keep test texts out of it.
    """
    from recurra.tasks.sentiment.examples import read_texts
    from recurra.tasks.sentiment.words import written_words

    for table in tables:
        for one in read_texts(table, text):
            typer.echo(" ".join(word.lower() for word in written_words(one)))


@app.command()
def evaluate(
    run: Run,
    table: Annotated[Path, typer.Argument(help="Table with labels that was not trained on.")],
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Also score only the texts that are answered with this probability."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score a table with labels: accuracy, macro F1, calibration error, nll.

    \b
    Example:
      recurra sentiment evaluate runs/reviews test.csv --min-confidence 0.9

    Beside the network stand the most frequent label and naive Bayes. Texts that are in the training
    table too are counted. The scores and a few explained texts are kept in the run folder, for
    `recurra report`.
    """
    from recurra.cli.output import print_scores
    from recurra.report.results import make_outcome
    from recurra.runs import RunFolder, write_json
    from recurra.tasks.sentiment.examples import read_examples
    from recurra.tasks.sentiment.model import SentimentClassifier
    from recurra.tasks.sentiment.report import choose_texts

    started = clock.monotonic()
    model = SentimentClassifier.load(run)
    examples = read_examples(table, model.settings.text, model.settings.label)
    evaluation = model.evaluate(examples, min_confidence=min_confidence)
    outcome = make_outcome(
        "sentiment",
        f"{table.name}, {len(examples.texts)} texts",
        evaluation.results(),
        clock.monotonic() - started,
    )
    outcome["notes"] = list(evaluation.notes)
    try:  # a run that may only be read is scored all the same, and a closed pipe loses no scores
        print_scores(outcome, as_json=as_json)
    finally:
        explained = [
            {"true": examples.labels[k], **model.explain(examples.texts[k]).to_report()}
            for k in choose_texts(evaluation, examples.texts, EXPLAINED)
        ]
        details = {**evaluation.details(), "explained": explained}
        write_json(RunFolder(run).metrics_path, {**outcome, "details": details})


@app.command()
def predict(
    run: Run,
    file: Annotated[
        str, typer.Argument(help="Lines of text, or a table with the text column; - for stdin.")
    ] = "-",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also show what each word adds to the label.")
    ] = False,
    min_confidence: Annotated[
        float, typer.Option(help="Answer ? below this probability of the likeliest label.")
    ] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(help="Table to write: label, confidence and the probability of each label."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Label texts: one line out for each text in.

    \b
    Example:
      echo "not bad at all" | recurra sentiment predict runs/reviews --explain

    With --explain the words are coloured on a terminal, and followed by their value elsewhere:
    what a word adds to the label's margin over the others, in nats, by integrated gradients.
    """
    from recurra.cli.files import TABLES, check_writable, write_frame
    from recurra.cli.output import print_json
    from recurra.tasks.sentiment.model import SentimentClassifier, check_confidence
    from recurra.tasks.sentiment.stream import judge

    check_writable("--out", out, TABLES, force)
    check_confidence(min_confidence)
    model = SentimentClassifier.load(run)
    texts = _read_texts(file, model)
    answers = [
        judge(dict(zip(model.labels, row, strict=True)), min_confidence)
        for row in model.predict_proba(texts).tolist()
    ]
    if out is not None:
        write_frame(_frame(texts, answers, model), str(out))
        typer.echo(f"wrote {out}", err=True)
    if as_json:
        if explain:
            for text, answer in zip(texts, answers, strict=True):
                found = model.explain(text).to_json()
                answer["words"], answer["gap"] = found["words"], found["gap"]
        print_json({"task": "sentiment", "run": str(run), "predictions": answers})
        return
    if out is not None and not explain:
        return
    for text, answer in zip(texts, answers, strict=True):
        line = answer["label"] if answer["label"] is not None else UNSURE
        if explain:
            line = f"{line}\t{answer['confidence']:.3f}\t{_coloured(model.explain(text))}"
        typer.echo(line)


@app.command()
def stream(
    run: Run,
    text: Annotated[
        str | None,
        typer.Option(help="Lines are JSON objects that hold the text in this column."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Column that names the text which a line goes on; with --text."),
    ] = None,
    every: Annotated[
        Every | None, typer.Option(help="Also tell the opinion after every word or sentence.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="The label is null below this probability.")
    ] = 0.0,
) -> None:
    """Answer each line on stdin with the opinion about it: text in, JSON lines out.

    \b
    Example:
      tail -f reviews.txt | recurra sentiment stream runs/reviews --every sentence

    With --text, lines are JSON objects, which come back with the answer added; with --key, lines of
    one key are one text that goes on, and the answer is the opinion about all of it so far. Each
    key costs a constant memory.
    """
    from recurra.cli.streams import run_lines
    from recurra.errors import ConfigError
    from recurra.tasks.sentiment.model import SentimentClassifier, check_confidence
    from recurra.tasks.sentiment.stream import LineStream

    check_confidence(min_confidence)
    if key is not None and text is None:
        raise ConfigError("--key names a column of JSON lines; say with --text which one has text.")
    session = LineStream(
        SentimentClassifier.load(run).fitted,
        text=text or "text",
        key=key,
        every=None if every is None else every.value,
        min_confidence=min_confidence,
    )
    run_lines(session.push, is_json=text is not None)


def _read_texts(file: str, model: SentimentClassifier) -> list[str]:
    """The texts of a table, or the lines of a file or of stdin."""
    from recurra.cli.files import read_stdin
    from recurra.data.textfiles import read_text
    from recurra.tasks.sentiment.examples import read_texts

    if file.lower().endswith(_TABLES):
        return read_texts(file, model.settings.text)
    if file != "-":
        return "".join(read_text(Path(file))).splitlines()
    return read_stdin().splitlines()


def _frame(texts: list[str], answers: list[dict[str, Any]], model: SentimentClassifier) -> Any:
    import polars as pl

    columns = {
        model.settings.text: texts,
        "label": [one["label"] for one in answers],
        "confidence": [one["confidence"] for one in answers],
    }
    for name in model.labels:
        columns[f"p_{name}"] = [one["probabilities"][name] for one in answers]
    return pl.DataFrame(columns, schema_overrides={"label": pl.String})


def _coloured(explanation: Explanation) -> str:
    """The text with each word's value: as colours on a terminal, else as numbers."""
    import os

    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))
    most = max((abs(value) for value in explanation.values), default=0.0) or 1.0
    parts = []
    for piece, value in zip(explanation.pieces, explanation.values, strict=True):
        shown = piece if piece.strip() else " " * len(piece)
        share = abs(value) / most
        if not piece.strip() or share < 0.05:
            parts.append(shown)
        elif plain:
            parts.append(f"{shown}[{value:+.2f}]")
        else:
            # Orange for what speaks for the label, blue for what speaks against it.
            palette = (223, 215, 208) if value > 0 else (153, 111, 69)
            parts.append(f"\x1b[30;48;5;{palette[min(2, int(3 * share))]}m{shown}\x1b[0m")
    return "".join(parts)
