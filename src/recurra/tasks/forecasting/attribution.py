"""What a forecast was made of: integrated gradients of its median, per input column and row.

    attribution_i = x_i · mean over α of ∂F(α x) / ∂x_i,      α = ½/n, 3⁄2/n, …, n = 32 points

F is the mean of the median over the steps ahead, on the modelled scale (the logarithm of targets
that are modelled by it; the mean of counts). The inputs x are the normalised ones, so the starting
point 0 is a window that stands at its level and covariates at their mean; level and scale of the
last step are constants. The attributions of one target add up to F(x) − F(0).

Source: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", equations 1, 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recurra.data.series import Series
from recurra.errors import ConfigError
from recurra.tasks.forecasting.autoregressive import AutoregressiveNetwork
from recurra.tasks.forecasting.counts import negative_binomial
from recurra.tasks.forecasting.encode import Network
from recurra.tasks.forecasting.features import Steps, make_future, make_steps
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.network import ForkingNetwork
from recurra.tasks.forecasting.panel import Panel
from recurra.tasks.forecasting.schema import Schema, build_panel
from recurra.tasks.forecasting.settings import ModelSettings

Array = npt.NDArray[np.float64]
POINTS = 32
MOST_STEPS = 64
"""Recurrent steps that are looked at; what came before is in the state that they start from."""


@dataclass(frozen=True)
class Attribution:
    """Of one target of one series: grid index, input and attribution of N inputs, largest first.

    `change` is F(x) − F(0), the sum of all attributions up to the error of the integral.
    """

    series: str
    target: str
    index: npt.NDArray[np.int64]
    name: tuple[str, ...]
    value: Array
    change: float


def attribute(fitted: Fitted, series: Series) -> list[Attribution]:
    """Attributions of the forecast after the last row of a series, one for each target.

    Those of an ensemble are the means of its networks'.

    Raises: DataError when known-future covariates are missing, ConfigError for a network that draws
    its forecast.
    """
    last = len(series.target) - 1
    fitted.check_future([series], np.zeros(1, dtype=np.int64), np.array([last]))
    if any(isinstance(network, AutoregressiveNetwork) for network in fitted.networks):
        raise ConfigError(
            "model='autoregressive' draws its forecast at random, which has no gradient to explain "
            "it by. Train with model='forking' or model='segments' to see attributions."
        )
    panel = build_panel([series], fitted.schema, fitted.settings.horizon)
    found = []
    for k, target in enumerate(fitted.schema.target):
        sums: dict[tuple[int, str], float] = {}
        change = 0.0
        for share, network in zip(fitted.shares, fitted.networks, strict=True):
            parts, moved = _of_network(network, panel, k, last, fitted.schema)
            change += share * moved
            for key, value in parts:
                sums[key] = sums.get(key, 0.0) + share * value
        order = sorted(sums, key=lambda key: -abs(sums[key]))
        found.append(
            Attribution(
                series=series.name,
                target=target,
                index=series.start + np.array([row for row, _ in order], dtype=np.int64),
                name=tuple(name for _, name in order),
                value=np.array([sums[key] for key in order]),
                change=change,
            )
        )
    return found


Parts = list[tuple[tuple[int, str], float]]


def _of_network(
    network: Network, panel: Panel, k: int, last: int, schema: Schema
) -> tuple[Parts, float]:
    """((row, input) → attribution of one network, F(x) − F(0)) of target `k`."""
    settings = network.settings
    rows = torch.arange(last % settings.stride, last + 1, settings.stride)[-MOST_STEPS:]
    if settings.windowed:
        rows = rows[-1:]
    made = make_steps(panel, torch.full_like(rows, k), rows, settings)
    end = made.select(torch.tensor([len(rows) - 1]))
    future = make_future(panel, end, settings)[0]
    before = _state_before(network, panel, k, int(rows[0]))
    points = (torch.arange(POINTS, dtype=torch.float32) + 0.5) / POINTS
    inputs = [made.window, made.extra, future]
    gradients = [torch.zeros_like(one) for one in inputs]
    for alpha in points:
        scaled = [(alpha * one).requires_grad_() for one in inputs]
        output = _median(network, scaled, end, before)
        for total, grad in zip(
            gradients, torch.autograd.grad(output, scaled, allow_unused=True), strict=True
        ):
            if grad is not None:
                total += grad / POINTS
    with torch.no_grad():
        whole = _median(network, inputs, end, before)
        none = _median(network, [torch.zeros_like(one) for one in inputs], end, before)
    values = [(one * grad).double() for one, grad in zip(inputs, gradients, strict=True)]
    first = int(panel.first[k] - panel.offset[k])
    parts = _of_windows(values[0], rows, first, settings, schema.target[k])
    names = _extra_names(schema, settings)
    for step, row in enumerate(rows.tolist()):
        parts += [((row, name), float(v)) for name, v in zip(names, values[1][step], strict=True)]
    ahead = _future_names(schema, settings)
    for step in range(settings.horizon):
        parts += [
            ((last + 1 + step, name), float(v))
            for name, v in zip(ahead, values[2][step], strict=True)
        ]
    return parts, float(whole - none)


def _median(network: Network, inputs: list[Tensor], end: Steps, before: Tensor | None) -> Tensor:
    """F: the mean of the median over the steps ahead, on the modelled scale."""
    window, extra, future = (one[None] for one in inputs)
    settings = network.settings
    level, scale = end.level, end.scale
    if isinstance(network, ForkingNetwork):
        embedded, output, _ = network.encode(window, extra, state=before)
        free = network.decode(window[:, -1], future, embedded[:, -1], output[:, -1])
    else:
        free = network(window[:, -1], extra[:, -1])
    if settings.head == "counts":
        mean: Tensor = negative_binomial(free.double(), level, scale)[0].mean()
        return mean
    median = free[..., settings.quantile_levels.index(0.5)].double()
    made: Tensor = (level + scale * median).mean()
    return made


def _state_before(network: Network, panel: Panel, k: int, first: int) -> Tensor | None:
    """The recurrent state before the step at row `first`, from all rows of its phase before it."""
    settings = network.settings
    if not isinstance(network, ForkingNetwork) or first < settings.stride:
        return None
    rows = torch.arange(first % settings.stride, first, settings.stride)
    state: Tensor | None = None
    with torch.no_grad():
        for some in torch.split(rows, 1024):
            made = make_steps(panel, torch.full_like(some, k), some, settings)
            _, _, state = network.encode(made.window[None], made.extra[None], state=state)
    return state


def _of_windows(
    values: Tensor, rows: Tensor, first: int, settings: ModelSettings, target: str
) -> Parts:
    """Attributions of the windows, of overlapping ones added up by row; then of the profile."""
    sums: dict[int, float] = {}
    last = int(rows[-1])
    for row, window in zip(rows.tolist(), values[:, : settings.context].tolist(), strict=True):
        for back, value in enumerate(reversed(window)):
            at = min(max(row - back, first), row)
            sums[at] = sums.get(at, 0.0) + value
    parts: Parts = [((row, target), value) for row, value in sums.items()]
    shape = values[:, settings.context :].sum(0).tolist()
    parts += [((last + 1 + j, "profile"), value) for j, value in enumerate(shape)]
    return parts


def _columns(schema: Schema, names: tuple[str, ...]) -> list[str]:
    """Columns of covariates, one for each category of text: 'sky=sun'."""
    made = []
    for name in names:
        values = schema.categories.get(name)
        made += [name] if values is None else [f"{name}={value}" for value in values]
    return made


def _extra_names(schema: Schema, settings: ModelSettings) -> list[str]:
    """What `make_steps` puts beside the window, in its order."""
    if settings.windowed:
        return [f"which target: {name}" for name in schema.target]
    past = _columns(schema, schema.past)
    several = schema.target if len(schema.target) > 1 else ()
    return [
        *("level", "scale", "change of level", "share observed", "age"),
        *past,
        *past,
        *_columns(schema, schema.future),
        *schema.grid.calendar_names,
        *_columns(schema, schema.static),
        *(f"which target: {name}" for name in several),
        *(f"{name} (place in its range)" for name in several),
    ]


def _future_names(schema: Schema, settings: ModelSettings) -> list[str]:
    """What `make_future` says of each step ahead, in its order."""
    if settings.windowed:
        return []
    season = ["last season", "whether there was one"] if settings.long_season else []
    return [*_columns(schema, schema.future), *schema.grid.calendar_names, *season]
