"""The values of all series as flat arrays, with what is known at every row.

A *channel* is one target of one series. Channels lie one after the other in flat arrays, so that a
batch of windows from any of them is one gather. Every number stored for a row depends on rows up to
and including it, never on later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recurra.data.series import Series

Array = npt.NDArray[np.float64]
MIN_SCALE = 1e-8
FIRST_SCALE = 0.1


@dataclass(frozen=True)
class RunningScale:
    """Mean and standard deviation of everything seen so far, one value at a time.

    Kept as sums of differences from the first value, so that a large level costs no digits.
    """

    first: float = 0.0
    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def push(self, value: float) -> RunningScale:
        first = self.first if self.count else value
        d = value - first
        return RunningScale(first, self.count + 1, self.total + d, self.squares + d * d)

    def read(self) -> tuple[float, float]:
        """(mean, standard deviation); (0, 1) before the first value.

        One value alone says nothing of its spread: a tenth of it is a guess that is not 0.
        """
        if not self.count:
            return 0.0, 1.0
        if self.count == 1:
            return self.first, FIRST_SCALE * abs(self.first) or 1.0
        mean = self.total / self.count
        variance = max(self.squares / self.count - mean * mean, 0.0)
        return self.first + mean, max(variance**0.5, MIN_SCALE)

    def follow(self, values: Array) -> tuple[Array, Array, RunningScale]:
        """(means, deviations, what is known after): `push` and `read` for each of `values` (n,).

        NaN rows are unseen. The same bits as one by one.
        """
        seen = np.isfinite(values)
        if not seen.any():
            known = self.read()
            return np.full(len(values), known[0]), np.full(len(values), known[1]), self
        first = self.first if self.count else float(values[np.argmax(seen)])
        d = np.where(seen, values - first, 0.0)
        count = self.count + np.cumsum(seen)
        total = np.cumsum(np.concatenate(([self.total], d)))[1:]
        squares = np.cumsum(np.concatenate(([self.squares], d * d)))[1:]
        n = np.maximum(count, 1)
        means = total / n
        scale = np.maximum(np.sqrt(np.maximum(squares / n - means * means, 0.0)), MIN_SCALE)
        scale = np.where(count == 1, FIRST_SCALE * abs(first) or 1.0, scale)
        after = RunningScale(first, int(count[-1]), float(total[-1]), float(squares[-1]))
        return (
            np.where(count > 0, first + means, 0.0),
            np.where(count > 0, scale, 1.0),
            after,
        )


def fill_forward(values: Array, before: float = 0.0, age: float = 0.0) -> tuple[Array, Array]:
    """(filled, ages): gaps hold the last value seen, rows before the first one `before`.

    An age counts the rows since the last observed one, 0 where the row itself was observed; `age`
    is that of the row before, 0 when there is none.
    """
    seen = np.isfinite(values)
    rows = np.arange(len(values), dtype=np.float64)
    last = np.maximum.accumulate(np.where(seen, rows, -1.0)).astype(np.int64)
    filled = np.where(last >= 0, values[last], before)
    return filled, np.where(last >= 0, rows - last, age + 1 + rows)


@dataclass(frozen=True)
class Panel:
    """Flat arrays over N rows of C channels and R rows of the series' covariates.

    values    (N,) transformed target, gaps filled forward     age   (N,) rows since last observed
    truth     (N,) transformed target, NaN where missing       mean, scale (N,) running, up to the
              row
    offset, length, first (position of the first observed row; past the end when there is none),
    target, series: (C,) integers
    past      (R, P) past covariates; future (R, F) known-future ones and the calendar, running on
              past the last row by the horizon; static (S, ...) per series; row_offset (S,)
    """

    values: Tensor
    truth: Tensor
    age: Tensor
    mean: Tensor
    scale: Tensor
    offset: Tensor
    length: Tensor
    first: Tensor
    target: Tensor
    series: Tensor
    past: Tensor
    future: Tensor
    static: Tensor
    row_offset: Tensor

    @property
    def channels(self) -> int:
        return len(self.offset)


def _flat(parts: Sequence[npt.NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))


def make_panel(series: Sequence[Series], calendars: Sequence[Array], horizon: int) -> Panel:
    """Lay out prepared `series`, of K targets each, with one calendar (rows + horizon, C) each.

    Known-future covariates that are not given stay NaN; whoever reads them checks.
    """
    columns: dict[str, list[npt.NDArray[np.generic]]] = {
        name: [] for name in ("values", "truth", "age", "mean", "scale", "past", "future", "static")
    }
    rows: dict[str, list[int]] = {
        name: [] for name in ("offset", "length", "first", "target", "series", "row_offset")
    }
    offset = row_offset = 0
    for number, (one, calendar) in enumerate(zip(series, calendars, strict=True)):
        length = len(one.target)
        for k in range(one.target.shape[1]):
            truth = one.target[:, k]
            filled, age = fill_forward(truth)
            mean, scale, _ = RunningScale().follow(truth)
            for name, column in zip(
                ("values", "truth", "age", "mean", "scale"),
                (filled, truth, age, mean, scale),
                strict=True,
            ):
                columns[name].append(column)
            rows["offset"].append(offset)
            rows["length"].append(length)
            seen = np.isfinite(truth)
            rows["first"].append(offset + (int(np.argmax(seen)) if seen.any() else length))
            rows["target"].append(k)
            rows["series"].append(number)
            offset += length
        columns["past"].append(_resize(one.past, length + horizon))
        future = _resize(one.future, length + horizon)
        columns["future"].append(np.concatenate((future, calendar), axis=1))
        columns["static"].append(one.static[None])
        rows["row_offset"].append(row_offset)
        row_offset += length + horizon
    numbers = {name: torch.tensor(values) for name, values in rows.items()}
    return Panel(**{name: _flat(parts) for name, parts in columns.items()}, **numbers)


def _resize(values: Array, length: int) -> Array:
    """The first `length` rows of `values`, NaN where it has fewer."""
    out = np.full((length, values.shape[1]), np.nan)
    rows = min(length, len(values))
    out[:rows] = values[:rows]
    return out
