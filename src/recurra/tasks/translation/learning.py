"""From pairs to a fitted translator: tokens, filters, training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recurra.errors import DataError
from recurra.runs import RunFolder
from recurra.tasks.translation.fitted import Fitted
from recurra.tasks.translation.fitting import Corpus, TranslationTask
from recurra.tasks.translation.network import TranslationNetwork
from recurra.tasks.translation.pairs import Pairs
from recurra.tasks.translation.settings import TranslationSettings
from recurra.tasks.translation.tokens import SubwordDropout, TokenPair
from recurra.training.learner import choose_device
from recurra.training.loop import TrainingResult, train
from recurra.training.same_fit import Fingerprint
from recurra.training.settings import TrainingSettings, common_values

_DEFAULTS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "weight_decay": 0.01,
    "warmup_steps": 200,
    "ema_decay": 0.998,
}
_ALWAYS_RIGHT = 10  # tokens up to which no ratio of lengths is out of the ordinary


@dataclass(frozen=True)
class Plan:
    """Everything that training needs, checked: nothing has been trained or written yet."""

    settings: TranslationSettings
    training: TrainingSettings
    tokens: TokenPair
    train: Corpus
    valid: Corpus
    fingerprint: str
    notes: tuple[str, ...]


def training_settings(
    settings: TranslationSettings, steps_per_epoch: int = 200
) -> TrainingSettings:
    """Settings of the training loop. Raises: ConfigError when they contradict each other."""
    values = {
        **common_values(settings),
        "validate_every": min(max(20, steps_per_epoch // 2), 500),
    }
    return TrainingSettings(**{**values, **_DEFAULTS, **settings.training})


def plan(given: Pairs, valid: Pairs | None, settings: TranslationSettings) -> Plan:
    """Learn the tokens and encode all pairs.

    valid   pairs to find the best weights by; None for a share of the given ones
    Raises: DataError for too few pairs, ConfigError for settings.
    """
    notes = [f"{len(given)} pairs of {given.name}", *given.notes]
    copies = len(given) - len(set(zip(given.source, given.target, strict=True)))
    if copies:
        notes.append(f"{copies} pairs are there more than once")
    if valid is None:
        learned, kept = split_pairs(given, settings.validation, settings.seed)
    else:
        learned, kept = given, valid
        known = set(given.source)
        shared = sum(text in known for text in valid.source)
        if shared:
            notes.append(f"{shared} of {len(valid)} validation sources are in training too")
        notes += valid.notes
    # Characters are as many as there are; the other kinds are cut at a size.
    size = None if settings.tokens == "char" else settings.vocab_size
    tokens = TokenPair.train(
        learned.source, learned.target, settings.tokens, size, joint=settings.joint
    )
    corpus, left_out = _filter(learned, tokens, settings)
    notes += left_out
    notes.append(f"{len(corpus.sources)} pairs to learn from, {len(kept)} to validate on")
    means = corpus.source_sizes.mean(), corpus.target_sizes.mean()
    sizes = f"{tokens.source.vocab_size}"
    if not tokens.joint:
        sizes += f" and {tokens.target.vocab_size}"
    notes.append(
        f"{sizes} {settings.tokens} tokens{' for both languages' if tokens.joint else ''}; a "
        f"sentence has {means[0]:.1f} and {means[1]:.1f} of them"
    )
    check = TranslationTask(_Nothing(), corpus, corpus, settings.batch_tokens, settings.seed)  # type: ignore[arg-type]
    training = training_settings(settings, check.steps_per_epoch)
    choose_device(training)
    return Plan(
        settings,
        training,
        tokens,
        corpus,
        encode(kept, tokens),
        _digest(learned, kept),
        tuple(notes),
    )


def encode(pairs: Pairs, tokens: TokenPair) -> Corpus:
    """Pairs as the network reads them."""
    return Corpus(
        [tokens.read(text) for text in pairs.source],
        [tokens.write(text) for text in pairs.target],
        tokens.target.end_id,
    )


def split_pairs(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """(to learn from, to validate on); pairs with the same source go to the same side.

    Raises: DataError when there are fewer than two distinct sources.
    """
    sources = sorted(set(pairs.source))
    if len(sources) < 2:
        raise DataError(
            f"{pairs.name} has {len(sources)} distinct source sentence; expected at least 2, one "
            "to learn from and one to validate on."
        )
    count = min(max(1, round(share * len(sources))), len(sources) - 1)
    chosen = np.random.default_rng(seed).choice(len(sources), count, replace=False)
    kept = {sources[k] for k in chosen}
    rows = [k for k, text in enumerate(pairs.source) if text not in kept]
    others = [k for k, text in enumerate(pairs.source) if text in kept]
    return pairs.take(rows), pairs.take(others)


def learn(
    chosen: Plan, run: RunFolder | None, *, resume: bool, progress: bool
) -> tuple[Fitted, TrainingResult]:
    """Train what was planned; `run` is the folder for log and checkpoints, None for none."""
    settings, tokens = chosen.settings, chosen.tokens
    sizes = tokens.source.vocab_size, tokens.target.vocab_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = TranslationNetwork(*sizes, settings)
    dropout = None
    if settings.subword_dropout:
        dropout = SubwordDropout(tokens.source, settings.subword_dropout)
    task = TranslationTask(
        network, chosen.train, chosen.valid, settings.batch_tokens, settings.seed, dropout
    )
    result = train(
        task,
        chosen.training,
        folder=None if run is None else run.path,
        resume=resume,
        progress=progress,
    )
    fitted = Fitted(
        tokens,
        network.to("cpu").eval(),
        result.record(chosen.training),
        chosen.notes,
    )
    return fitted, result


def trained_on(chosen: Plan) -> tuple[Fingerprint, ...]:
    """What a resumed run must be given again: the pairs."""
    return (
        Fingerprint(
            "text",
            chosen.fingerprint,
            "on other pairs; --resume needs the same files. Use them",
        ),
    )


class _Nothing(torch.nn.Module):
    """Stands for the network where only batches are counted."""


def _filter(
    pairs: Pairs, tokens: TokenPair, settings: TranslationSettings
) -> tuple[Corpus, list[str]]:
    """The pairs that training sees, and what was left out and why.

    Raises: DataError when none is left.
    """
    corpus = encode(pairs, tokens)
    sizes = corpus.source_sizes, corpus.target_sizes
    longer, shorter = np.maximum(*sizes), np.minimum(*sizes)
    too_long = longer > settings.max_length + 1  # the end does not count
    uneven = ~too_long & (longer > _ALWAYS_RIGHT) & (longer > settings.max_ratio * shorter)
    notes = []
    if too_long.any():
        notes.append(
            f"{too_long.sum()} pairs with more than {settings.max_length} tokens on a side left out"
        )
    if uneven.any():
        notes.append(
            f"{uneven.sum()} pairs with one side more than {settings.max_ratio:g} times as long as "
            "the other left out"
        )
    kept = np.flatnonzero(~too_long & ~uneven)
    if not len(kept):
        raise DataError(
            f"{pairs.name}: {'; '.join(notes)}; no pair is left. Raise max_length or max_ratio, or "
            "check that the files are aligned."
        )
    rows = kept.tolist()
    sources, targets = [corpus.sources[k] for k in rows], [corpus.targets[k] for k in rows]
    return Corpus(sources, targets, corpus.start_id), notes


def _digest(*several: Pairs) -> str:
    digest = hashlib.sha256()
    for pairs in several:
        for part in (*pairs.source, *pairs.target):
            digest.update(hashlib.sha256(part.encode("utf-8", "replace")).digest())
    return digest.hexdigest()
