"""Forecasts as tables, in the kind of frame that the user brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.tasks.forecasting.attribution import Attribution
from recurra.tasks.forecasting.schema import Schema

Array = npt.NDArray[np.float64]


def quantile_name(level: float) -> str:
    """Column of a quantile: 'q0.1', 'q0.975'."""
    return f"q{level!r}"


def frame_kind(data: Any) -> Any:
    """What narwhals makes frames like `data` of: pandas for a pandas frame, polars for the rest."""
    import narwhals as nw

    frame = nw.from_native(data, pass_through=True)
    pandas = isinstance(frame, nw.DataFrame) and frame.implementation.is_pandas()
    return "pandas" if pandas else "polars"


def sample_frame(
    schema: Schema,
    names: Sequence[str],
    last_index: npt.NDArray[np.int64],
    paths: Array,
    backend: Any,
) -> Any:
    """Long table: one row per series, target, path and step ahead; paths (S, N, K, horizon).

    Columns: as `prediction_frame`, with `sample`, the number of the path from 0, and `value`.
    """
    import narwhals as nw

    count, samples, targets, horizon = paths.shape
    step = np.tile(np.arange(1, horizon + 1), count * targets * samples)
    columns: dict[str, Any] = {}
    if schema.series is not None:
        columns[schema.series] = np.repeat(
            np.array(names, dtype=object), targets * samples * horizon
        ).tolist()
    each = targets * samples * horizon
    columns[schema.time] = schema.grid.times(np.repeat(last_index, each) + step)
    columns["target"] = np.tile(np.repeat(schema.target, samples * horizon), count).tolist()
    columns["sample"] = np.tile(np.repeat(np.arange(samples), horizon), count * targets)
    columns["step"] = step
    columns["value"] = paths.transpose(0, 2, 1, 3).reshape(-1)
    return nw.from_dict(columns, backend=backend).to_native()


def attribution_frame(schema: Schema, found: Sequence[Attribution], backend: Any) -> Any:
    """Long table: one row per series, target, input and time; largest attributions first."""
    import narwhals as nw

    columns: dict[str, Any] = {}
    if schema.series is not None:
        columns[schema.series] = [one.series for one in found for _ in one.name]
    columns[schema.time] = schema.grid.times(np.concatenate([one.index for one in found]))
    columns["target"] = [one.target for one in found for _ in one.name]
    columns["input"] = [name for one in found for name in one.name]
    columns["attribution"] = np.concatenate([one.value for one in found])
    return nw.from_dict(columns, backend=backend).to_native()


def prediction_frame(
    schema: Schema,
    names: Sequence[str],
    last_index: npt.NDArray[np.int64],
    quantiles: Array,
    levels: Sequence[float],
    backend: Any,
) -> Any:
    """Long table: one row per series, target and step ahead.

    Columns: the series column if there is one, the time column, `target` (its name), `step` (1 is
    the row after the last known one) and one per quantile level. quantiles (S, K, horizon, Q).
    """
    import narwhals as nw

    count, targets, horizon, _ = quantiles.shape
    step = np.tile(np.arange(1, horizon + 1), count * targets)
    columns: dict[str, Any] = {}
    if schema.series is not None:
        columns[schema.series] = np.repeat(
            np.array(names, dtype=object), targets * horizon
        ).tolist()
    times = schema.grid.times(np.repeat(last_index, targets * horizon) + step)
    columns[schema.time] = times
    columns["target"] = np.tile(np.repeat(schema.target, horizon), count).tolist()
    columns["step"] = step
    flat = quantiles.reshape(-1, quantiles.shape[3])
    for j, level in enumerate(levels):
        columns[quantile_name(level)] = flat[:, j]
    return nw.from_dict(columns, backend=backend).to_native()
