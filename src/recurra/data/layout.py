"""From rows in any order to whole series: sorted, merged, with absent rows as missing ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import Indices, format_time
from recurra.data.covariates import Covariates, Span, called, fill_forward
from recurra.data.frequency import Frequency
from recurra.data.times import Where
from recurra.errors import DataError

Values = npt.NDArray[np.float64]

_ROOM = 4_000_000  # grid rows that are always allowed, however sparse the table is


@dataclass(frozen=True)
class Rows:
    """The rows of a table: series number, grid index and values of each.

    Shapes: names (series,), codes and index (rows,), target (rows, K).
    """

    names: list[str]
    codes: Indices
    index: Indices
    target: Values
    past: Covariates
    future: Covariates
    frequency: Frequency


class Laid(NamedTuple):
    """One series: the grid index of row 0, target (n, K), past (n, P), future (n + extra, F)."""

    start: int
    target: Values
    past: Values
    future: Values


def lay_out(
    rows: Rows, duplicates: str, where: Where, known: Mapping[str, int] | None = None
) -> tuple[list[Laid], list[str]]:
    """The series of the rows, and notes about what was changed on the way.

    A series whose rows all come after the grid index in `known` goes on from there: its leading
    rows without a target stay, and it may have no target at all.

    Raises: DataError for repeated times (unless `duplicates` says which counts), a gap of
    millions of rows, a series without any target, a covariate without any value.
    """
    order, notes = _in_order(rows)
    codes, index = rows.codes[order], rows.index[order]
    same = (np.diff(codes) == 0) & (np.diff(index) == 0)
    if same.any():
        if duplicates == "error":
            raise _duplicate(rows, order, same, where)
        notes.append(f"{same.sum()} repeated time(s): kept the {duplicates} of each")
    kept = np.flatnonzero(np.concatenate([[True], ~same]))
    codes, index = codes[kept], index[kept]

    bounds = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1, [len(codes)]])
    first = index[bounds[:-1]]
    sizes = index[bounds[1:] - 1] - first + 1
    _check_sparse(rows, sizes, index, codes)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    total, place = int(offsets[-1]), offsets[codes] + index - first[codes]
    if total > len(place):
        count = int((sizes > np.diff(bounds)).sum())
        among = f" in {count} of {len(rows.names)} series" if len(rows.names) > 1 else ""
        notes.append(f"{total - len(place)} absent row(s){among} were added as missing")

    def grid(values: Values, exact: npt.NDArray[np.bool_]) -> Values:
        laid = np.full((total, values.shape[1]), np.nan)
        laid[place] = _merge(values[order], kept, duplicates, exact)
        return laid

    target = grid(rows.target, np.zeros(rows.target.shape[1], np.bool_))
    past = grid(rows.past.values, rows.past.is_text)
    future = grid(rows.future.values, rows.future.is_text)
    known = known or {}
    starts = zip(rows.names, first.tolist(), strict=True)
    going_on = [name in known and begin > known[name] for name, begin in starts]
    spans = _spans(rows.names, offsets, ~np.isnan(target), ~np.isnan(future), going_on)
    trimmed = sum(span.top - int(begin) for span, begin in zip(spans, offsets[:-1], strict=True))
    if trimmed:
        notes.append(f"{trimmed} leading row(s) without a target were left out")
    filled_past = [Span(span.top, span.stop, span.stop) for span in spans]
    past, past_notes = fill_forward(past, offsets, rows.past, filled_past)
    future, future_notes = fill_forward(future, offsets, rows.future, spans)
    series = [
        Laid(
            int(first[number]) + span.top - int(offsets[number]),
            target[span.top : span.stop],
            past[span.top : span.stop],
            future[span.top : span.end],
        )
        for number, span in enumerate(spans)
    ]
    return series, notes + past_notes + future_notes


def _in_order(rows: Rows) -> tuple[Indices, list[str]]:
    """The rows by series and time, those of equal times as they came; a note if that moved any."""
    order = np.argsort(rows.codes, kind="stable")
    back = (np.diff(rows.codes[order]) == 0) & (np.diff(rows.index[order]) < 0)
    notes = ["rows were not in order of time; they were sorted"] if back.any() else []
    return order[np.lexsort((rows.index[order], rows.codes[order]))], notes


def _spans(
    names: list[str],
    offsets: Indices,
    observed: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_],
    going_on: list[bool],
) -> list[Span]:
    """Rows of each series from its first target on; with future covariates, to its last target.

    A series that goes on from rows that were read before begins with its first row.
    """
    has_target: npt.NDArray[np.bool_] = np.asarray(observed.any(axis=1))
    has_future: npt.NDArray[np.bool_] = np.asarray(known.any(axis=1))
    spans = []
    bounds = zip(names, offsets[:-1].tolist(), offsets[1:].tolist(), going_on, strict=True)
    for name, begin, end, goes_on in bounds:
        seen = begin + np.flatnonzero(has_target[begin:end])
        if not seen.size and not goes_on:
            raise DataError(
                f"{called(name)} has no observed target in its {end - begin} row(s); expected "
                "at least one. Remove it from the table."
            )
        top, stop, last = begin if goes_on else int(seen[0]), end, end
        if known.shape[1]:
            stop = int(seen[-1]) + 1 if seen.size else begin
            told = np.flatnonzero(has_future[stop:end])
            last = stop + int(told[-1]) + 1 if told.size else stop
        spans.append(Span(top, stop, last))
    return spans


def _merge(values: Values, kept: Indices, duplicates: str, exact: npt.NDArray[np.bool_]) -> Values:
    """One row for each group of equal times; columns that are `exact` are never averaged."""
    if len(kept) == len(values):
        return values
    if duplicates == "last":
        last: Values = values[np.append(kept[1:], len(values)) - 1]
        return last
    first: Values = values[kept]
    if duplicates == "first":
        return first
    present = ~np.isnan(values)
    sums = np.add.reduceat(np.where(present, values, 0.0), kept, axis=0)
    counts = np.add.reduceat(present.astype(np.int64), kept, axis=0)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return np.where(exact, first, mean)


def _duplicate(rows: Rows, order: Indices, same: npt.NDArray[np.bool_], where: Where) -> DataError:
    at = int(np.flatnonzero(same)[0])
    first, second = int(order[at]), int(order[at + 1])
    time = format_time(rows.frequency.times(rows.index[[first]])[0])
    return DataError(
        f"{where(first + 1)} and row {second + 1} have the same time {time} ({same.sum()} repeated "
        "row(s) in all). Remove one, name the series column if there are several series, or choose "
        "duplicates='mean', 'first' or 'last' (--duplicates)."
    )


def _check_sparse(rows: Rows, sizes: Indices, index: Indices, codes: Indices) -> None:
    """A single mistyped year must not fill the memory with missing rows."""
    if int(sizes.sum()) <= max(_ROOM, 20 * len(index)):
        return
    gaps = np.where(np.diff(codes) == 0, np.diff(index), 0)
    at = int(gaps.argmax())
    before, after = (format_time(time) for time in rows.frequency.times(index[at : at + 2]))
    raise DataError(
        f"{called(rows.names[codes[at]])}: {int(gaps[at]) - 1} rows are absent between {before} "
        f"and {after} on the grid of {rows.frequency.name}. Correct the time, or give a longer "
        "frequency (frequency=..., --freq)."
    )
