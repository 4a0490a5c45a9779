"""Scoring a model on texts it has not seen, beside what needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recurra.data.corpus import Corpus, Document, read_corpus
from recurra.report.results import make_result
from recurra.tasks.language.adaptation import (
    CacheSettings,
    DynamicSettings,
    score_adapting,
    score_with_cache,
)
from recurra.tasks.language.fitted import Fitted
from recurra.tasks.language.scoring import Tally, score, score_windows

OURS = "recurra"
DYNAMIC = "recurra, dynamic evaluation"
CACHE = "recurra, with cache"
SHOWN = 3000
"""Tokens at the beginning whose surprise is kept for the report."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of each model by name, and the first tokens with their surprise.

    tallies   nats, and the tokens, characters and bytes that they are of
    shown     (text of the token, nats) of the first text's beginning
    notes     what the numbers do not say by themselves
    """

    tallies: dict[str, Tally]
    shown: list[tuple[str, float]]
    notes: tuple[str, ...]

    @property
    def perplexity(self) -> float:
        """Of the model itself, per token."""
        return float(self.tallies[OURS].metrics()["perplexity"] or math.nan)

    @property
    def tokens(self) -> int:
        """Tokens that were scored."""
        return self.tallies[OURS].tokens

    def results(self) -> list[dict[str, Any]]:
        """A row for each model."""
        return [make_result(name, tally.metrics()) for name, tally in self.tallies.items()]

    def details(self) -> dict[str, Any]:
        """What the report draws: texts and surprise of the first tokens."""
        return {
            "pieces": [piece for piece, _ in self.shown],
            "nats": [round(nats, 4) for _, nats in self.shown],
        }


def evaluate(
    fitted: Fitted,
    paths: Sequence[Path],
    *,
    dynamic: DynamicSettings | None = None,
    cache: CacheSettings | None = None,
    window: int | None = None,
    batch_size: int = 32,
) -> Evaluation:
    """Score files, each a text of its own; dynamic, cache and window add rows.

    Raises: DataError for a file that cannot be read.
    """
    corpus = read_corpus(paths, fitted.tokenizer)
    network, start = fitted.network, fitted.tokenizer.end_id
    texts = [corpus.text_of(document) for document in corpus.documents]
    tallies = _baselines(fitted, corpus)
    # One sum for each text, added in the order of the files: no batch can change the last bit.
    sums = [0.0] * len(texts)
    shown: list[float] = []
    for piece in score(network, texts, start, batch_size=batch_size):
        sums[piece.text] += float(piece.nats.double().sum())
        if piece.text == 0 and piece.begin < SHOWN:
            shown += piece.nats.tolist()
    tallies[OURS] = _tally(corpus.documents, sum(sums))
    if window is not None:
        name = f"{OURS}, windows of {window}"
        parts = [score_windows(network, text, start, window) for text in texts]
        tallies[name] = _tally(corpus.documents, _sum(parts))
    if dynamic is not None:
        scale = fitted.gradient_scale
        parts = [score_adapting(network, scale, text, start, dynamic) for text in texts]
        tallies[DYNAMIC] = _tally(corpus.documents, _sum(parts))
    if cache is not None:
        parts = [score_with_cache(network, text, start, cache) for text in texts]
        tallies[CACHE] = _tally(corpus.documents, _sum(parts))
    first = texts[0][: len(shown)][:SHOWN].tolist()
    pieces = fitted.tokenizer.pieces(first)
    return Evaluation(
        tallies,
        list(zip(pieces, shown[: len(pieces)], strict=True)),
        _notes(fitted, corpus),
    )


def _sum(parts: Any) -> float:
    return sum(float(nats.double().sum()) for part in parts for nats in part)


def _tally(documents: Sequence[Document], nats: float) -> Tally:
    return Tally(
        nats,
        sum(document.tokens for document in documents),
        sum(document.characters for document in documents),
        sum(document.bytes for document in documents),
    )


def _baselines(fitted: Fitted, corpus: Corpus) -> dict[str, Tally]:
    """Every token alike, and each by its frequency in the training text (one added to each)."""
    size = fitted.tokenizer.vocab_size
    counts = fitted.counts.numpy() + 1.0
    unigram = -np.log(counts / counts.sum())
    return {
        "uniform": _tally(corpus.documents, corpus.tokens * math.log(size)),
        "unigram": _tally(corpus.documents, float(corpus.counts @ unigram)),
    }


def _notes(fitted: Fitted, corpus: Corpus) -> tuple[str, ...]:
    notes = [f"{corpus.tokens} tokens ({fitted.tokenizer.kind}), all of them counted"]
    unknown = sum(document.unknown for document in corpus.documents)
    if unknown:
        notes.append(
            f"{unknown} of them are unknown to the model, which says what an unknown one costs but "
            "not which it is: bits and nats per character and byte leave that out"
        )
    return tuple(notes)
