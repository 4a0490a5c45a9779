"""From text files to a fitted language model: tokens, design, training, what is kept of it."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recurra.data.corpus import Corpus, read_corpus
from recurra.data.textfiles import check_files
from recurra.data.tokenizer import Tokenizer, train_tokenizer
from recurra.errors import DataError
from recurra.nn.language import LanguageNetwork
from recurra.runs import RunFolder
from recurra.tasks.language.fitted import Fitted, make_network
from recurra.tasks.language.fitting import LanguageTask
from recurra.tasks.language.samples import SampleLog
from recurra.tasks.language.settings import Design, LanguageSettings, decide, training_values
from recurra.training.bptt import StreamBatches
from recurra.training.checkpoint import CheckpointFolder
from recurra.training.learner import choose_device
from recurra.training.loop import TrainingResult, train
from recurra.training.same_fit import Fingerprint
from recurra.training.settings import TrainingSettings, common_values

MOST_KEPT = 200_000
"""Tokens at the end of a text that are kept for validation at most; more would only take time."""
_SCALE_WINDOWS = 20
"""Windows of training text over which the size of gradients is measured."""


@dataclass(frozen=True)
class Plan:
    """Everything that training needs, checked: nothing has been trained or written yet.

    train, valid   token ids to learn from, and to stop by; valid None for none
    fingerprint    of all the text
    """

    tokenizer: Tokenizer
    design: Design
    training: TrainingSettings
    network: LanguageNetwork
    batches: StreamBatches
    valid: Tensor | None
    counts: Tensor
    fingerprint: str
    notes: tuple[str, ...]


def training_settings(
    settings: LanguageSettings, validate_every: int | None = None
) -> TrainingSettings:
    """Settings of the training loop. Raises: ConfigError when they contradict each other."""
    values = common_values(settings)
    if validate_every is not None:
        values["validate_every"] = validate_every
    return TrainingSettings(**{**values, **training_values(settings)})


def plan(
    paths: Sequence[Path],
    valid_paths: Sequence[Path],
    settings: LanguageSettings,
    folder: Path | None = None,
) -> Plan:
    """Learn the vocabulary, read the text, and make an untrained network.

    valid_paths   text to stop by; none for the end of the training text
    folder        where the token ids are kept while training runs

    Raises: DataError for text that cannot be read or is too short, ConfigError for settings.
    """
    check_files(paths)
    decide(settings)
    training_settings(settings)
    tokenizer = train_tokenizer(settings.tokens, paths, settings.vocab_size)
    design = decide(settings, tokenizer.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = make_network(tokenizer.vocab_size, design)
    corpus = read_corpus(paths, tokenizer, folder=folder)
    fingerprint = corpus.fingerprint
    ids, reset, valid = corpus.ids, corpus.resets(), None
    if valid_paths:
        kept = read_corpus(valid_paths, tokenizer, folder=folder)
        valid, fingerprint = kept.ids, fingerprint + kept.fingerprint
    elif settings.validation > 0:
        ids, reset, valid = _keep_back(ids, reset, settings)
    batches = _batches(ids, reset, design, corpus)
    per_step = design.batch_size * batches.k1
    # A validation costs a third of training on as much text; together they stay near a twentieth.
    every = None if valid is None else max(20, round(len(valid) / per_step / 0.15))
    training = training_settings(settings, every)
    choose_device(training)
    parameters = sum(p.numel() for p in network.parameters())
    notes = [
        f"{corpus.tokens} tokens ({tokenizer.kind}), vocabulary of {tokenizer.vocab_size}",
        f"{design.num_layers} × {design.cell} of {design.hidden_size} units, "
        f"{parameters} parameters",
    ]
    if valid is None:
        notes.append("no text is kept for validation; the last weights count")
    counts = torch.from_numpy(corpus.counts)
    return Plan(
        tokenizer, design, training, network, batches, valid, counts, fingerprint, tuple(notes)
    )


def _keep_back(
    ids: Tensor, reset: Tensor | None, settings: LanguageSettings
) -> tuple[Tensor, Tensor | None, Tensor]:
    """(ids to learn from, where they begin anew, ids that are kept): the end of each part."""
    kept = min(MOST_KEPT, max(2, round(settings.validation * len(ids))))
    if settings.validation_parts == 1:  # views: the text may be larger than memory
        learned = len(ids) - kept
        return ids[:learned], None if reset is None else reset[:learned], ids[learned:]
    size = len(ids) // settings.validation_parts
    each = -(-kept // settings.validation_parts)
    if size <= each:
        raise DataError(
            f"the text has {len(ids)} tokens; expected more than {each} in each of "
            f"validation_parts={settings.validation_parts} parts. Give more text, or fewer parts."
        )
    is_kept = torch.zeros(len(ids), dtype=torch.bool)
    anew = torch.zeros(len(ids), dtype=torch.bool) if reset is None else reset.clone()
    for end in range(size, len(ids) + 1, size):
        is_kept[end - each : end] = True
        anew[end : end + 1] = True  # the text before it was kept
    return ids[~is_kept], anew[~is_kept], ids[is_kept]


def _batches(ids: Tensor, reset: Tensor | None, design: Design, corpus: Corpus) -> StreamBatches:
    if len(ids) <= 2 * design.batch_size:
        raise DataError(
            f"{corpus.documents[0].path} and the other texts have {len(ids) - 1} tokens to learn "
            f"from; expected more than {2 * design.batch_size}, two for each of batch_size="
            f"{design.batch_size} streams. Give more text, or a smaller batch_size."
        )
    return StreamBatches(ids, batch_size=design.batch_size, k1=design.k1, k2=design.k2, reset=reset)


def learn(
    chosen: Plan, run: RunFolder | None, *, resume: bool, progress: bool
) -> tuple[Fitted, TrainingResult]:
    """Train what was planned. With `run`, log, samples and checkpoints go there."""
    is_new = run is None or CheckpointFolder(run.checkpoints).newest() is None
    cpu_started = clock.process_time()
    samples = None
    if run is not None:
        samples = SampleLog(run.samples_path, chosen.tokenizer, chosen.network, chosen.counts)
    task = LanguageTask(
        chosen.network,
        chosen.batches,
        chosen.valid,
        chosen.design,
        None if samples is None else samples.add,
    )
    try:
        if samples is not None:
            samples.open(resume)
        result = train(
            task,
            chosen.training,
            folder=None if run is None else run.path,
            resume=resume,
            progress=progress,
        )
    finally:
        if samples is not None:
            samples.close()
    # Of all threads together: what it cost, also where it had to wait for others.
    cpu_seconds = round(clock.process_time() - cpu_started, 3)
    network = chosen.network.to("cpu").eval()
    fitted = Fitted(
        chosen.tokenizer,
        chosen.design,
        network,
        chosen.counts,
        gradient_scale(network, chosen.batches),
        result.record(chosen.training, cpu_seconds=cpu_seconds if is_new else None),
        chosen.notes,
    )
    return fitted, result


def gradient_scale(network: LanguageNetwork, batches: StreamBatches) -> dict[str, Tensor]:
    """The root mean square of each parameter's gradient, over single windows of single streams."""
    named = dict(network.named_parameters())
    squares = {name: torch.zeros_like(p) for name, p in named.items()}
    windows = min(_SCALE_WINDOWS, batches.updates)
    with torch.enable_grad():
        for number in range(windows):
            batch = batches.batch(number * batches.updates // windows)
            row = number % batches.batch_size
            reset = None if batch.reset is None else batch.reset[row, None]
            features, _ = network(batch.inputs[row, None], None, reset)
            counted = batch.targets.shape[1]
            nll = network.nll(features[:, -counted:], batch.targets[row, None]).mean()
            gradients = torch.autograd.grad(nll, list(named.values()))
            for square, gradient in zip(squares.values(), gradients, strict=True):
                square.addcmul_(gradient, gradient, value=1 / windows)
    return {name: square.sqrt() for name, square in squares.items()}


def trained_on(chosen: Plan) -> tuple[Fingerprint, ...]:
    """What a resumed run must be given again: the text."""
    return (
        Fingerprint(
            "text",
            chosen.fingerprint,
            "on other text; --resume needs the same files in the same order. Use them",
        ),
    )
