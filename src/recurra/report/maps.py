"""Charts whose colours are numbers: gradients over training and time, sound over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recurra.errors import DataError
from recurra.report.drawing import COLOURS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class HeatMap:
    """Positive numbers over time and training steps, drawn by their logarithm.

    Shapes: steps (N,) and times (T,), both rising; values (N, T). NaN leaves a gap, 0 has the
    darkest colour.
    """

    title: str
    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.steps), len(self.times)):
            raise ValueError(
                f"HeatMap {self.title!r}: values has shape {self.values.shape}; expected "
                f"({len(self.steps)}, {len(self.times)}), for steps and times."
            )


def heat_maps(maps: Sequence[HeatMap], label: str) -> Figure:
    """One panel for each map, below each other: training steps to the right, time upwards.

    `label` says what the colours are; all panels share them, over at most 12 decades.
    Raises: DataError when there is none to draw.
    """
    if not any(each.values.size for each in maps):
        raise DataError("there is no heat map to draw; expected one with at least one value.")
    with style():
        figure = new_figure(7.2, 0.6 + 2.3 * len(maps))
        low, high = _decades(maps)
        panels = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
        for each, axes in zip(maps, panels, strict=True):
            with np.errstate(divide="ignore"):
                logs = np.maximum(np.log10(each.values.T), low)  # NaN stays
            drawn = axes.pcolormesh(
                _edges(each.steps),
                _edges(each.times),
                np.ma.masked_invalid(logs),
                cmap="viridis",
                vmin=low,
                vmax=high,
                rasterized=True,
            )
            axes.grid(False)
            axes.set_facecolor("#e3e7eb")
            axes.set_title(each.title)
            axes.set_ylabel("time step")
            figure.colorbar(drawn, ax=axes, label=label)
        panels[-1].set_xlabel("training step")
        return figure


def _decades(maps: Sequence[HeatMap]) -> tuple[float, float]:
    """The logarithms that the colours begin and end with."""
    values = np.concatenate([each.values.ravel() for each in maps])
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return -1.0, 0.0
    high = float(np.log10(values.max()))
    low = max(float(np.log10(values.min())), high - 12)
    return (low, high) if low < high else (high - 1, high)


def _edges(centres: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Borders of the cells around these numbers, half-way between them."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middles = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - middles[0], 2 * centres[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])


@dataclass(frozen=True)
class Alignment:
    """What a speech model says while a recording goes on, drawn below its spectrogram.

    Shapes: features (T, bins), one row each 10 ms; probabilities (steps, len(labels)) of characters
    and blank (steps,), one row each `step_s` seconds.
    """

    title: str
    features: npt.NDArray[np.float64]
    step_s: float
    labels: Sequence[str]
    probabilities: npt.NDArray[np.float64]
    blank: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.probabilities.shape != (len(self.blank), len(self.labels)):
            raise ValueError(
                f"Alignment {self.title!r}: probabilities has shape {self.probabilities.shape}; "
                f"expected ({len(self.blank)}, {len(self.labels)}), for steps and labels."
            )


def alignment_chart(alignment: Alignment) -> Figure:
    """Two panels: the log-mel spectrogram, and each character's probability at its moment."""
    with style():
        figure = new_figure(8.4, 4.6)
        upper, lower = figure.subplots(2, 1, sharex=True)
        seconds = len(alignment.features) / 100
        upper.imshow(
            alignment.features.T,
            aspect="auto",
            origin="lower",
            cmap="magma",
            extent=(0, seconds, 0, alignment.features.shape[1]),
            rasterized=True,
        )
        upper.grid(False)
        upper.set_ylabel("mel bin")
        upper.set_title(alignment.title)
        times = (np.arange(len(alignment.blank)) + 0.5) * alignment.step_s
        lower.plot(times, alignment.blank, color="#b8bfc6", linewidth=0.9, label="blank")
        columns = alignment.probabilities.T
        for number, (label, values) in enumerate(zip(alignment.labels, columns, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            lower.plot(times, values, color=colour, linewidth=1.3)
            for at in _peaks(values):
                shown = "␣" if label == " " else label
                lower.annotate(
                    shown, (times[at], values[at]), xytext=(0, 2), color=colour,
                    textcoords="offset points", ha="center",
                )  # fmt: skip
        lower.set_ylim(0, 1.15)
        lower.set_xlim(0, seconds)
        lower.set_xlabel("seconds")
        lower.set_ylabel("probability")
        lower.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def _peaks(values: npt.NDArray[np.float64], least: float = 0.3) -> list[int]:
    """The largest value of each stretch that lies above `least`."""
    above = np.flatnonzero(values >= least)
    stretches = np.split(above, np.flatnonzero(np.diff(above) > 1) + 1)
    return [int(run[values[run].argmax()]) for run in stretches if len(run)]
