"""Running a recipe of sentence pairs: train, and score the test sentences once at the end.

The run is kept in the cache, so that an interrupted one goes on where it was, and a finished one
can be used: `recurra translate predict FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time as clock
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from recurra.data.catalogue import cache_folder, locate
from recurra.data.recipe import Recipe
from recurra.errors import ConfigError, DataError, MissingExtraError
from recurra.report.results import make_outcome, make_result
from recurra.tasks.translation.evaluation import NAIVE, OURS, score
from recurra.tasks.translation.fitted import TASK
from recurra.tasks.translation.model import Translator, make_search
from recurra.tasks.translation.pairs import Pairs, read_pairs
from recurra.tasks.translation.settings import CheckedModel
from recurra.tasks.translation.translate import translate

TRAINED_BY = ("source", "target", "train", "valid", "suffix", "settings")
"""What of a recipe's section a training depends on."""


class TranslationSection(CheckedModel):
    """The [translation] table of a recipe.

    source, target   languages, the endings of the files' names
    train, valid     their beginnings: train.en, train.de
    tests            the test sets, by what their metrics are called after
    suffix           of all files: .gz, .xz or none
    protocol         "moses": BLEU as it is published for Multi30k, both sides lower-cased, with
                     Moses' normalised punctuation and its tokens; "words": the texts as they are,
                     tokens between blanks
    search           arguments of the search, beside greedy decoding
    settings         arguments of `Translator`; the seed comes from the recipe's seeds
    """

    source: str = Field(min_length=1)
    target: str = Field(min_length=1)
    train: str = "train"
    valid: str = "val"
    tests: dict[str, str] = Field(min_length=1)
    suffix: str = ""
    protocol: Literal["moses", "words"] = "moses"
    search: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)


def reproduce(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train with `seed`, or go on with that, and score.

    Metrics: bleu_NAME by the recipe's protocol; with Moses' also cased_bleu_NAME and chrf_NAME, of
    the texts as they are.
    Raises: DataError when the recipe's section is wrong or the data are absent; MissingExtraError
    without sacrebleu and sacremoses.
    """
    section = read_section(recipe)
    if recipe.dataset is None:
        raise DataError(f"recipe {recipe.name!r} names no data set; translation needs one.")
    prepare = preparation(section)
    score(["a b c d"], ["a b c d"])  # before hours of training: is sacrebleu there
    folder = locate(recipe.dataset)
    model = Translator.from_settings({**section.settings, "seed": seed})
    valid = _read(folder, section, section.valid)
    model.fit(
        _read(folder, section, section.train),
        valid=valid,
        out=run_folder(recipe, seed),
        resume=True,
    )
    started = clock.monotonic()
    tests = {name: _read(folder, section, test) for name, test in section.tests.items()}
    rows: dict[str, dict[str, float]] = {OURS: {}, f"{OURS}, greedy": {}, NAIVE: {}}
    signatures: set[str] = set()
    speeds = []
    for name, pairs in tests.items():
        for row, metrics in rows.items():
            began = clock.monotonic()
            said = list(pairs.source) if row == NAIVE else _said(model, pairs, section, row)
            if row != NAIVE:
                speeds.append(f"{row}, {name}: {len(pairs) / (clock.monotonic() - began):.0f}")
            found, how = _metrics(said, pairs.target, section, prepare)
            metrics.update({f"{metric}_{name}": value for metric, value in found.items()})
            signatures.update(how)
    result = model.fitted.training["result"]
    scored_s = clock.monotonic() - started
    sizes = ", ".join(f"{name} {len(pairs)}" for name, pairs in tests.items())
    outcome = make_outcome(
        TASK,
        f"{recipe.dataset}, {section.source} to {section.target}, test sentences: {sizes}",
        [make_result(row, metrics) for row, metrics in rows.items()],
        result["seconds"] + scored_s,
    )
    outcome["notes"] = [
        *model.fitted.notes,
        f"validation, at the best weights: {result['best_loss']:.4f} nats a token",
        f"training took {result['seconds']:.0f} s, {result['steps']} steps; scoring "
        f"{scored_s:.0f} s",
        f"sentences per second, with reading and writing the tokens: {'; '.join(speeds)}",
        *sorted(signatures),
    ]
    outcome["training"] = result
    return outcome


def read_section(recipe: Recipe) -> TranslationSection:
    """The recipe's section, checked. Raises: DataError when it is wrong."""
    try:
        section = TranslationSection(**recipe.section)
        make_search(**{"beam_size": 5, **section.search})
        return section
    except (ConfigError, TypeError) as error:
        raise DataError(f"recipe {recipe.name!r}, [translation]: {error}") from error


def run_folder(recipe: Recipe, seed: int) -> Path:
    """Where the run of a recipe and seed is kept; another training has another folder."""
    trained = {key: recipe.section.get(key) for key in TRAINED_BY}
    digest = hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "runs" / f"{recipe.name}-{digest[:8]}-seed-{seed}"


def preparation(section: TranslationSection) -> Callable[[str], str]:
    """What the protocol does to a text before its tokens, split by blanks, are compared.

    Raises: MissingExtraError when it needs sacremoses, which is not there.
    """
    if section.protocol == "words":
        return lambda text: text
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError as error:
        raise MissingExtraError("sacremoses", "translation", "Moses' tokens") from error
    normaliser = MosesPunctNormalizer(lang=section.target)
    tokenizer = MosesTokenizer(lang=section.target)

    def prepare(text: str) -> str:
        return str(tokenizer.tokenize(normaliser.normalize(text.lower()), return_str=True))

    return prepare


def _metrics(
    said: Sequence[str],
    references: Sequence[str],
    section: TranslationSection,
    prepare: Callable[[str], str],
) -> tuple[dict[str, float], list[str]]:
    """(metrics, the signatures of sacrebleu)."""
    plain = score(list(map(prepare, said)), list(map(prepare, references)), "none")
    if section.protocol == "words":
        return {"bleu": plain.bleu, "chrf": plain.chrf}, list(plain.signatures)
    cased = score(said, references)
    how = [f"bleu: lower-cased, normalised and tokenised by Moses' rules; {plain.signatures[0]}"]
    how += [f"cased_bleu: {cased.signatures[0]}", f"chrf: {cased.signatures[1]}"]
    return {"bleu": plain.bleu, "cased_bleu": cased.bleu, "chrf": cased.chrf}, how


def _said(model: Translator, pairs: Pairs, section: TranslationSection, row: str) -> list[str]:
    values = {"beam_size": 5, **section.search} if row == OURS else {"beam_size": 1}
    found, _ = translate([model.fitted], pairs.source, make_search(**values))
    return [one[0].text for one in found]


def _read(folder: Path, section: TranslationSection, name: str) -> Pairs:
    paths = (
        folder / f"{name}.{language}{section.suffix}"
        for language in (section.source, section.target)
    )
    pairs = read_pairs(*paths)
    # Named without their folder, which is another one everywhere.
    notes = tuple(note.replace(f"{folder}{os.sep}", "") for note in pairs.notes)
    return Pairs(pairs.source, pairs.target, f"{name}.{section.source}", notes, pairs.lines)
