"""Charts of a report, drawn without a display and the same to the byte for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recurra.errors import ConfigError, DataError, MissingExtraError, unknown
from recurra.runs import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, without yellow: distinct with every common colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_INK = "#1b1f24"
_QUIET = "#6e7781"
_FORMATS = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": _QUIET,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": "#e3e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "recurra",
    "text.parse_math": False,  # a dollar sign in a column's name is a dollar sign
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
}


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


def to_svg(figure: Figure) -> str:
    """The figure as SVG text."""
    return _render(figure, ".svg").decode()


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as .png, .svg or .pdf, by the path's ending.

    Raises: ConfigError for another ending, RunError when the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise ConfigError(unknown("picture format", suffix, _FORMATS) + f" In the path {path}.")
    write_bytes(Path(path), _render(figure, suffix))


def loss_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Training and validation loss over steps, and the learning rate below.

    `history` is what training returns: one mapping a logged step, with step, loss, learning_rate
    and, where it was measured, validation.
    """
    with _style():
        figure = _figure(7.2, 4.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        steps = [float(entry["step"]) for entry in history]
        losses = [_number(entry.get("loss")) for entry in history]
        checked = [entry for entry in history if entry.get("validation") is not None]
        upper.plot(steps, losses, color=_COLOURS[0], linewidth=1.1, label="training")
        if checked:
            upper.plot(
                [float(entry["step"]) for entry in checked],
                [_number(entry["validation"]) for entry in checked],
                color=_COLOURS[1],
                marker="o",
                markersize=3.5,
                linewidth=1.4,
                label="validation",
            )
        _scale_loss(upper)
        upper.set_ylabel("loss")
        upper.legend(loc="upper right")
        rates = [_number(entry.get("learning_rate")) for entry in history]
        lower.plot(steps, rates, color=_QUIET, linewidth=1.1)
        lower.set_ylim(bottom=0)
        lower.set_ylabel("learning rate")
        lower.set_xlabel("training step")
        return figure


def fan_charts(fans: Sequence[Fan]) -> Figure:
    """One panel for each fan, below each other.

    Raises: DataError when there is none to draw.
    """
    if not fans:
        raise DataError(
            "there is no forecast to draw; expected at least one series with a forecast."
        )
    with _style():
        figure = _figure(7.2, 3.4 if len(fans) == 1 else 2.6 * len(fans))
        for fan, axes in zip(fans, figure.subplots(len(fans), 1, squeeze=False)[:, 0], strict=True):
            _draw_fan(axes, fan)
        return figure


def _draw_fan(axes: Axes, fan: Fan) -> None:
    levels, quantiles = fan.levels, fan.quantiles
    ahead = fan.times[len(fan.history) :]
    axes.plot(
        fan.times[: len(fan.history)], fan.history, color=_INK, linewidth=1.2, label="observed"
    )
    pairs = [(low, len(levels) - 1 - low) for low in range(len(levels) // 2)]
    for low, high in pairs:
        share = round(100 * (levels[high] - levels[low]))
        tint = _tint(0.16 + 0.5 * low / len(pairs))
        shade = {"color": tint, "label": f"{share} % interval"}
        _band(axes, ahead, quantiles[:, low], quantiles[:, high], shade)
    middle = len(levels) // 2
    name = "median" if levels[middle] == 0.5 else f"quantile {levels[middle]:g}"
    marker = "o" if len(ahead) == 1 else None
    axes.plot(
        ahead, quantiles[:, middle], color=_COLOURS[0], marker=marker, linewidth=1.8, label=name
    )
    if fan.actual is not None:
        happened: dict[str, Any] = {
            "color": _COLOURS[1],
            "linestyle": "--",
            "label": "what happened",
        }
        axes.plot(ahead, fan.actual, marker=marker, linewidth=1.3, **happened)
    _time_axis(axes, fan.times)
    axes.set_title(fan.title)
    axes.set_ylabel(fan.unit)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def watch_charts(watches: Sequence[Watch]) -> Figure:
    """Two panels for each series, below each other: values with alarms, and surprise.

    Raises: DataError when there is none to draw.
    """
    if not watches:
        raise DataError("there is no series to draw; expected at least one with a row.")
    with _style():
        figure = _figure(8.4, 3.4 * len(watches))
        panels = figure.subplots(
            2 * len(watches), 1, squeeze=False, height_ratios=[3, 1] * len(watches)
        )
        for number, watch in enumerate(watches):
            _draw_watch(panels[2 * number, 0], panels[2 * number + 1, 0], watch)
        return figure


def _draw_watch(upper: Axes, lower: Axes, watch: Watch) -> None:
    times = watch.times
    shade: dict[str, Any] = {"color": _tint(0.25), "label": "interval"}
    low, high = _robust_range(watch)
    upper.fill_between(
        times,
        np.clip(watch.lower, low, high),
        np.clip(watch.upper, low, high),
        linewidth=0,
        rasterized=True,
        **shade,
    )
    upper.plot(times, watch.values, color=_INK, linewidth=0.7, label="observed", rasterized=True)
    at = watch.alarms
    alarms: dict[str, Any] = {"color": _COLOURS[1], "marker": "o", "linestyle": "none"}
    upper.plot(times[at], watch.values[at], markersize=5, label="alarm", zorder=3, **alarms)
    for number, (start, end) in enumerate(watch.anomalies):
        label = "labelled anomaly" if number == 0 else None
        upper.axvspan(times[start], times[end], color=_COLOURS[4], alpha=0.3, lw=0, label=label)
    upper.set_title(watch.title)
    upper.tick_params(labelbottom=False)
    upper.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    lower.plot(times, watch.surprise, color=_COLOURS[0], linewidth=0.8, rasterized=True)
    lower.axhline(watch.threshold, color=_COLOURS[1], linewidth=0.9, linestyle="--")
    lower.set_ylim(
        0, max(1.1 * watch.threshold, 1.05 * float(np.nanmax(watch.surprise, initial=0)))
    )
    lower.set_ylabel("surprise")
    for axes in (upper, lower):
        if len(times) > 1 and times[0] != times[-1]:
            axes.set_xlim(times.min(), times.max())
    _time_axis(lower, times)
    if times.dtype.kind != "M":
        _whole_numbers(upper)


def _robust_range(watch: Watch) -> tuple[float, float]:
    """What the values span and a half more: an interval that is still wide must not hide them."""
    values = watch.values[np.isfinite(watch.values)]
    if not values.size:
        return -1.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = 0.5 * (high - low) or 1.0
    return low - room, high + room


def heat_maps(maps: Sequence[HeatMap], label: str) -> Figure:
    """One panel for each map, below each other: training steps to the right, time upwards.

    `label` says what the colours are; all panels share them, over at most 12 decades.
    Raises: DataError when there is none to draw.
    """
    if not any(each.values.size for each in maps):
        raise DataError("there is no heat map to draw; expected one with at least one value.")
    with _style():
        figure = _figure(7.2, 0.6 + 2.3 * len(maps))
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


def alignment_chart(alignment: Alignment) -> Figure:
    """Two panels: the log-mel spectrogram, and each character's probability at its moment."""
    with _style():
        figure = _figure(8.4, 4.6)
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
            colour = _COLOURS[number % len(_COLOURS)]
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


def error_by_horizon(
    errors: Mapping[str, npt.NDArray[np.float64]], metric: str = "MASE", title: str = ""
) -> Figure:
    """One line for each model: its error at each step ahead, (h,). The first model stands out."""
    with _style():
        figure = _figure(7.2, 3.4)
        axes = figure.subplots()
        for number, (model, values) in enumerate(errors.items()):
            axes.plot(
                np.arange(1, len(values) + 1),
                values,
                color=_COLOURS[number % len(_COLOURS)],
                linestyle=_DASHES[number % len(_DASHES)],
                linewidth=2.2 if number == 0 else 1.4,
                marker="o" if len(values) <= 31 else None,
                markersize=3.5,
                label=model,
            )
        _whole_numbers(axes)
        axes.set_ylim(bottom=0)
        axes.set_title(title)
        axes.set_xlabel("steps ahead")
        axes.set_ylabel(metric)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


def calibration(
    levels: Sequence[float], coverage: npt.NDArray[np.float64] | Sequence[float], title: str = ""
) -> Figure:
    """Share of observations at or below each quantile, against the quantile's level."""
    with _style():
        figure = _figure(4.2, 3.8)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=1, linestyle="--", label="ideal")
        axes.plot(levels, coverage, color=_COLOURS[0], marker="o", linewidth=1.6, label="measured")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
        axes.set_xlabel("quantile level")
        axes.set_ylabel("share of observations below")
        axes.legend(loc="upper left")
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


def _tint(strength: float) -> tuple[float, ...]:
    """The first colour on white, opaque, so that nested bands look as in the legend."""
    from matplotlib.colors import to_rgb

    return tuple(1 - strength * (1 - part) for part in to_rgb(_COLOURS[0]))


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


def _time_axis(axes: Axes, times: npt.NDArray[Any]) -> None:
    if times.dtype.kind != "M":
        _whole_numbers(axes)
        axes.set_xlabel("time")
        return
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def _scale_loss(axes: Axes) -> None:
    """A logarithmic axis where the losses allow it and fall far."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        from matplotlib.ticker import FuncFormatter, LogLocator

        axes.set_yscale("log")
        # matplotlib's own labels are formulas, and those are switched off.
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter(plain)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


@contextmanager
def _style() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "forecasting", "Drawing charts") from error
    with matplotlib.rc_context():
        # The user's own matplotlibrc must not change a report.
        matplotlib.rcdefaults()
        parameters: Any = matplotlib.rcParams  # its type lists every name there is
        parameters.update(_RC)
        yield


def _figure(width: float, height: float) -> Figure:
    """A figure that no window system and no pyplot knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def _render(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata=_FORMATS[suffix])
    return buffer.getvalue()
