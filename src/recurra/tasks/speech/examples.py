"""Recordings made ready for training: looked through one by one, their features kept on disk."""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recurra.data.audio import AudioFiles, Samples, Sound, change_speed, decode
from recurra.data.logmel import WINDOW_S, Features, frames_of, log_mel
from recurra.data.recordings import Recording, given_recordings
from recurra.decoding.ctc import frames_needed
from recurra.decoding.transducer import MOST
from recurra.errors import DataError
from recurra.runs import explained
from recurra.tasks.speech.settings import SpeechSettings
from recurra.tasks.speech.spelling import Spelling, unit_of

SILENT = 1e-3
"""Largest sample, of full scale 1, of a recording that counts as silence: -60 dB."""
CLIPPED = 1e-3
"""Share of samples at full scale from which a recording counts as clipped."""
SMALLEST = 0.1
"""Least standard deviation that a feature is divided by, in nats of power."""
LISTED = 10
"""Findings that a message lists; more are counted."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with one recording; `fatal` when it cannot be used at all."""

    row: int
    name: str
    problem: str
    fatal: bool

    def __str__(self) -> str:
        return f"row {self.row}, {self.name}: {self.problem}"


@dataclass(frozen=True)
class Example:
    """One recording in the store: its labels, and where its features are, one for each speed."""

    text: str
    labels: tuple[int, ...]
    begins: tuple[int, ...]
    frames: tuple[int, ...]


@dataclass
class Store:
    """Features of many recordings in one nameless file, mapped into memory.

    digest    SHA-256 over what was put in, to know the same data again
    seconds   of sound, at its own speed
    """

    bins: int
    content: mmap.mmap | bytes = field(default=b"", repr=False)
    examples: list[Example] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    digest: str = ""
    seconds: float = 0.0

    def features(self, example: Example, speed: int = 0) -> Features:
        """The features (T, bins) of an example at one of its speeds, by number."""
        frames = example.frames[speed]
        begin, count = example.begins[speed], frames * self.bins
        values = np.frombuffer(self.content, np.float32, count, begin).reshape(frames, self.bins)
        return values.copy()

    def longest_first(self) -> list[Example]:
        """The examples by falling length."""
        return sorted(self.examples, key=lambda one: -one.frames[0])

    def statistics(self) -> tuple[Features, Features]:
        """Mean and standard deviation (bins,) of all frames at their own speed."""
        count, total, squares = 0, np.zeros(self.bins), np.zeros(self.bins)
        for example in self.examples:
            values = self.features(example).astype(np.float64)
            count += len(values)
            total += values.sum(0)
            squares += np.square(values).sum(0)
        mean = total / count
        # Bins that never change, as above the band of a telephone, stay small when they do.
        deviation = np.sqrt(np.maximum(squares / count - mean**2, SMALLEST**2))
        return mean.astype(np.float32), deviation.astype(np.float32)


def fill(
    recordings: Sequence[Recording],
    files: AudioFiles,
    settings: SpeechSettings,
    spelling: Spelling,
    *,
    speeds: Sequence[float],
    folder: Path | None = None,
) -> Store:
    """Read all recordings, look them through, and keep the features of those that can be used.

    speeds   the first is the sound's own, 1; others are added
    folder   where the features lie while they are used; None for the system's temporary folder

    Raises: MissingExtraError without the packages, RunError when the disk is full.
    """
    digest = hashlib.sha256()
    store = Store(settings.bins)
    where = folder or Path(tempfile.gettempdir())
    with explained(where, "write"), tempfile.TemporaryFile(dir=where) as file:
        for recording in recordings:
            sound, problems = examine(recording, files, settings, spelling)
            store.findings += problems
            if sound is None:
                continue
            encoded = spelling.encode(recording.text)
            needed = _steps_needed(encoded, settings) * settings.stacked
            begins: list[int] = []
            frames: list[int] = []
            for samples in _at_speeds(sound, settings.sample_rate, speeds):
                # A faster copy may be too short for its text, and is then left out.
                if frames and frames_of(len(samples), settings.sample_rate) < needed:
                    continue
                features = log_mel(samples, settings.sample_rate, settings.bins)
                begins.append(file.tell())
                frames.append(len(features))
                file.write(features.tobytes())
            store.examples.append(Example(recording.text, encoded, tuple(begins), tuple(frames)))
            store.seconds += len(sound) / settings.sample_rate
            digest.update(f"{recording.text}\n{len(sound)}\n".encode())
            digest.update(sound.tobytes())
        file.flush()
        if store.examples:
            store.content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    store.digest = digest.hexdigest()
    return store


