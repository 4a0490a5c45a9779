"""`recurra speech`: train, evaluate, predict and stream transcribers."""

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
    from recurra.tasks.speech.model import Transcriber
    from recurra.tasks.speech.stream import Heard

HELP = """Speech recognition: train on recordings and transcripts, evaluate, transcribe, stream.

\b
Example:
  recurra speech train train.tsv --audio file --text text --minutes 30 --out runs/speech
  recurra speech predict runs/speech a.wav b.flac
"""

app = typer.Typer(help=HELP)

Run = Annotated[Path, typer.Argument(help="Run folder made by `recurra speech train`.")]
Audio = Annotated[str, typer.Option(help="Column of the recordings' file names.")]
Text = Annotated[str, typer.Option(help="Column of the transcripts.")]
Root = Annotated[
    Path | None,
    typer.Option(help="Folder, or .tar file, of the recordings [default: that of the table]."),
]
Skip = Annotated[bool, typer.Option("--skip-bad", help="Leave out recordings that cannot be used.")]
Beam = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="The likeliest text that a beam of N finds [default: greedy; 16 where one of the "
        "options below needs a beam].",
    ),
]
Language = Annotated[
    Path | None,
    typer.Option(help="ARPA file of words, or run folder of `recurra lm train`."),
]
Weight = Annotated[
    float | None, typer.Option(help="What the language model's log p counts [default: 0.5].")
]
Bonus = Annotated[
    float | None, typer.Option(help="Nats for each word, beside a language model [default: 1].")
]
HotWord = Annotated[
    list[str] | None,
    typer.Option(
        help="Word or phrase that is likely to be said, written as the model writes it; may be "
        "repeated."
    ),
]
HotBoost = Annotated[
    float | None, typer.Option(help="Nats for each character of a hot word [default: 1].")
]


