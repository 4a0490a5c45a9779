"""`recurra lm`: train, evaluate, predict and stream language models."""

from __future__ import annotations

import sys
import time as clock
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

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

HELP = """Language models: train on text, evaluate, write, score a stream of lines.

\b
Example:
  recurra lm train book.txt --minutes 3 --out runs/book
  recurra lm predict runs/book --prompt "Once" --length 200
"""

app = typer.Typer(help=HELP)

Run = Annotated[Path, typer.Argument(help="Run folder made by `recurra lm train`.")]


@app.command()
def train(
    texts: Annotated[list[Path], typer.Argument(help="Text files: UTF-8, also .gz or .xz.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    valid: Annotated[
        list[Path] | None,
        typer.Option(help="Text to stop by; may be repeated [default: the end of the texts]."),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="char, byte, word or subword [default: char].")
    ] = None,
    vocab_size: Annotated[int | None, typer.Option(help="Most tokens of the vocabulary.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="zaremba-small, zaremba-medium, zaremba-large or awd-lstm."),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(help="Any cell, such as lstm, gru or min-gru [default: by the tokens]."),
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
    """Train a language model on text files and write it to a run folder.

    \b
    Example:
      recurra lm train book.txt --tokens char --minutes 3 --out runs/book

    Each file is a text of its own. Training ends after about --minutes; reading the text before and
    measuring the size of gradients after come on top. `word` takes words as they stand between
    blanks; `subword` needs the extra `language`.
    """
    from recurra.cli.options import merge_settings
    from recurra.cli.output import print_json
    from recurra.tasks.language.model import LanguageModel

    explicit = {
        "tokens": tokens,
        "vocab_size": vocab_size,
        "preset": preset,
        "cell": cell,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "device": device,
    }
    model = LanguageModel.from_settings(merge_settings(config, explicit, set_ or []))
    with interruptible(out):
        model.fit(list(texts), valid=list(valid or ()), out=out, force=force, resume=resume)
    result = model.fitted.training["result"]
    if as_json:
        print_json({"task": "language", "run": str(out), "notes": model.fitted.notes, **result})
        return
    for note in model.fitted.notes:
        typer.echo(note)
    words = f"trained {result['steps']} steps in {result['seconds']:.0f} s"
    if result["best_loss"] is not None:
        words += f", best at step {result['best_step']}: {result['best_loss']:.4f} nats a token"
    typer.echo(words)
    typer.echo(f"saved to {out}")


@app.command()
def evaluate(
    run: Run,
    texts: Annotated[list[Path], typer.Argument(help="Text files that were not trained on.")],
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Also adapt the weights to the text as it goes.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache", help="Also mix in what followed similar states.")
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Also read windows of so many tokens, each from a fresh state."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score text files: perplexity, bits per character and byte.

    \b
    Example:
      recurra lm evaluate runs/book other-book.txt

    The state is carried over the whole of each file, and every token counts. --dynamic and --cache
    adapt to the text, each token being scored before it is used; their numbers stand in rows of
    their own. The scores are also kept in the run folder, for `recurra report`.
    """
    from recurra.cli.output import print_scores
    from recurra.runs import RunFolder, write_json
    from recurra.tasks.language.model import LanguageModel
    from recurra.tasks.language.outcome import evaluation_outcome

    started = clock.monotonic()
    model = LanguageModel.load(run)
    evaluation = model.evaluate(list(texts), dynamic=dynamic, cache=cache, window=window)
    names = ", ".join(path.name for path in texts[:3])
    if len(texts) > 3:
        names += f" and {len(texts) - 3} more"
    outcome = evaluation_outcome(evaluation, names, clock.monotonic() - started)
    try:  # a run that may only be read is scored all the same, and a closed pipe loses no scores
        print_scores(outcome, as_json=as_json)
    finally:
        write_json(RunFolder(run).metrics_path, {**outcome, "details": evaluation.details()})


@app.command()
def predict(
    run: Run,
    prompt: Annotated[str, typer.Option(help="Text to go on from; - reads it from stdin.")] = "",
    length: Annotated[int, typer.Option(help="Tokens to write.")] = 200,
    temperature: Annotated[
        float | None,
        typer.Option(help="Below 1 keeps to what is likely; 0 takes the likeliest [default: 1]."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the K likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the fewest that have this probability together.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Draw from those with this share of the largest probability."),
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Divide the probability of recent tokens by this.")
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(min=1, help="Draw nothing: the likeliest text that a beam of N finds."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Go on from a text that --save-state kept.")
    ] = None,
    save_state: Annotated[
        Path | None, typer.Option(help="File to keep where the text stands at its end.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write text, token by token, at a constant cost.

    \b
    Example:
      recurra lm predict runs/book --prompt "Once" --length 200 --temperature 0.7

    The same seed writes the same text. --save-state keeps where the text stands at its end, so that
    a long one need not be read again.
    """
    from recurra.cli.files import read_stdin
    from recurra.cli.output import print_json
    from recurra.errors import ConfigError, RunError
    from recurra.tasks.language.model import LanguageModel
    from recurra.tasks.language.text_stream import check_length

    if save_state is not None and save_state.exists() and not force:
        raise RunError(f"{save_state} is already there. Pass --force to replace it.")
    check_length(length)
    asked = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
    }
    rules = {name: value for name, value in asked.items() if value is not None}
    if beam is not None and rules:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in rules)
        raise ConfigError(f"--beam draws nothing, so {names} would do nothing. Give one of them.")
    given = read_stdin() if prompt == "-" else prompt
    model = LanguageModel.load(run)
    sampler = model.fitted.sampler(**rules, seed=seed)
    stream = model.stream()
    if state is not None:
        stream.load(state)
    for token in stream.read(given).ids.tolist():
        sampler.note(token)
    pieces: Iterable[str] = stream.write(length, sampler)
    if beam is not None:
        pieces = [stream.write_likeliest(length, beam)]
    if as_json:
        text = given + "".join(pieces)
        print_json({"task": "language", "run": str(run), "prompt": given, "text": text})
    else:
        sys.stdout.write(given)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
    if save_state is not None:
        stream.save(save_state)
        typer.echo(f"wrote {save_state}", err=True)


@app.command()
def stream(
    run: Run,
    text: Annotated[
        str | None,
        typer.Option(help="Lines are JSON objects that hold the text in this column."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Column that names the text a line belongs to; with --text.")
    ] = None,
) -> None:
    """Score each line on stdin by how surprising it is: text in, JSON lines out.

    \b
    Example:
      tail -f app.log | recurra lm stream runs/log

    Each line is read after all the lines before it. The answer has the bits of the line, bits per
    character, and the surprise of each token in bits. With --text, lines are JSON objects, which
    come back with the scores added; with --key, each key has a text of its own.
    """
    from recurra.cli.streams import run_lines
    from recurra.errors import ConfigError
    from recurra.tasks.language.line_stream import LineStream
    from recurra.tasks.language.model import LanguageModel

    if key is not None and text is None:
        raise ConfigError("--key names a column of JSON lines; say with --text which one has text.")
    session = LineStream(LanguageModel.load(run).fitted, text=text or "text", key=key)
    run_lines(session.push, is_json=text is not None)
