"""The Numenta Anomaly Benchmark: its 58 files, and its scorer.

Detections in the first min(15 %, 750) rows of a file count nothing. A labelled window is worth its
earliest detection; with y(p) = 2 / (1 + e^{5p}) − 1 over the position p in or after a window,

    found    y(p) / y(−1),     p from −1 at the window's first row to −1/width at its last
    missed   −(weight of a miss)
    false    y(p) · weight,    p = rows since the end of the last window / (its width − 1);
                               −weight beyond p = 3, and before any window

and the score is 100 · (sum − sum of a detector that finds nothing) / (perfect − the same). One
threshold counts for all files of a profile: the best one, as the benchmark chooses it. Here every
threshold is tried, where the benchmark's own optimiser may stop in a local optimum.

Source: Lavin, Ahmad 2015, "Evaluating Real-Time Anomaly Detection Algorithms"; NAB 1.1, sweeper.py.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import erfc
from pathlib import Path

import numpy as np

from recurra.data.calendar import TimeValues
from recurra.errors import DataError
from recurra.tasks.anomaly.lanes import Array, Whole

ARCHIVE = "nab.tar.xz"
PROFILES = {"standard": (0.11, 1.0), "low_fp": (0.22, 1.0), "low_fn": (0.11, 2.0)}
"""Weight of a false detection and of a miss."""
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class NabFile:
    """One file: times and values (n,), windows as first and last row."""

    name: str
    times: TimeValues
    values: Array
    windows: tuple[tuple[int, int], ...]

    @property
    def folder(self) -> str:
        return self.name.split("/")[0]

    @property
    def probation(self) -> int:
        """Rows at the start in which nothing counts."""
        return min(int(0.15 * len(self.values)), 750)


def read_nab(folder: Path) -> list[NabFile]:
    """All files of the benchmark, by name, out of nab.tar.xz.

    Raises: DataError when the archive is not that of the benchmark.
    """
    path = folder / ARCHIVE
    try:
        raw = lzma.LZMADecompressor().decompress(path.read_bytes(), max_length=MOST_BYTES)
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            parts = {
                member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive.getmembers()
                if member.isfile()
            }
        windows = json.loads(parts["labels/combined_windows.json"])
        files = [
            _read_file(name.removeprefix("data/"), content, windows[name.removeprefix("data/")])
            for name, content in sorted(parts.items())
            if name.startswith("data/") and name.endswith(".csv")
        ]
    except (OSError, lzma.LZMAError, tarfile.TarError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not the archive of the benchmark ({type(error).__name__}: {error}); "
            "expected data/ and labels/ of NAB 1.1. Get the file again."
        ) from error
    if len(files) != 58:
        raise DataError(f"{path} holds {len(files)} files of data; expected the benchmark's 58.")
    return files


def _read_file(name: str, content: bytes, windows: Sequence[Sequence[str]]) -> NabFile:
    rows = list(csv.reader(io.StringIO(content.decode())))[1:]
    times = np.array([row[0] for row in rows], "datetime64[ns]")
    ends = [[_row_of(times, text) for text in pair] for pair in windows]
    values = np.array([float(row[1]) for row in rows])
    return NabFile(name, times, values, tuple((a, b) for a, b in ends))


def _row_of(times: TimeValues, text: str) -> int:
    found = np.flatnonzero(times == np.datetime64(text.split(".")[0], "ns"))
    if not len(found):
        raise ValueError(f"no row has the time {text}, where a window begins or ends")
    return int(found[0])


def sigmoid(position: Array) -> Array:
    """y: near 1 well before 0, −1 well after it."""
    return np.where(position > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(position, 3.0))) - 1)


def worth(file: NabFile) -> tuple[Array, Whole]:
    """What a detection at each row is worth (n,), and the window it lies in; -1 none, -2 uncounted.

    A false detection's worth is negative and still to be weighted.
    """
    count = len(file.values)
    rows = np.arange(count)
    value, window = np.full(count, -1.0), np.full(count, -1)
    for number, (start, end) in enumerate(file.windows):
        width = end - start + 1
        inside = rows[start : end + 1]
        window[inside] = number
        value[inside] = sigmoid(-(end - inside + 1) / width) / sigmoid(np.array(-1.0))
        later = file.windows[number + 1][0] if number + 1 < len(file.windows) else count
        after = rows[end + 1 : later]
        value[after] = sigmoid((after - end) / (width - 1.0))
    window[: file.probation] = -2
    return value, window


@dataclass(frozen=True)
class Swept:
    """The score of a profile and the threshold that it is reached at."""

    score: float
    threshold: float


class NabScorer:
    """Scores detectors on a fixed set of files."""

    def __init__(self, files: Sequence[NabFile]) -> None:
        self.files = list(files)
        self._worth = [worth(file) for file in self.files]
        self.windows = sum(len(file.windows) for file in self.files)

    def sweep(
        self, scores: Sequence[Array], chosen: Iterable[int] | None = None
    ) -> dict[str, Swept]:
        """The best score of each profile over all thresholds, on the `chosen` files.

        scores   one array for each file, high = strange; rows of 0 are never detections
        """
        levels, totals = self._curves(scores, chosen)
        found = {}
        for profile, values in totals.items():
            best = int(np.argmax(values))
            found[profile] = Swept(float(values[best]), float(levels[best]))
        return found

    def at(
        self, scores: Sequence[Array], threshold: float, chosen: Iterable[int] | None = None
    ) -> dict[str, float]:
        """The score of each profile at one threshold, on the `chosen` files."""
        levels, totals = self._curves(scores, chosen)
        place = int(np.flatnonzero(levels >= threshold)[-1])
        return {profile: float(values[place]) for profile, values in totals.items()}

    def _curves(
        self, scores: Sequence[Array], chosen: Iterable[int] | None
    ) -> tuple[Array, Mapping[str, Array]]:
        """Thresholds from +∞ downwards (K,), and each profile's score at them (K,)."""
        picked = list(range(len(self.files)) if chosen is None else chosen)
        parts, windows = [], 0
        for n in picked:
            value, window = self._worth[n]
            used = (window > -2) & (scores[n] > 0)
            named = np.where(window[used] >= 0, window[used] + windows, -1)
            parts.append((scores[n][used], value[used], named))
            windows += len(self.files[n].windows)
        level, value, window = (np.concatenate([part[k] for part in parts]) for k in range(3))
        order = np.argsort(-level, kind="stable")
        level, value, window = level[order], value[order], window[order]
        gain, found = _gains(value, window, windows)
        last = np.append(level[1:] != level[:-1], True)[: len(level)]
        levels = np.concatenate([[np.inf], level[last]])
        sums = [
            np.concatenate([[0.0], np.cumsum(part)[last]])
            for part in (gain, found, np.where(window < 0, value, 0.0))
        ]
        totals = {}
        for profile, (false, miss) in PROFILES.items():
            raw = sums[0] + false * sums[2] - miss * (windows - sums[1])
            totals[profile] = 100 * (raw + miss * windows) / (windows + miss * windows)
        return levels, totals


