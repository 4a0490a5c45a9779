"""Running a speech recipe: train on its training part, score its test part once at the end.

The run is kept in the cache, so that an interrupted one goes on where it was, and a finished one
can be used: `recurra speech predict FOLDER a.wav`.
"""

from __future__ import annotations

import hashlib
import json
import time as clock
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from recurra.data.audio import AudioFiles
from recurra.data.catalogue import cache_folder, locate
from recurra.data.logmel import WINDOW_S
from recurra.data.recipe import Recipe
from recurra.data.recordings import Recording, read_recordings
from recurra.errors import ConfigError, DataError
from recurra.report.results import make_outcome
from recurra.tasks.speech.examples import load
from recurra.tasks.speech.fitted import TASK
from recurra.tasks.speech.joining import Spoken, join_words
from recurra.tasks.speech.model import Transcriber
from recurra.tasks.speech.settings import CheckedModel, Design

TRAINED_BY = (
    "train",
    "train_audio",
    "audio",
    "text",
    "valid_rows",
    "valid_where",
    "joined",
    "settings",
)
"""What of a recipe's section a training depends on."""
PIECE_S = 0.1
"""Seconds of the pieces in which a streaming network also hears the test part."""


class JoinedSection(CheckedModel):
    """The [speech.joined] table: strings of the recordings, each part joined from its own.

    speaker              the tables' column of who speaks
    train, valid, test   how many strings; those of `train` and `valid` are added to the single
                         recordings, those of `test` are scored beside them
    words, pause_s       how many recordings a string has, and the seconds between two
    """

    speaker: str
    train: int = Field(ge=0)
    valid: int = Field(ge=0)
    test: int = Field(ge=1)
    words: tuple[int, int]
    pause_s: tuple[float, float]


class SpeechSection(CheckedModel):
    """The [speech] table of a recipe.

    train, test               tables of the data set
    train_audio, test_audio   folders or .tar files of the recordings
    audio, text               the tables' columns
    valid_rows                the first rows of the training table, in order of their file names,
                              that are kept to choose the weights by
    valid_where               instead, columns and the values that the rows kept have in them
    joined                    also strings of the recordings, see `JoinedSection`
    beam_size                 also score with a beam, in a row of its own
    settings                  arguments of `Transcriber`; the seed comes from the recipe's seeds
    """

    train: str
    train_audio: str
    test: str
    test_audio: str
    audio: str = "file"
    text: str = "text"
    valid_rows: int = Field(default=0, ge=0)
    valid_where: dict[str, list[str]] = Field(default_factory=dict)
    joined: JoinedSection | None = None
    beam_size: int | None = Field(default=None, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)