def examine(
    recording: Recording, files: AudioFiles, settings: SpeechSettings, spelling: Spelling
) -> tuple[Samples | None, list[Finding]]:
    """(the samples, None when they cannot be used; what is wrong with the recording)."""
    try:
        sound = load(recording, files, settings.sample_rate)
    except DataError as error:
        return None, [Finding(recording.row, recording.name, str(error).rstrip("."), True)]
    problems = [
        Finding(recording.row, recording.name, problem, fatal)
        for problem, fatal in _problems(recording.text, sound, settings, spelling)
    ]
    is_usable = not any(problem.fatal for problem in problems)
    return (sound.samples if is_usable else None), problems


def load(recording: Recording, files: AudioFiles, sample_rate: int) -> Sound:
    """The sound of a row. Raises: DataError when it cannot be read."""
    if isinstance(recording.audio, str):
        return decode(files.read(recording.audio), sample_rate, name="it")
    samples = recording.audio
    peak = float(np.abs(samples).max(initial=0))
    clipped = float((np.abs(samples) >= 1).mean()) if len(samples) else 0.0
    return Sound(samples, sample_rate, sample_rate, 1, peak, clipped)


def read_noises(noises: Sequence[Any], settings: SpeechSettings) -> tuple[list[Features], str]:
    """(features of recordings of noise, a digest of them).

    noises   paths of files, or arrays of samples at the model's rate
    Raises: DataError naming what cannot be read, or is shorter than a frame.
    """
    digest, found = hashlib.sha256(), []
    files = AudioFiles()
    for row in given_recordings([(one, "noise") for one in noises]) if noises else ():
        sound = load(row, files, settings.sample_rate)
        features = log_mel(sound.samples, settings.sample_rate, settings.bins)
        if not len(features):
            raise DataError(
                f"the noise {row.name} is too short: {sound.seconds:.3f} s; expected at least "
                f"{WINDOW_S} s."
            )
        digest.update(sound.samples.tobytes())
        found.append(features)
    return found, digest.hexdigest() if found else ""


def refuse(store: Store, source: str, count: int, skip_bad: bool) -> None:
    """Raise a DataError that lists the recordings that cannot be used, unless they may be skipped.

    With `skip_bad` it is raised only when none is left.
    """
    fatal = [finding for finding in store.findings if finding.fatal]
    if not fatal or (skip_bad and store.examples):
        return
    listed = "; ".join(map(str, fatal[:LISTED]))
    more = f"; and {len(fatal) - LISTED} more" if len(fatal) > LISTED else ""
    bad = len({finding.row for finding in fatal})
    advice = "Correct them, or leave them out with skip_bad=True (--skip-bad)."
    if not store.examples:
        advice = "None is left."
    raise DataError(
        f"{bad} of {count} recordings of {source} cannot be used: {listed}{more}. {advice}"
    )


def _problems(
    text: str, sound: Sound, settings: SpeechSettings, spelling: Spelling
) -> Iterator[tuple[str, bool]]:
    if sound.peak < SILENT:
        yield f"is silent: its largest sample is {sound.peak:.2g} of full scale", True
    if sound.clipped >= CLIPPED:
        yield f"is clipped: {100 * sound.clipped:.1f} % of its samples are at full scale", False
    if not text:
        yield "has no transcript", True
        return
    if strange := spelling.strange(text):
        yield f"has characters outside the alphabet: {strange!r}", True
        return
    labels = spelling.encode(text)
    needed = _steps_needed(labels, settings)
    steps = frames_of(len(sound.samples), sound.sample_rate) // settings.stacked
    if steps < needed:
        reason = "one each and one between two equal ones"
        if settings.criterion == "transducer":
            reason = f"one for up to {MOST}"
        yield (
            f"is too short for its text: {sound.seconds:.2f} s are {steps} steps of the network, "
            f"and {len(labels)} {unit_of(settings)} need {needed}, {reason}",
            True,
        )


def _steps_needed(labels: Sequence[int], settings: SpeechSettings) -> int:
    """Fewest steps that can say the labels."""
    if settings.criterion == "transducer":
        return max(1, -(-len(labels) // MOST))
    return frames_needed(labels)


def _at_speeds(samples: Samples, sample_rate: int, speeds: Sequence[float]) -> Iterator[Samples]:
    for speed in speeds:
        yield samples if speed == 1 else change_speed(samples, sample_rate, speed)