@app.command()
def train(
    table: Annotated[
        Path, typer.Argument(help="Recordings and transcripts: .csv, .tsv or .jsonl.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    audio: Audio = "audio",
    text: Text = "text",
    audio_root: Root = None,
    valid: Annotated[
        Path | None, typer.Option(help="Table to stop by [default: the last rows of the table].")
    ] = None,
    valid_audio_root: Root = None,
    streaming: Annotated[
        bool | None,
        typer.Option("--streaming", help="Transcribe while a sound goes on; more errors."),
    ] = None,
    noise: Annotated[
        list[Path] | None,
        typer.Option(help="Recording of noise to mix in, see noise_db; may be repeated."),
    ] = None,
    skip_bad: Skip = False,
    cell: Annotated[
        str | None, typer.Option(help="Any cell, such as lstm, gru or min-gru [default: lstm].")
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(help="ctc, or transducer, which also reads what it wrote [default: ctc]."),
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
    """Train a transcriber on a table of recordings and write it to a run folder.

    \b
    Example:
      recurra speech train train.tsv --audio file --text text --audio-root a.tar --out runs/speech

    Every recording is looked through first: what is missing, damaged, empty, silent or too short
    for its text is listed by row, and refused unless --skip-bad leaves it out. The model writes the
    characters that the transcripts have, as they have them. Training ends after about --minutes;
    reading the recordings comes on top.
    """
    from recurra.cli.options import merge_settings
    from recurra.cli.output import print_json
    from recurra.tasks.speech.model import Transcriber

    explicit = {
        "streaming": streaming,
        "cell": cell,
        "criterion": criterion,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "device": device,
    }
    model = Transcriber.from_settings(merge_settings(config, explicit, set_ or []))
    with interruptible(out):
        model.fit(
            table,
            audio=audio,
            text=text,
            audio_root=audio_root,
            valid=valid,
            valid_audio_root=valid_audio_root,
            noise=noise or (),
            skip_bad=skip_bad,
            out=out,
            force=force,
            resume=resume,
        )
    for finding in model.findings:
        typer.echo(f"{'left out' if finding.fatal else 'note'}: {finding}", err=True)
    result = model.fitted.training["result"]
    if as_json:
        findings = [str(finding) for finding in model.findings]
        notes = {"notes": model.fitted.notes, "findings": findings}
        print_json({"task": "speech", "run": str(out), **notes, **result})
        return
    for note in model.fitted.notes:
        typer.echo(note)
    words = f"trained {result['steps']} steps in {result['seconds']:.0f} s"
    if result["best_loss"] is not None:
        words += (
            f", best at step {result['best_step']}: {result['best_loss']:.4f} of characters wrong"
        )
    typer.echo(words)
    typer.echo(f"saved to {out}")


@app.command()
def evaluate(
    run: Run,
    table: Annotated[Path, typer.Argument(help="Recordings that were not trained on.")],
    audio: Audio = "audio",
    text: Text = "text",
    audio_root: Root = None,
    beam: Beam = None,
    language_model: Language = None,
    language_weight: Weight = None,
    word_bonus: Bonus = None,
    hot_word: HotWord = None,
    hot_boost: HotBoost = None,
    skip_bad: Skip = False,
    as_json: Json = False,
) -> None:
    """Word and character error rates over a table of recordings.

    \b
    Example:
      recurra speech evaluate runs/speech test.tsv --audio file --text text

    wer and cer are fractions, over all recordings together; rtf is the time of the processor for a
    second of sound. The scores are also kept in the run folder, for `recurra report`.
    """
    from recurra.cli.output import print_scores
    from recurra.report.results import make_outcome
    from recurra.runs import RunFolder, write_json
    from recurra.tasks.speech.model import Transcriber

    started = clock.monotonic()
    model = Transcriber.load(run)
    evaluation = model.evaluate(
        table,
        audio=audio,
        text=text,
        audio_root=audio_root,
        skip_bad=skip_bad,
        **_search(beam, language_model, language_weight, word_bonus, hot_word, hot_boost),
    )
    outcome = make_outcome(
        "speech",
        f"{table.name}, {len(evaluation.rows)} recordings, {evaluation.seconds:.0f} s",
        evaluation.results(),
        clock.monotonic() - started,
    )
    outcome["notes"] = list(evaluation.notes)
    try:  # a run that may only be read is scored all the same, and a closed pipe loses no scores
        print_scores(outcome, as_json=as_json)
    finally:
        write_json(RunFolder(run).metrics_path, {**outcome, "details": evaluation.details()})


@app.command()
def predict(
    run: Run,
    recordings: Annotated[list[Path], typer.Argument(help="Audio files: WAV, FLAC, OGG.")],
    beam: Beam = None,
    language_model: Language = None,
    language_weight: Weight = None,
    word_bonus: Bonus = None,
    hot_word: HotWord = None,
    hot_boost: HotBoost = None,
    as_json: Json = False,
) -> None:
    """Transcribe recordings: a line for each.

    \b
    Example:
      recurra speech predict runs/speech a.wav b.flac
      recurra speech predict runs/speech a.wav --language-model words.arpa --hot-word PITTSBURGH

    --json prints one object with the words, when each was said, and how sure the model is (0 to 1).
    """
    from recurra.cli.output import print_json
    from recurra.errors import DataError
    from recurra.tasks.speech.model import Transcriber

    for path in recordings:
        if not path.is_file():
            state = "is a folder" if path.is_dir() else "is not there"
            raise DataError(f"{path} {state}; expected an audio file.")
    model = Transcriber.load(run)
    search = _search(beam, language_model, language_weight, word_bonus, hot_word, hot_boost)
    found = []
    for path, transcript in zip(recordings, model.transcripts(recordings, **search), strict=True):
        if not as_json:
            typer.echo(transcript.text)
        found.append({"file": str(path), **transcript.as_json()})
    if as_json:
        print_json({"task": "speech", "run": str(run), "transcripts": found})


@app.command()
def stream(
    run: Run,
    microphone: Annotated[
        bool, typer.Option("--microphone", help="Hear the default microphone instead of stdin.")
    ] = False,
    rate: Annotated[
        int | None,
        typer.Option(help="Sample rate of raw sound [default: the model's]; WAV says its own."),
    ] = None,
    pause: Annotated[
        float, typer.Option(help="Seconds of silence after which a text is final.")
    ] = 1.0,
    final_only: Annotated[
        bool, typer.Option("--final-only", help="Leave out what may still change.")
    ] = False,
) -> None:
    """Transcribe sound while it goes on, on stdin or from a microphone: JSON lines out.

    \b
    Example:
      ffmpeg -i talk.mp3 -f s16le -ac 1 -ar 16000 - | recurra speech stream runs/speech
      recurra speech stream runs/speech < talk.wav
      recurra speech stream runs/speech --microphone

    Sound on stdin is raw (signed 16 bits, little-endian, one channel) or WAV. A microphone, which
    needs the extra `microphone`, is heard until Ctrl-C. Lines with "final": false tell what was
    heard so far since the last pause; "final": true will not change any more. The final texts are
    those of `predict`, in whatever pieces the sound comes.
    """
    from recurra.data.pcm import read_sound
    from recurra.errors import ConfigError
    from recurra.tasks.speech.model import Transcriber

    if microphone and rate is not None:
        raise ConfigError(
            f"--rate {rate} tells the rate of raw sound on stdin, and a microphone has its own. "
            "Leave it out."
        )
    model = Transcriber.load(run)
    if microphone:
        _hear_microphone(model, pause, final_only)
        return
    sample_rate, pieces = read_sound(sys.stdin.buffer, rate or model.fitted.design.sample_rate)
    session = model.stream(sample_rate=sample_rate, pause_s=pause)
    try:
        for samples in pieces:
            _tell(session.push(samples), final_only)
    except KeyboardInterrupt:
        _tell(session.finish(), final_only)
        typer.echo("stopped; what was heard is transcribed", err=True)
        raise typer.Exit(130) from None
    _tell(session.finish(), final_only)


def _hear_microphone(model: Transcriber, pause_s: float, final_only: bool) -> None:
    """Transcribe what the microphone hears until Ctrl-C, which makes the last text final."""
    from recurra.data.microphone import Microphone
    from recurra.training.interrupt import InterruptWatch

    microphone = Microphone(model.fitted.design.sample_rate)
    session = model.stream(sample_rate=microphone.sample_rate, pause_s=pause_s)
    with InterruptWatch("the microphone is off") as watch, microphone:
        typer.echo("listening; Ctrl-C ends it", err=True)
        lost_s = 0.0
        for samples in microphone:
            _tell(session.push(samples), final_only)
            if microphone.lost_s > lost_s:
                lost_s = microphone.lost_s
                typer.echo(f"too slow: {lost_s:.1f} s of sound were lost so far", err=True)
            if watch.requested:
                microphone.stop()
    _tell(session.finish(), final_only)


def _search(
    beam: int | None,
    language_model: Path | None,
    language_weight: float | None,
    word_bonus: float | None,
    hot_words: list[str] | None,
    hot_boost: float | None,
) -> dict[str, Any]:
    """The options of a search that were given; a folder is a run of a language model."""
    from recurra.errors import DataError

    model: Any = language_model
    if language_model is not None and language_model.is_dir():
        from recurra.tasks.language.model import LanguageModel

        model = LanguageModel.load(language_model)
    elif language_model is not None and not language_model.exists():
        raise DataError(
            f"--language-model {language_model} is not there; expected an ARPA file of words, or "
            "the run folder of a language model (`recurra lm train`)."
        )
    options = {
        "beam_size": beam,
        "language_model": model,
        "language_weight": language_weight,
        "word_bonus": word_bonus,
        "hot_words": hot_words or None,
        "hot_boost": hot_boost,
    }
    return {name: value for name, value in options.items() if value is not None}


def _tell(heard: list[Heard], final_only: bool) -> None:
    from recurra.cli.output import print_json

    for one in heard:
        if one.final or not final_only:
            print_json(one.as_json())
