"""The part of a report that shows how the gradient flowed back while a forecaster was trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recurra.errors import RunError
from recurra.report.drawing import to_svg
from recurra.report.maps import HeatMap, heat_maps
from recurra.report.page import Page
from recurra.training.flow_values import GradientFlow, LayerFlow
from recurra.training.flow_warnings import flow_warnings
from recurra.training.log import read_log

# The updates done before a measurement, and what it found.
Measurement = tuple[int, GradientFlow]


def read_gradients(path: Path) -> list[Measurement]:
    """The measurements in a gradients.jsonl, torn lines left out.

    Raises: RunError when there are none, or they are not what training writes.
    """
    entries = read_log(path)
    if not entries:
        raise RunError(
            f"{path} is missing or empty: how the gradient flows was not measured in this run. "
            "Train with --set training.gradient_flow_every=100 to record it."
        )
    try:
        return [(entry["step"], GradientFlow.from_json(entry)) for entry in entries]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path} is damaged: a line is not a measurement ({error!r}). Restore it from a copy, "
            "or make the report without --gradients."
        ) from error


def add_gradients(page: Page, measured: Sequence[Measurement]) -> None:
    """Warnings and numbers of the last measurement, and the norms of all as heat maps."""
    step, last = measured[-1]
    page.heading("Gradient flow")
    for warning in flow_warnings(last):
        page.warning(f"At step {step}: {warning.text}")
    figure = heat_maps(gradient_maps(measured), "log10 norm")
    page.figure(
        to_svg(figure),
        "Norm of dLoss/dState over time and training: where it darkens towards the first steps, "
        "the gradient vanishes on its way back",
    )
    page.table(
        ["layer", "memory length", "largest Lyapunov exponent", "spectral radius"],
        [
            [
                layer.title,
                _joined((part, layer.memory(part)) for part in layer.memory_length),
                layer.lyapunov[0] if layer.lyapunov else None,
                _joined((gate, f"{r:.3g}") for gate, r in layer.spectral_radius.items()),
            ]
            for layer in last.layers
        ],
        caption=f"At step {step}: steps until the norm halves (at most, where not every step was "
        "looked at), growth per step, largest eigenvalue",
    )
    gates = [
        [layer.title, name, gate.openness, gate.closed, gate.open]
        for layer in last.layers
        for name, gate in layer.gates.items()
    ]
    if gates:
        page.table(
            ["layer", "gate", "mean", "below 0.05", "above 0.95"],
            gates,
            caption=f"At step {step}: how far gates are open, and the shares that are stuck",
        )


def gradient_maps(measured: Sequence[Measurement]) -> list[HeatMap]:
    """For each layer and direction its norms, parts of the state together, over all measurements.

    Time is that of the longest measurement; a shorter one leaves a gap at the end.
    """
    titles = dict.fromkeys(layer.title for _, flow in measured for layer in flow.layers)
    steps = np.array([step for step, _ in measured], dtype=np.int64)
    maps = []
    for title in titles:
        found = [
            next((one for one in flow.layers if one.title == title), None) for _, flow in measured
        ]
        longest = max((one for one in found if one), key=lambda one: one.steps[-1])
        times = np.array(longest.steps, dtype=np.int64)
        maps.append(HeatMap(title, steps, times, np.stack([_norms(one, times) for one in found])))
    return maps


def _norms(layer: LayerFlow | None, times: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The norm at each of `times`: that of the first step at or after it that was measured."""
    if layer is None:
        return np.full(len(times), np.nan)
    parts = np.array(list(layer.norms.values()), dtype=np.float64)
    norms = np.append(np.sqrt((parts**2).sum(0)), np.nan)
    found: npt.NDArray[np.float64] = norms[np.searchsorted(np.array(layer.steps), times)]
    return found


def _joined(pairs: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)