def reproduce(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train with `seed`, or go on with that, and score.

    Raises: DataError when the recipe's section is wrong or the data are absent.
    """
    section = read_section(recipe)
    if recipe.dataset is None:
        raise DataError(f"recipe {recipe.name!r} names no data set; speech needs one.")
    data = locate(recipe.dataset)
    model = Transcriber.from_settings({**section.settings, "seed": seed})
    train, valid = training_rows(section, data)
    model.fit(
        [*_pairs(train), *_strings(section, data, train, "train", model)],
        valid=[*_pairs(valid), *_strings(section, data, valid, "valid", model)],
        audio_root=data / section.train_audio,
        out=run_folder(recipe, seed),
        resume=True,
    )
    started = clock.monotonic()
    test: dict[str, Any] = {
        "audio": section.audio,
        "text": section.text,
        "audio_root": data / section.test_audio,
    }
    evaluation = model.evaluate(data / section.test, **test)
    results = evaluation.results()
    if section.beam_size is not None:
        beam = model.evaluate(data / section.test, beam_size=section.beam_size, **test)
        name = f"recurra, beam of {section.beam_size}"
        results.insert(1, {**beam.results()[0], "model": name})
    notes = list(evaluation.notes)
    if model.settings.streaming:
        streamed = model.evaluate(data / section.test, piece_s=PIECE_S, **test)
        name = f"recurra, streamed in pieces of {1000 * PIECE_S:g} ms"
        results.insert(1, {**streamed.results()[0], "model": name})
        notes.append(_describe_wait(model.fitted.design))
    if section.joined is not None:
        rows = read_recordings(data / section.test, section.audio, section.text)
        joined = model.evaluate(_strings(section, data, rows, "test", model))
        results.insert(1, {**joined.results()[0], "model": "recurra, joined recordings"})
        notes += [f"joined: {note}" for note in joined.notes[:1]]
    result = model.fitted.training["result"]
    scored_s = clock.monotonic() - started
    outcome = make_outcome(
        TASK,
        f"{recipe.dataset}, {len(evaluation.rows)} recordings of test, {evaluation.seconds:.0f} s",
        results,
        result["seconds"] + scored_s,
    )
    outcome["notes"] = [
        *model.fitted.notes,
        f"validation, at the best weights: cer {result['best_loss']:.4f}",
        f"training took {result['seconds']:.0f} s, scoring {scored_s:.0f} s",
        *notes,
    ]
    outcome["training"] = result
    return outcome


def _describe_wait(design: Design) -> str:
    ahead_ms, step_ms = (1000 * design.step_s * steps for steps in (design.steps_ahead, 1))
    return (
        f"streamed, a character waits for {ahead_ms:.0f} ms of the future, for the rest of its "
        f"step of {step_ms:.0f} ms and of a window of {1000 * WINDOW_S:.0f} ms, and for its piece"
    )


def _strings(
    section: SpeechSection,
    data: Path,
    rows: Sequence[Recording],
    part: Literal["train", "valid", "test"],
    model: Transcriber,
) -> list[tuple[Any, str]]:
    """The joined recordings of a part; those of `train` are others for each seed."""
    joined = section.joined
    if joined is None or not getattr(joined, part):
        return []
    table = section.test if part == "test" else section.train
    root = section.test_audio if part == "test" else section.train_audio
    speakers = read_recordings(data / table, section.audio, joined.speaker)
    speaker_of = {str(row.audio): row.text for row in speakers}
    files, rate = AudioFiles(data / root), model.settings.sample_rate
    spoken = [
        Spoken(load(row, files, rate).samples, row.text, speaker_of[str(row.audio)]) for row in rows
    ]
    return list(
        join_words(
            spoken,
            getattr(joined, part),
            words=joined.words,
            pause_s=joined.pause_s,
            sample_rate=rate,
            seed=model.settings.seed if part == "train" else 0,
        )
    )


def read_section(recipe: Recipe) -> SpeechSection:
    """The recipe's section, checked. Raises: DataError when it is wrong."""
    try:
        return SpeechSection(**recipe.section)
    except (ConfigError, ValidationError) as error:
        raise DataError(f"recipe {recipe.name!r}, [speech]: {error}") from error


def training_rows(section: SpeechSection, data: Path) -> tuple[list[Recording], list[Recording]]:
    """(rows to learn from, rows to stop by), both in order of their file names.

    Where file names are SPEAKER/UTTERANCE, this is the order of speakers and then utterances.
    Raises: DataError when `valid_rows` or `valid_where` keeps none, or all.
    """
    rows = read_recordings(data / section.train, section.audio, section.text)
    kept = set(range(len(rows)))
    for column, values in section.valid_where.items():
        found = read_recordings(data / section.train, section.audio, column)
        kept &= {k for k, row in enumerate(found) if row.text in values}
    if not section.valid_where:
        by_name = sorted(kept, key=lambda k: str(rows[k].audio))
        kept = set(by_name[: section.valid_rows])
    if not 0 < len(kept) < len(rows):
        raise DataError(
            f"{section.train} has {len(rows)} rows, and {len(kept)} are kept to choose the weights "
            "by; expected some, and some to learn from. See valid_rows and valid_where."
        )
    ordered = sorted(range(len(rows)), key=lambda k: str(rows[k].audio))
    return [rows[k] for k in ordered if k not in kept], [rows[k] for k in ordered if k in kept]


def run_folder(recipe: Recipe, seed: int) -> Path:
    """Where the run of a recipe and seed is kept; another training has another folder."""
    trained = {key: recipe.section.get(key) for key in TRAINED_BY}
    digest = hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "runs" / f"{recipe.name}-{digest[:8]}-seed-{seed}"


def _pairs(rows: Sequence[Recording]) -> list[tuple[Any, str]]:
    return [(row.audio, row.text) for row in rows]
