"""Reading further rows of known series, and forecasting from where they stand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import format_time
from recurra.data.series import Series
from recurra.errors import DataError
from recurra.tasks.forecasting.continuing import Rows, advance, forecast
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.schema import Schema, restore, transform
from recurra.tasks.forecasting.state import SeriesState

Array = npt.NDArray[np.float64]
Calendar = Callable[[int, int], Array]


def update_states(fitted: Fitted, series: Sequence[Series]) -> dict[str, SeriesState]:
    """The states of all series after further rows: what reading their whole histories gives.

    Rows that are missing in between count as missing values. A series that is not known yet is read
    from its first row on.

    Raises: DataError for a row that is not after the last one read, or another static covariate.
    """
    for one in series:
        if one.name in fitted.states:
            check_after(fitted, one, fitted.states[one.name])
    return {**fitted.states, **states_after(fitted, series)}


def check_after(fitted: Fitted, series: Series, state: SeriesState) -> None:
    """That a series can go on from `state`. Raises: DataError naming its time or covariate."""
    schema = fitted.schema
    if series.start <= state.index:
        first, last = schema.grid.times(np.array([series.start, state.index]))
        raise DataError(
            f"{called(series.name)} has a row at {format_time(first)}, which is not after the last "
            f"one read, {format_time(last)}. Give new rows only, each once."
        )
    static = np.nan_to_num(schema.static_scale.apply(series.static))
    if len(static) and not np.allclose(static, state.static, rtol=1e-9, atol=1e-9):
        raise DataError(
            f"{called(series.name)} has other static covariates ({', '.join(schema.static)}) than "
            "before. Correct them, or give the series another name."
        )


def follow(
    fitted: Fitted, states: Sequence[SeriesState], series: Sequence[Series]
) -> list[SeriesState]:
    """The states after the rows of each series, which all come after them."""
    calendar = functools.lru_cache(maxsize=64)(fitted.schema.grid.calendar_between)
    rows = [
        _rows(fitted.schema, state, one, calendar)
        for state, one in zip(states, series, strict=True)
    ]
    return advance(fitted.networks, states, rows)


def skip_to(fitted: Fitted, state: SeriesState, index: int) -> SeriesState:
    """The state after the missing rows before grid index `index`."""
    return advance(fitted.networks, [state], [_missing(fitted.schema, state.index + 1, index)])[0]


def _rows(schema: Schema, state: SeriesState, series: Series, calendar: Calendar) -> Rows:
    """The rows of a series and the missing ones before them, as the network sees them."""
    first, after = series.start, series.start + len(series.target)
    known = schema.future_scale.apply(series.future[: after - first])
    rows = Rows(
        target=transform(series.target, schema),
        past=schema.past_scale.apply(series.past),
        now=np.concatenate((known, calendar(first, after)), axis=1),
    )
    if first == state.index + 1:
        return rows
    gap = _missing(schema, state.index + 1, first)
    return Rows(
        target=np.concatenate((gap.target, rows.target)),
        past=np.concatenate((gap.past, rows.past)),
        now=np.concatenate((gap.now, rows.now)),
    )


def _missing(schema: Schema, first: int, after: int) -> Rows:
    """Rows without values, from grid index `first` to before `after`."""
    count = after - first
    future = np.full((count, len(schema.future_scale.mean)), np.nan)
    return Rows(
        target=np.full((count, len(schema.target)), np.nan),
        past=np.full((count, len(schema.past_scale.mean)), np.nan),
        now=np.concatenate((future, schema.grid.calendar_between(first, after)), axis=1),
    )


def known_ahead(fitted: Fitted, series: Series, index: int) -> Array:
    """Inputs (horizon, F) of the steps after grid index `index`, from a series that covers them."""
    schema, horizon = fitted.schema, fitted.settings.horizon
    calendar = schema.grid.calendar_between(index + 1, index + 1 + horizon)
    if not schema.future:
        return calendar
    row = index + 1 - series.start
    known = schema.future_scale.apply(series.future[row : row + horizon])
    return np.concatenate((known, calendar), axis=1)


def forecast_states(
    fitted: Fitted, states: Sequence[SeriesState], ahead: Sequence[Array] | None = None
) -> Array:
    """Forecasts (S, K, horizon, Q) on the original scale after each state, an ensemble's mean.

    ahead: for each the inputs (horizon, F) of the steps ahead; the calendar alone when None.
    """
    schema, horizon = fitted.schema, fitted.settings.horizon
    if ahead is None:
        between = functools.lru_cache(maxsize=64)(schema.grid.calendar_between)
        ahead = [between(state.index + 1, state.index + 1 + horizon) for state in states]
    made = forecast(fitted.networks, states, ahead)
    target = np.tile(np.arange(len(schema.target)), len(states))
    flat = [restore(one.reshape(-1, *one.shape[2:]), target, schema) for one in made]
    mean = np.average(flat, axis=0, weights=fitted.shares)
    return fitted.calibrated(mean.reshape(made.shape[1:]))


def last_quantiles(fitted: Fitted, series: Sequence[Series]) -> Array:
    """Forecasts (S, K, horizon, Q) after the last row of each series.

    A series whose rows all come after those read before goes on from there; any other is read from
    its first row.
    """
    late = [goes_on(fitted, one) for one in series]
    row = np.array([len(one.target) - 1 for one in series])
    fitted.check_future(series, np.arange(len(series)), row)
    shape = (len(fitted.schema.target), fitted.settings.horizon)
    out = np.empty((len(series), *shape, len(fitted.settings.quantile_levels)))
    whole = [n for n, after in enumerate(late) if not after]
    if whole:
        read = [series[n] for n in whole]
        out[whole] = fitted.quantiles(read, np.arange(len(whole)), row[whole])
    going_on = [n for n, after in enumerate(late) if after]
    if going_on:
        some = [series[n] for n in going_on]
        grown = list(states_after(fitted, some).values())
        ahead = [
            known_ahead(fitted, one, state.index) for one, state in zip(some, grown, strict=True)
        ]
        out[going_on] = forecast_states(fitted, grown, ahead)
    return out


def goes_on(fitted: Fitted, series: Series) -> bool:
    """Whether all rows of a series come after those of it that were read before."""
    state = fitted.states.get(series.name)
    return state is not None and series.start > state.index


def states_after(fitted: Fitted, series: Sequence[Series]) -> dict[str, SeriesState]:
    """The state of each series after its last row: going on from those read before, or anew."""
    later = [one for one in series if goes_on(fitted, one)]
    for one in later:
        check_after(fitted, one, fitted.states[one.name])
    grown = follow(fitted, [fitted.states[one.name] for one in later], later)
    made = {one.name: state for one, state in zip(later, grown, strict=True)}
    anew = [one for one in series if one.name not in made]
    made |= fitted.read(anew) if anew else {}
    return {one.name: made[one.name] for one in series}


def called(name: str) -> str:
    """A series in a message; the only one of a table without a series column has no name."""
    return f"series {name!r}" if name else "the series"
