"""Charts of series over time: forecasts as fans, and what a detector saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recurra.errors import DataError
from recurra.report.drawing import COLOURS, INK, new_figure, style, time_axis, tint, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Fan:
    """Forecast quantiles after the history of one series, drawn as nested bands about the median.

    Shapes: times (n + h,) datetime64 or whole numbers, history (n,), quantiles (h, len(levels))
    at increasing levels, actual (h,) what happened then. NaN leaves a gap.
    """

    title: str
    times: npt.NDArray[Any]
    history: npt.NDArray[np.float64]
    levels: Sequence[float]
    quantiles: npt.NDArray[np.float64]
    actual: npt.NDArray[np.float64] | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        n, steps = len(self.history), len(self.quantiles)
        if len(self.times) != n + steps or self.quantiles.shape != (steps, len(self.levels)):
            raise ValueError(
                f"Fan {self.title!r}: times has {len(self.times)} entries, history {n}, quantiles "
                f"{self.quantiles.shape}; expected times ({n + steps},) and quantiles ({steps}, "
                f"{len(self.levels)})."
            )


def fan_charts(fans: Sequence[Fan]) -> Figure:
    """One panel for each fan, below each other.

    Raises: DataError when there is none to draw.
    """
    if not fans:
        raise DataError(
            "there is no forecast to draw; expected at least one series with a forecast."
        )
    with style():
        figure = new_figure(7.2, 3.4 if len(fans) == 1 else 2.6 * len(fans))
        for fan, axes in zip(fans, figure.subplots(len(fans), 1, squeeze=False)[:, 0], strict=True):
            _draw_fan(axes, fan)
        return figure


def _draw_fan(axes: Axes, fan: Fan) -> None:
    levels, quantiles = fan.levels, fan.quantiles
    ahead = fan.times[len(fan.history) :]
    axes.plot(
        fan.times[: len(fan.history)], fan.history, color=INK, linewidth=1.2, label="observed"
    )
    pairs = [(low, len(levels) - 1 - low) for low in range(len(levels) // 2)]
    for low, high in pairs:
        share = round(100 * (levels[high] - levels[low]))
        shade = {"color": tint(0.16 + 0.5 * low / len(pairs)), "label": f"{share} % interval"}
        _band(axes, ahead, quantiles[:, low], quantiles[:, high], shade)
    middle = len(levels) // 2
    name = "median" if levels[middle] == 0.5 else f"quantile {levels[middle]:g}"
    marker = "o" if len(ahead) == 1 else None
    axes.plot(
        ahead, quantiles[:, middle], color=COLOURS[0], marker=marker, linewidth=1.8, label=name
    )
    if fan.actual is not None:
        happened: dict[str, Any] = {
            "color": COLOURS[1],
            "linestyle": "--",
            "label": "what happened",
        }
        axes.plot(ahead, fan.actual, marker=marker, linewidth=1.3, **happened)
    time_axis(axes, fan.times)
    axes.set_title(fan.title)
    axes.set_ylabel(fan.unit)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _band(
    axes: Axes,
    times: npt.NDArray[Any],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    shade: dict[str, Any],
) -> None:
    if len(times) == 1:  # an area of one point has no width
        axes.vlines(times, low, high, linewidth=9, **shade)
    else:
        axes.fill_between(times, low, high, linewidth=0, **shade)


@dataclass(frozen=True)
class Watch:
    """A series as a detector saw it, drawn with its interval, its alarms and, below, its surprise.

    Shapes: times (n,) datetime64 or whole numbers; values, lower, upper, surprise and alarms (n,).
    NaN leaves a gap.
    """

    title: str
    times: npt.NDArray[Any]
    values: npt.NDArray[np.float64]
    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    surprise: npt.NDArray[np.float64]
    alarms: npt.NDArray[np.bool_]
    threshold: float
    anomalies: Sequence[tuple[int, int]] = ()
    """First and last row of what is labelled as anomalous, shaded."""

    def __post_init__(self) -> None:
        lengths = {
            name: len(getattr(self, name))
            for name in ("times", "values", "lower", "upper", "surprise", "alarms")
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"Watch {self.title!r}: {lengths}; expected the same number of each, one for a row."
            )


def watch_charts(watches: Sequence[Watch]) -> Figure:
    """Two panels for each series, below each other: values with alarms, and surprise.

    Raises: DataError when there is none to draw.
    """
    if not watches:
        raise DataError("there is no series to draw; expected at least one with a row.")
    with style():
        figure = new_figure(8.4, 3.4 * len(watches))
        panels = figure.subplots(
            2 * len(watches), 1, squeeze=False, height_ratios=[3, 1] * len(watches)
        )
        for number, watch in enumerate(watches):
            _draw_watch(panels[2 * number, 0], panels[2 * number + 1, 0], watch)
        return figure


def _draw_watch(upper: Axes, lower: Axes, watch: Watch) -> None:
    times = watch.times
    shade: dict[str, Any] = {"color": tint(0.25), "label": "interval"}
    low, high = _robust_range(watch)
    upper.fill_between(
        times,
        np.clip(watch.lower, low, high),
        np.clip(watch.upper, low, high),
        linewidth=0,
        rasterized=True,
        **shade,
    )
    upper.plot(times, watch.values, color=INK, linewidth=0.7, label="observed", rasterized=True)
    at = watch.alarms
    alarms: dict[str, Any] = {"color": COLOURS[1], "marker": "o", "linestyle": "none"}
    upper.plot(times[at], watch.values[at], markersize=5, label="alarm", zorder=3, **alarms)
    for number, (start, end) in enumerate(watch.anomalies):
        label = "labelled anomaly" if number == 0 else None
        upper.axvspan(times[start], times[end], color=COLOURS[4], alpha=0.3, lw=0, label=label)
    upper.set_title(watch.title)
    upper.tick_params(labelbottom=False)
    upper.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    lower.plot(times, watch.surprise, color=COLOURS[0], linewidth=0.8, rasterized=True)
    lower.axhline(watch.threshold, color=COLOURS[1], linewidth=0.9, linestyle="--")
    lower.set_ylim(
        0, max(1.1 * watch.threshold, 1.05 * float(np.nanmax(watch.surprise, initial=0)))
    )
    lower.set_ylabel("surprise")
    for axes in (upper, lower):
        if len(times) > 1 and times[0] != times[-1]:
            axes.set_xlim(times.min(), times.max())
    time_axis(lower, times)
    if times.dtype.kind != "M":
        whole_numbers(upper)


def _robust_range(watch: Watch) -> tuple[float, float]:
    """What the values span and a half more: an interval that is still wide must not hide them."""
    values = watch.values[np.isfinite(watch.values)]
    if not values.size:
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = 0.5 * (high - low) or 1.0
    return low - room, high + room
