"""From examples to a fitted classifier: vocabulary, naive Bayes, training, temperature."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recurra.errors import DataError
from recurra.runs import RunFolder
from recurra.tasks.sentiment.batches import shorten
from recurra.tasks.sentiment.calibration import find_temperature
from recurra.tasks.sentiment.examples import (
    Examples,
    check_labels,
    count_copies,
    describe_balance,
    fingerprints,
    label_order,
    split_examples,
)
from recurra.tasks.sentiment.fitted import Fitted
from recurra.tasks.sentiment.fitting import Corpus, SentimentTask, all_logits
from recurra.tasks.sentiment.naive_bayes import NaiveBayes
from recurra.tasks.sentiment.network import SentimentNetwork
from recurra.tasks.sentiment.pretrained import FineTuning, Pretrained, thaw_steps
from recurra.tasks.sentiment.settings import SentimentSettings
from recurra.tasks.sentiment.words import Vocabulary, WordTable, written_words
from recurra.training.learner import choose_device
from recurra.training.loop import TrainingResult, train
from recurra.training.same_fit import Fingerprint
from recurra.training.settings import TrainingSettings, common_values

_DEFAULTS: dict[str, Any] = {"learning_rate": 2e-3, "weight_decay": 0.01}


@dataclass(frozen=True)
class Plan:
    """Everything that training needs, checked: nothing has been trained or written yet."""

    settings: SentimentSettings
    training: TrainingSettings
    labels: tuple[str, ...]
    vocabulary: Vocabulary
    bayes: NaiveBayes
    train: Corpus
    valid: Corpus
    seen: np.ndarray[Any, np.dtype[np.int64]]
    fingerprint: str
    notes: tuple[str, ...]
    pretrained: Pretrained | None = None


def training_settings(settings: SentimentSettings, steps_per_epoch: int = 100) -> TrainingSettings:
    """Settings of the training loop. Raises: ConfigError when they contradict each other."""
    values = {
        **common_values(settings),
        # Often enough to find the best weights, seldom enough to cost little.
        "validate_every": min(max(20, steps_per_epoch // 2), 1000),
    }
    return TrainingSettings(**{**values, **_DEFAULTS, **settings.training})


def plan(
    given: Examples,
    valid: Examples | None,
    settings: SentimentSettings,
    pretrained: Pretrained | None = None,
) -> Plan:
    """Learn the vocabulary and the counts, and encode all texts.

    valid        examples to stop by and to calibrate on; None for a share of the given ones
    pretrained   the language model to begin with, whose sizes replace those of the settings
    Raises: DataError for too few texts or labels, ConfigError for settings.
    """
    labels = label_order(given.labels)
    if len(labels) < 2:
        raise DataError(
            f"{given.source}: every text has the label {labels[0]!r}; expected two or more labels."
        )
    if valid is None:
        learned, kept = split_examples(given, settings.validation, settings.seed)
    else:
        check_labels(valid, labels)
        learned, kept = given, valid
    notes = _describe(given, valid, len(labels))
    notes.append(f"{len(learned.texts)} texts to learn from, {len(kept.texts)} to validate on")
    words = [written_words(text) for text in learned.texts]
    targets = _numbers(learned, labels)
    vocabulary = Vocabulary.learn(
        words, size=settings.vocab_size, min_count=settings.min_count, buckets=settings.buckets
    )
    if pretrained is not None:
        settings = pretrained.settings(settings)
        notes.append(_describe_pretrained(pretrained, vocabulary))
        vocabulary = pretrained.vocabulary(vocabulary)
    bayes = NaiveBayes.learn(words, targets, len(labels), settings.lexical_features)
    table = WordTable(vocabulary)
    texts = [shorten(table.add(text), settings.train_words) for text in words]
    cut = sum(len(text) > settings.train_words for text in words)
    if cut:
        notes.append(
            f"{cut} texts are longer than {settings.train_words} words: training sees their "
            "beginning and end, everything else the whole"
        )
    scores = np.stack([bayes.score(*pair) for pair in zip(words, targets, strict=True)])
    train_corpus = Corpus(table, texts, torch.from_numpy(scores), torch.tensor(targets))
    notes.append(f"{vocabulary.size - 1} words, {len(bayes.features)} words and pairs counted")
    training = training_settings(settings, -(-len(texts) // settings.batch_size))
    choose_device(training)
    return Plan(
        settings,
        training,
        tuple(labels),
        vocabulary,
        bayes,
        train_corpus,
        encode(kept.texts, vocabulary, bayes, torch.tensor(_numbers(kept, labels))),
        np.unique(fingerprints(given.texts)),
        _digest(learned, kept) + ("" if pretrained is None else pretrained.fingerprint),
        tuple(notes),
        pretrained,
    )


def _describe(given: Examples, valid: Examples | None, labels: int) -> list[str]:
    """What the examples are, and which of them are there more than once."""
    notes = [f"{len(given.texts)} texts, {labels} labels: {describe_balance(given.balance)}"]
    if copies := count_copies(given.texts):
        copied = "1 text is a copy" if copies == 1 else f"{copies} texts are copies"
        notes.append(f"{copied} of another one in {given.source}")
    if valid is not None:
        shared = np.isin(fingerprints(valid.texts), fingerprints(given.texts)).sum()
        if shared:
            notes.append(f"{shared} of {len(valid.texts)} validation texts are in training too")
    return notes


def _describe_pretrained(pretrained: Pretrained, vocabulary: Vocabulary) -> str:
    known = len(set(vocabulary.words) & set(pretrained.words))
    return (
        f"begins with the language model {pretrained.source}, which knows {known} of the "
        f"{len(vocabulary.words)} words here: {len(pretrained.layers)} × {pretrained.cell} of "
        f"{pretrained.hidden_size} units"
    )


def encode(
    texts: Sequence[str],
    vocabulary: Vocabulary,
    bayes: NaiveBayes,
    targets: torch.Tensor | None = None,
) -> Corpus:
    """Texts that nothing was learned from, as the network reads them."""
    table = WordTable(vocabulary)
    words = [written_words(text) for text in texts]
    scores = np.stack([bayes.score(text) for text in words])
    return Corpus(table, [table.add(text) for text in words], torch.from_numpy(scores), targets)


def learn(
    chosen: Plan, run: RunFolder | None, *, resume: bool, progress: bool
) -> tuple[Fitted, TrainingResult]:
    """Train what was planned, and find the temperature.

    run   folder for the log and the checkpoints; None for none
    """
    settings = chosen.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = SentimentNetwork(chosen.vocabulary.size, len(chosen.labels), settings)
    task = _task(chosen, network)
    result = train(
        task,
        chosen.training,
        folder=None if run is None else run.path,
        resume=resume,
        progress=progress,
    )
    network = network.to("cpu").eval()
    logits = all_logits(network, chosen.valid)
    assert chosen.valid.targets is not None
    temperature = find_temperature(logits, chosen.valid.targets)
    right = (logits.argmax(1) == chosen.valid.targets).double().mean()
    fitted = Fitted(
        chosen.labels,
        chosen.vocabulary,
        chosen.bayes,
        network,
        temperature,
        chosen.seen,
        result.record(chosen.training, valid_accuracy=round(float(right), 6)),
        chosen.notes,
    )
    return fitted, result


def _task(chosen: Plan, network: SentimentNetwork) -> SentimentTask:
    """Training from scratch, or from the language model on."""
    settings, pretrained = chosen.settings, chosen.pretrained
    given = network, chosen.train, chosen.valid, settings.batch_size, settings.seed
    if pretrained is None:
        return SentimentTask(*given)
    pretrained.load_into(network, chosen.vocabulary)
    task = FineTuning(*given)
    groups = settings.num_layers + 2  # the head, the layers, the vectors
    task.thaw = thaw_steps(task.steps_per_epoch, chosen.training.steps, groups)
    return task


def trained_on(chosen: Plan) -> tuple[Fingerprint, ...]:
    """What a resumed run must be given again: the table."""
    return (
        Fingerprint(
            "text",
            chosen.fingerprint,
            "on other texts; --resume needs the same table. Use it",
        ),
    )


def _numbers(examples: Examples, labels: Sequence[str]) -> list[int]:
    known = {label: k for k, label in enumerate(labels)}
    return [known[label] for label in examples.labels]


def _digest(*several: Examples) -> str:
    digest = hashlib.sha256()
    for examples in several:
        for part in (*examples.texts, *examples.labels):
            digest.update(hashlib.sha256(part.encode("utf-8", "replace")).digest())
    return digest.hexdigest()
