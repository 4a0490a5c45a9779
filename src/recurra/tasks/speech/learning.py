"""From recordings to a fitted transcriber: checks, features, training, what is kept of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recurra.data.audio import AudioFiles
from recurra.data.logmel import Features
from recurra.data.recordings import Recording
from recurra.errors import ConfigError, DataError
from recurra.runs import RunFolder
from recurra.tasks.speech.examples import (
    Finding,
    Store,
    fill,
    read_noises,
    refuse,
)
from recurra.tasks.speech.fitted import Fitted
from recurra.tasks.speech.fitting import Network, SpeechTask, make_network
from recurra.tasks.speech.settings import TRAINING, Design, SpeechSettings, decide
from recurra.tasks.speech.spelling import find_spelling, unit_of
from recurra.training.learner import choose_device
from recurra.training.loop import TrainingResult, train
from recurra.training.same_fit import Fingerprint
from recurra.training.settings import TrainingSettings, common_values

MOST_HELD_OUT = 200
"""Recordings that are kept for validation at most, where none are given for it."""
BLANK = 0.995
"""Share of blanks from which a network counts as saying nothing."""


@dataclass(frozen=True)
class Source:
    """Recordings, where their files are, and how the table is called in messages."""

    recordings: Sequence[Recording]
    files: AudioFiles
    name: str


@dataclass(frozen=True)
class Plan:
    """Everything that training needs, checked: nothing has been trained or written yet."""

    design: Design
    training: TrainingSettings
    network: Network
    train: Store
    valid: Store | None
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    noises: tuple[Features, ...]
    noise_digest: str

    @property
    def fingerprint(self) -> str:
        """Of all texts and sound."""
        valid = "" if self.valid is None else self.valid.digest
        return self.train.digest + valid + self.noise_digest


def training_settings(
    settings: SpeechSettings, validate_every: int | None = None
) -> TrainingSettings:
    """Settings of the training loop. Raises: ConfigError when they contradict each other."""
    values = {**TRAINING, **common_values(settings)}
    if validate_every is not None:
        values["validate_every"] = validate_every
    return TrainingSettings(**{**values, **settings.training})


def plan(
    source: Source,
    valid_source: Source | None,
    settings: SpeechSettings,
    *,
    noise: Sequence[Any] = (),
    skip_bad: bool = False,
    folder: Path | None = None,
) -> Plan:
    """Look all recordings through, make their features, and an untrained network.

    valid_source   recordings to stop by; None for the last rows of `source`
    noise          recordings of noise to mix in, if `noise_db` says how loud
    skip_bad       leave out what cannot be used
    folder         where the features lie while training runs

    Raises: DataError for recordings that cannot be used, ConfigError for settings.
    """
    training_settings(settings)
    noises, noise_digest = read_noises(noise, settings)
    if noises and settings.noise_db is None:
        raise ConfigError(
            f"{len(noises)} recordings of noise are given, and noise_db does not say how loud they "
            "are. Set it, as noise_db=[5, 30]: the sound is so many dB above the noise."
        )
    spelling = find_spelling(source.recordings, settings)
    if spelling is None:
        raise DataError(f"no recording of {source.name} has a transcript; expected texts.")

    def store_of(given: Source, *speeds: float) -> Store:
        made = fill(given.recordings, given.files, settings, spelling, speeds=speeds, folder=folder)
        refuse(made, given.name, len(given.recordings), skip_bad)
        return made

    source, valid_source = _hold_out(source, valid_source, settings.validation)
    speeds = [speed for speed in dict.fromkeys(settings.speeds) if speed != 1]
    train_store = store_of(source, 1.0, *speeds)
    valid_store = None if valid_source is None else store_of(valid_source, 1.0)
    design = decide(settings, spelling.pieces)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = make_network(design)
    # About once an epoch; more seldom where the validation is long beside the training.
    updates = max(1, len(train_store.examples) // settings.batch_size)
    share = 0.0 if valid_store is None else valid_store.seconds / train_store.seconds
    training = training_settings(settings, max(20, updates, round(updates * share / 0.15)))
    choose_device(training)
    findings = [*train_store.findings, *(valid_store.findings if valid_store else ())]
    return Plan(
        design,
        training,
        network,
        train_store,
        valid_store,
        _notes(design, network, train_store, valid_store, unit_of(settings)),
        tuple(findings),
        tuple(noises),
        noise_digest,
    )


def _hold_out(
    source: Source, valid_source: Source | None, share: float
) -> tuple[Source, Source | None]:
    """Keep the last rows for validation, where nothing else is given for it."""
    if valid_source is not None or share == 0:
        return source, valid_source
    rows = source.recordings
    kept = min(MOST_HELD_OUT, max(1, round(share * len(rows))))
    if kept >= len(rows):
        raise DataError(
            f"{source.name} has {len(rows)} recording(s), too few to keep one for validation. Give "
            "more, give recordings for validation, or set validation=0."
        )
    return (
        Source(rows[: len(rows) - kept], source.files, source.name),
        Source(rows[len(rows) - kept :], source.files, source.name),
    )


def learn(
    chosen: Plan, settings: SpeechSettings, run: RunFolder | None, *, resume: bool, progress: bool
) -> tuple[Fitted, TrainingResult]:
    """Train what was planned. With `run`, log and checkpoints go there."""
    mean, deviation = map(torch.from_numpy, chosen.train.statistics())
    task = SpeechTask(
        chosen.network,
        chosen.train,
        chosen.valid,
        chosen.design,
        settings,
        mean,
        deviation,
        [torch.from_numpy(features) for features in chosen.noises],
    )
    result = train(
        task,
        chosen.training,
        folder=None if run is None else run.path,
        resume=resume,
        progress=progress,
    )
    notes = chosen.notes
    if task.blank_share is not None and task.blank_share >= BLANK:
        notes = (*notes, _explain_blanks(task.blank_share, result.steps, chosen.training))
    texts = Counter(example.text for example in chosen.train.examples)
    fitted = Fitted(
        chosen.design,
        chosen.network.to("cpu").eval(),
        mean,
        deviation,
        min(texts, key=lambda text: (-texts[text], text)),
        result.record(chosen.training),
        notes,
    )
    return fitted, result


def _explain_blanks(share: float, steps: int, training: TrainingSettings) -> str:
    return (
        f"warning: at the end of training {100 * share:.1f} % of all steps say nothing (blank). "
        f"Every network of this kind begins so; {steps} steps were too few to get beyond it here. "
        "Train longer; if that does not help, lower learning_rate "
        f"({training.learning_rate:g}), and "
        "check that transcripts belong to their recordings"
    )


def _notes(
    design: Design, network: Network, train_store: Store, valid_store: Store | None, unit: str
) -> tuple[str, ...]:
    parameters = sum(p.numel() for p in network.parameters())
    kind = "streaming" if design.streaming else "bidirectional"
    ahead = ""
    if design.streaming:
        ahead = f", looks {1000 * design.steps_ahead * design.step_s:.0f} ms ahead"
    kind_of_loss = ", a transducer" if design.criterion == "transducer" else ""
    notes = [
        f"{len(train_store.examples)} recordings, {train_store.seconds / 60:.1f} minutes, "
        f"{len(design.alphabet)} {unit}",
        f"{kind}: {design.num_layers} × {design.cell} of {design.hidden_size} units, "
        f"{parameters} parameters{ahead}{kind_of_loss}",
    ]
    if valid_store is None:
        notes.append("no recordings are kept for validation; the last weights count")
    else:
        notes.append(
            f"validated on {len(valid_store.examples)} recordings, "
            f"{valid_store.seconds / 60:.1f} minutes"
        )
    return tuple(notes)


def trained_on(chosen: Plan) -> tuple[Fingerprint, ...]:
    """What a resumed run must be given again: the recordings."""
    return (
        Fingerprint(
            "recordings",
            chosen.fingerprint,
            "on other recordings; --resume needs the same in the same order. Use them",
        ),
    )
