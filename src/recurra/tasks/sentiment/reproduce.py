"""Running a recipe of labelled texts: train, and score the test texts once at the end.

The run is kept in the cache, so that an interrupted one goes on where it was, and a finished one
can be used: `recurra sentiment predict FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import time as clock
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from recurra.data.catalogue import cache_folder
from recurra.data.recipe import Recipe
from recurra.errors import ConfigError, DataError
from recurra.report.results import make_outcome, make_result
from recurra.tasks.sentiment.baseline import tfidf_logistic
from recurra.tasks.sentiment.corpora import Split, read_splits
from recurra.tasks.sentiment.evaluation import score
from recurra.tasks.sentiment.examples import split_examples
from recurra.tasks.sentiment.fitted import TASK
from recurra.tasks.sentiment.model import SentimentClassifier
from recurra.tasks.sentiment.settings import CheckedModel


class SentimentSection(CheckedModel):
    """The [sentiment] table of a recipe.

    labels     2 or 5, of the data set sst
    folds      of a cross-validation, for sets without an official split
    settings   arguments of `SentimentClassifier`; the seed comes from the recipe's seeds
    """

    labels: int | None = Field(default=None, ge=2)
    folds: int | None = Field(default=None, ge=2)
    settings: dict[str, Any] = Field(default_factory=dict)


def reproduce(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train with `seed`, or go on with that, and score; over folds the metrics are means.

    Raises: DataError when the recipe's section is wrong or the data are absent; MissingExtraError
    without scikit-learn, whose baseline stands beside.
    """
    try:
        section = SentimentSection(**recipe.section)
    except ConfigError as error:
        raise DataError(f"recipe {recipe.name!r}, [sentiment]: {error}") from error
    if recipe.dataset is None:
        raise DataError(f"recipe {recipe.name!r} names no data set; sentiment needs one.")
    started = clock.monotonic()
    splits = read_splits(recipe.dataset, labels=section.labels, folds=section.folds, seed=seed)
    found = [
        _run_split(split, section, seed, run_folder(recipe, seed, number))
        for number, split in enumerate(splits)
    ]
    rows = {
        model: _mean([metrics[model] for metrics, _, _ in found])
        for model in ("majority", "naive_bayes", "tfidf_logistic", "recurra")
    }
    tested = sum(len(split.test.texts) for split in splits)
    data = f"{recipe.dataset}, {tested} test texts"
    if section.folds is not None:
        data += f" in {section.folds} folds"
    outcome = make_outcome(
        TASK,
        data,
        [make_result(model, metrics) for model, metrics in rows.items()],
        clock.monotonic() - started,
    )
    outcome["notes"] = list(found[0][1])
    outcome["training"] = [result for _, _, result in found]
    return outcome


def _run_split(
    split: Split, section: SentimentSection, seed: int, folder: Path
) -> tuple[dict[str, dict[str, float]], tuple[str, ...], dict[str, Any]]:
    """(metrics of each model, notes, what training said) of one split."""
    model = SentimentClassifier.from_settings({**section.settings, "seed": seed})
    train, valid = split.train, split.valid
    if valid is None:
        train, valid = split_examples(train, model.settings.validation, seed)
    model.fit(train, valid=valid, out=folder, resume=True)
    evaluation = model.evaluate(split.test)
    baseline, chosen = tfidf_logistic(train, valid, split.test.texts, model.labels)
    metrics = {name: score(rows, evaluation.targets) for name, rows in evaluation.rows.items()}
    metrics["tfidf_logistic"] = score(baseline, evaluation.targets)
    result = model.fitted.training["result"]
    notes = (
        *model.fitted.notes[1:],
        evaluation.notes[1],
        f"the logistic regression learns from the same texts; seed {seed}: {chosen}",
        f"seed {seed}: training took {result['seconds']:.0f} s, accuracy "
        f"{result['valid_accuracy']:.4f} on validation",
    )
    return metrics, notes, dict(result)


def run_folder(recipe: Recipe, seed: int, number: int = 0) -> Path:
    """Where the run of a recipe, seed and fold is kept; another training has another folder."""
    digest = hashlib.sha256(json.dumps(recipe.section, sort_keys=True).encode()).hexdigest()
    name = f"{recipe.name}-{digest[:8]}-seed-{seed}"
    return cache_folder() / "runs" / (f"{name}-fold-{number}" if number else name)


def _mean(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in several])) for name in several[0]}
