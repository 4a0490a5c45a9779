"""One setting for all files of NAB, and what one chosen on half of them scores on the others.

The head watches every file once; the quantities that its return periods are taken of are kept, and
all settings that come after them are tried on these.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recurra.tasks.anomaly.alarm import WEIGHTS, AlarmHead
from recurra.tasks.anomaly.lanes import Array, State, Whole
from recurra.tasks.anomaly.nab import PROFILES, NabFile, NabScorer, worth
from recurra.tasks.anomaly.returns import LARGEST, ReturnPeriods
from recurra.tasks.anomaly.settings import AnomalySettings
from recurra.tasks.anomaly.table import clock_of
from recurra.tasks.anomaly.thresholds import raise_alarms
from recurra.tasks.anomaly.watch import Watch, watch_series

REFRACTORY = 0.2
"""Of the rows of probation, which the benchmark tells a detector."""
JUMP = 1.5
SPLITS = 50
_LARGEST = (20, 25, 30)
_MEMORY, _MEANS = (1.0, 2.0, 3.0), (0.25, 0.5, 1.0)
_REFRACTORY, _JUMP = (0.1, 0.2, 0.3), (1.0, 1.5, 2.0)
_THRESHOLDS = tuple(round(0.8 + 0.05 * n, 2) for n in range(13))


@dataclass(frozen=True)
class Trial:
    """The settings that a run on all files may differ in."""

    largest: int = LARGEST
    memory: float = WEIGHTS["memory"]
    means: float = WEIGHTS["means"]
    refractory: float = REFRACTORY
    jump: float = JUMP
    threshold: float = AlarmHead.threshold


class _Recorder:
    """Return periods that keep what they are asked about."""

    def __init__(self, periods: ReturnPeriods) -> None:
        self.periods, self.quantities = periods, periods.quantities
        self.asked: list[Array] = []

    def initial_state(self, lanes: int) -> State:
        return self.periods.initial_state(lanes)

    def run(self, state: State, values: Array, row: Whole) -> Array:
        self.asked.append(values.copy())
        return self.periods.run(state, values, row)


class NabTrials:
    """All files watched once, and any `Trial` on them afterwards."""

    def __init__(self, files: Sequence[NabFile]) -> None:
        self.files = sorted(files, key=lambda file: (-len(file.values), file.name))
        self.scorer = NabScorer(self.files)
        self.head = AlarmHead()
        recorder = _Recorder(self.head.returns)
        self.head.returns = recorder  # type: ignore[assignment]
        watch = Watch(self.head, 1, AnomalySettings())
        values = [file.values[:, None] for file in self.files]
        clocks = [clock_of(file.times) for file in self.files]
        watch_series(watch, watch.initial_state(len(values)), values, clocks)
        self._asked = recorder.asked  # pieces of rows: (T, files that still have rows, E)
        self._rare: dict[int, list[Array]] = {}
        self.worth = [worth(file) for file in self.files]

    def surprises(self, trial: Trial) -> list[Array]:
        """Surprise of every row of each file."""
        weights = {"level": WEIGHTS["level"], "memory": trial.memory, "means": trial.means}
        return [self.head.combine(rare, weights) for rare in self._returns(trial.largest)]

    def detections(self, trial: Trial, surprises: Sequence[Array]) -> list[Array]:
        """Surprise where an alarm is raised, else 0; a `refractory` < 1 is of the probation."""
        made = []
        for file, surprise in zip(self.files, surprises, strict=True):
            rows = trial.refractory * (file.probation if trial.refractory < 1 else 1)
            alarms = raise_alarms(surprise, trial.threshold, rows, trial.jump)
            made.append(np.where(alarms, surprise, 0.0))
        return made

    def parts(self, detections: Sequence[Array]) -> Array:
        """Worth, windows found and worth of false detections, for each file (58, 3)."""
        made = np.zeros((len(self.files), 3))
        for n, ((value, window), level) in enumerate(zip(self.worth, detections, strict=True)):
            at = np.flatnonzero(level > 0)
            best: dict[int, float] = {}
            for row in at[window[at] >= 0]:
                place = int(window[row])
                best[place] = max(best.get(place, -np.inf), float(value[row]))
            made[n] = sum(best.values()), len(best), value[at[window[at] == -1]].sum()
        return made

    def _returns(self, largest: int) -> list[Array]:
        """Surprises (n, E) of each file's quantities."""
        if largest not in self._rare:
            periods = ReturnPeriods(self._asked[0].shape[2], largest)
            state = periods.initial_state(len(self.files))
            made = [np.zeros((len(file.values), periods.quantities)) for file in self.files]
            start = 0
            for values in self._asked:
                count = values.shape[1]
                view = {name: array[:count] for name, array in state.items()}
                rare = periods.run(view, values, np.full(count, start))
                for n in range(count):
                    made[n][start : start + len(values)] = rare[:, n]
                start += len(values)
            self._rare[largest] = made
        return self._rare[largest]

    def grid(self) -> list[Trial]:
        """The settings that cross-validation may choose from."""
        every = itertools.product(_LARGEST, _MEMORY, _MEANS, _REFRACTORY, _JUMP, _THRESHOLDS)
        return [Trial(*values) for values in every]

    def thresholds(self) -> list[Trial]:
        """The settings that differ in the threshold alone."""
        return [Trial(threshold=threshold) for threshold in _THRESHOLDS]

    def cross_validated(
        self, trials: Sequence[Trial], seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Mean and deviation over splits of each profile's score on files not chosen by.

        For each of 50 splits of the files into halves, alike in folders, the trial with the best
        standard score on one half is scored on the other, both ways round. All profiles use it.
        """
        parts = np.zeros((len(trials), len(self.files), 3))
        surprises: list[Array] = []
        before: tuple[float, ...] = ()
        for n, trial in enumerate(trials):
            if (trial.largest, trial.memory, trial.means) != before:
                before = (trial.largest, trial.memory, trial.means)
                surprises = self.surprises(trial)
            parts[n] = self.parts(self.detections(trial, surprises))
        windows = np.array([len(file.windows) for file in self.files])
        rng = np.random.default_rng(seed)
        found: dict[str, list[float]] = {profile: [] for profile in PROFILES}
        for _ in range(SPLITS):
            half = self._half(rng)
            for chosen in (half, ~half):
                on_chosen = scores(parts[:, chosen].sum(axis=1), int(windows[chosen].sum()))
                best = int(np.argmax(on_chosen["standard"]))
                rest = scores(parts[best, ~chosen].sum(axis=0), int(windows[~chosen].sum()))
                for profile, value in rest.items():
                    found[profile].append(float(value))
        return {name: (float(np.mean(v)), float(np.std(v, ddof=1))) for name, v in found.items()}

    def _half(self, rng: np.random.Generator) -> np.ndarray:
        """Half of the files of each folder, by chance."""
        half = np.zeros(len(self.files), bool)
        folders = [file.folder for file in self.files]
        for folder in sorted(set(folders)):
            members = rng.permutation([n for n, name in enumerate(folders) if name == folder])
            more = int(rng.integers(2)) if len(members) % 2 else 0
            half[members[: len(members) // 2 + more]] = True
        return half


def scores(parts: Array, windows: int) -> Mapping[str, Array]:
    """Scores (...,) of each profile from sums (..., 3) as `NabTrials.parts` makes them."""
    made = {}
    for profile, (false, miss) in PROFILES.items():
        raw = parts[..., 0] + false * parts[..., 2] + miss * parts[..., 1]
        made[profile] = 100 * raw / (windows + miss * windows)
    return made
