"""Charts of a training and of its scores: loss curves, errors by step ahead, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recurra.report.drawing import COLOURS, DASHES, QUIET, new_figure, style, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def loss_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Training and validation loss over steps, and the learning rate below.

    `history` is what training returns: one mapping a logged step, with step, loss, learning_rate
    and, where it was measured, validation.
    """
    with style():
        figure = new_figure(7.2, 4.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        steps = [float(entry["step"]) for entry in history]
        losses = [_number(entry.get("loss")) for entry in history]
        checked = [entry for entry in history if entry.get("validation") is not None]
        upper.plot(steps, losses, color=COLOURS[0], linewidth=1.1, label="training")
        if checked:
            upper.plot(
                [float(entry["step"]) for entry in checked],
                [_number(entry["validation"]) for entry in checked],
                color=COLOURS[1],
                marker="o",
                markersize=3.5,
                linewidth=1.4,
                label="validation",
            )
        _scale_loss(upper)
        upper.set_ylabel("loss")
        upper.legend(loc="upper right")
        rates = [_number(entry.get("learning_rate")) for entry in history]
        lower.plot(steps, rates, color=QUIET, linewidth=1.1)
        lower.set_ylim(bottom=0)
        lower.set_ylabel("learning rate")
        lower.set_xlabel("training step")
        return figure


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


def error_by_horizon(
    errors: Mapping[str, npt.NDArray[np.float64]], metric: str = "MASE", title: str = ""
) -> Figure:
    """One line for each model: its error at each step ahead, (h,). The first model stands out."""
    with style():
        figure = new_figure(7.2, 3.4)
        axes = figure.subplots()
        for number, (model, values) in enumerate(errors.items()):
            axes.plot(
                np.arange(1, len(values) + 1),
                values,
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number % len(DASHES)],
                linewidth=2.2 if number == 0 else 1.4,
                marker="o" if len(values) <= 31 else None,
                markersize=3.5,
                label=model,
            )
        whole_numbers(axes)
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
    with style():
        figure = new_figure(4.2, 3.8)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", label="ideal")
        axes.plot(levels, coverage, color=COLOURS[0], marker="o", linewidth=1.6, label="measured")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
        axes.set_xlabel("quantile level")
        axes.set_ylabel("share of observations below")
        axes.legend(loc="upper left")
        return figure
