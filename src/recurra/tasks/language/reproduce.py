"""Running a language recipe: train on its training text, score its test text once at the end.

The run is kept in the cache, so that an interrupted one goes on where it was, and a finished one
can be written with: `recurra lm predict FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time as clock
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from recurra.data.catalogue import cache_folder, locate
from recurra.data.recipe import Recipe
from recurra.data.textfiles import read_text
from recurra.errors import ConfigError, DataError
from recurra.report.results import make_outcome
from recurra.tasks.language.fitted import TASK
from recurra.tasks.language.model import LanguageModel
from recurra.tasks.language.settings import CheckedModel

TRAINED_BY = ("train", "valid", "test_share", "joined", "settings")
"""What of a recipe's section a training depends on."""


class LanguageSection(CheckedModel):
    """The [language] table of a recipe.

    train, valid, test   files of the data set; valid may be left out
    test_share           instead of `test`: the share of the training file, at its end and in
                         characters, that is the test text
    joined               characters stand with blanks between them, which are taken out
    window               also score windows of so many tokens, each from the initial state
    dynamic, cache       settings of dynamic evaluation and of the cache; left out, not done
    settings             arguments of `LanguageModel`; the seed comes from the recipe's seeds
    """

    train: str
    valid: str | None = None
    test: str | None = None
    test_share: float | None = Field(default=None, gt=0, lt=1)
    joined: bool = False
    window: int | None = Field(default=None, ge=1)
    dynamic: dict[str, Any] | None = None
    cache: dict[str, Any] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> LanguageSection:
        if (self.test is None) == (self.test_share is None):
            raise ValueError("expected either test or test_share")
        return self


def reproduce(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train with `seed`, or go on with that, and score.

    Raises: DataError when the recipe's section is wrong or the data are absent.
    """
    try:
        section = LanguageSection(**recipe.section)
    except (ConfigError, ValidationError) as error:
        raise DataError(f"recipe {recipe.name!r}, [language]: {error}") from error
    if recipe.dataset is None:
        raise DataError(f"recipe {recipe.name!r} names no data set; language needs one.")
    model = LanguageModel.from_settings({**section.settings, "seed": seed})
    with tempfile.TemporaryDirectory() as folder:
        train, valid, test = _texts(section, locate(recipe.dataset), Path(folder))
        model.fit(train, valid=valid, out=run_folder(recipe, seed), resume=True)
        started = clock.monotonic()
        evaluation = model.evaluate(
            test,
            dynamic=False if section.dynamic is None else section.dynamic,
            cache=False if section.cache is None else section.cache,
            window=section.window,
        )
    result = model.fitted.training["result"]
    scored_s = clock.monotonic() - started
    outcome = make_outcome(
        TASK,
        f"{recipe.dataset}, {evaluation.tokens} tokens of test",
        evaluation.results(),
        result["seconds"] + scored_s,
    )
    cpu = "" if result["cpu_seconds"] is None else f" ({result['cpu_seconds']:.0f} s of processors)"
    outcome["notes"] = [
        *model.fitted.notes,
        f"training took {result['seconds']:.0f} s{cpu}, scoring {scored_s:.0f} s",
        *evaluation.notes,
    ]
    outcome["training"] = result
    return outcome


def run_folder(recipe: Recipe, seed: int) -> Path:
    """Where the run of a recipe and seed is kept; another training has another folder."""
    trained = {key: recipe.section.get(key) for key in TRAINED_BY}
    digest = hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "runs" / f"{recipe.name}-{digest[:8]}-seed-{seed}"


def _texts(section: LanguageSection, data: Path, folder: Path) -> tuple[Path, list[Path], Path]:
    """The files to train on, to validate on and to test on; what is not whole lies in `folder`."""
    valid = [] if section.valid is None else [_prepared(section, data / section.valid, folder)]
    train = _prepared(section, data / section.train, folder)
    if section.test is not None:
        return train, valid, _prepared(section, data / section.test, folder)
    assert section.test_share is not None
    text = "".join(read_text(train))
    cut = int((1 - section.test_share) * len(text))
    parts = {"train.txt": text[:cut], "test.txt": text[cut:]}
    for name, part in parts.items():
        (folder / name).write_text(part, encoding="utf-8", newline="")
    return folder / "train.txt", valid, folder / "test.txt"


def _prepared(section: LanguageSection, path: Path, folder: Path) -> Path:
    if not section.joined:
        return path
    prepared = folder / f"{path.name}.joined"
    text = "".join(read_text(path)).replace(" ", "")
    prepared.write_text(text, encoding="utf-8", newline="")
    return prepared
