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
from typing import Any

from pydantic import Field, ValidationError

from recurra.data.catalogue import cache_folder, locate
from recurra.data.recipe import Recipe
from recurra.data.recordings import Recording, read_recordings
from recurra.errors import ConfigError, DataError
from recurra.report.results import make_outcome
from recurra.tasks.speech.fitted import TASK
from recurra.tasks.speech.model import Transcriber
from recurra.tasks.speech.settings import CheckedModel

TRAINED_BY = ("train", "train_audio", "audio", "text", "valid_rows", "settings")
"""What of a recipe's section a training depends on."""


class SpeechSection(CheckedModel):
    """The [speech] table of a recipe.

    train, test               tables of the data set
    train_audio, test_audio   folders or .tar files of the recordings
    audio, text               the tables' columns
    valid_rows                the first rows of the training table, in order of their file names,
                              that are kept to choose the weights by
    beam_size                 also score with a beam, in a row of its own
    settings                  arguments of `Transcriber`; the seed comes from the recipe's seeds
    """

    train: str
    train_audio: str
    test: str
    test_audio: str
    audio: str = "file"
    text: str = "text"
    valid_rows: int = Field(ge=1)
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
    train, valid = training_rows(section, data)
    model = Transcriber.from_settings({**section.settings, "seed": seed})
    model.fit(
        _pairs(train),
        valid=_pairs(valid),
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
        *evaluation.notes,
    ]
    outcome["training"] = result
    return outcome


def read_section(recipe: Recipe) -> SpeechSection:
    """The recipe's section, checked. Raises: DataError when it is wrong."""
    try:
        return SpeechSection(**recipe.section)
    except (ConfigError, ValidationError) as error:
        raise DataError(f"recipe {recipe.name!r}, [speech]: {error}") from error


def training_rows(section: SpeechSection, data: Path) -> tuple[list[Recording], list[Recording]]:
    """(rows to learn from, rows to stop by), both in order of their file names.

    File names are SPEAKER/UTTERANCE, so this is the order of speakers and then utterances.
    Raises: DataError when there are no more than `valid_rows`.
    """
    rows = read_recordings(data / section.train, section.audio, section.text)
    rows.sort(key=lambda row: str(row.audio))
    if len(rows) <= section.valid_rows:
        raise DataError(
            f"{section.train} has {len(rows)} rows; expected over {section.valid_rows}."
        )
    return rows[section.valid_rows :], rows[: section.valid_rows]


def run_folder(recipe: Recipe, seed: int) -> Path:
    """Where the run of a recipe and seed is kept; another training has another folder."""
    trained = {key: recipe.section.get(key) for key in TRAINED_BY}
    digest = hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "runs" / f"{recipe.name}-{digest[:8]}-seed-{seed}"


def _pairs(rows: Sequence[Recording]) -> list[tuple[Any, str]]:
    return [(row.audio, row.text) for row in rows]