def _gains(value: Array, window: Whole, windows: int) -> tuple[Array, Array]:
    """What each detection adds to its window's worth, and whether it is the first one in it."""
    gain, first = np.zeros(len(value)), np.zeros(len(value))
    best = np.full(windows, -np.inf)
    for n in np.flatnonzero(window >= 0):
        at = window[n]
        if value[n] > best[at]:
            first[n] = best[at] == -np.inf
            gain[n] = value[n] - (0.0 if first[n] else best[at])
            best[at] = value[n]
    return gain, first


def windowed_gaussian(values: Array, window: int = 6400, step: int = 100) -> Array:
    """NAB's windowed Gaussian: 1 − tail probability, in a window of earlier rows moved in steps.

    The benchmark's authors tuned its window on this corpus; it is here to check the scorer.
    """
    row = np.arange(len(values))
    moved = np.maximum(row - window, 0) // step * step
    end = np.minimum(row, window + moved)
    level = values - values[0]
    sums, squares = (np.concatenate([[0.0], np.cumsum(part)]) for part in (level, level**2))
    count = np.maximum(end - moved, 1)
    mean = (sums[end] - sums[moved]) / count
    variance = np.maximum((squares[end] - squares[moved]) / count - mean**2, 0.0)
    deviation = np.where(variance > 1e-12, np.sqrt(variance), 1e-6)
    scores = 1 - 0.5 * np.vectorize(erfc)(np.abs(level - mean) / deviation / 1.4142)
    scores[0] = 0.0
    return np.asarray(scores)
