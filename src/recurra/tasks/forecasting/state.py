"""What is remembered of one series: a ring of recent rows, running scales, recurrent states.

Its size does not depend on how many rows were read. `continuing.py` goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recurra.tasks.forecasting.encode import Network, final_states
from recurra.tasks.forecasting.panel import Panel, RunningScale
from recurra.tasks.forecasting.settings import ModelSettings

Array = npt.NDArray[np.float64]
TAIL = ("values", "age", "mean", "scale")


@dataclass(frozen=True)
class SeriesState:
    """State after `rows` rows, the last at grid index `index`, for K targets.

    tail (4, K, r): values, age, running mean and scale of the last r = min(rows, reach) rows; past
    (r, P); now (F,) known-future inputs of the last row; static (S,); sums (K, 4): first value,
    count, sum and squares of the running scale; first (K,) row of the first observed value, −1
    before it; recurrent: of each network of an ensemble in turn h, or h and c, (K, stride, layers,
    hidden) each. The ring of rows is one for all of them, as long as the longest reach.
    """

    index: int
    rows: int
    tail: Array
    past: Array
    now: Array
    static: Array
    sums: Array
    first: npt.NDArray[np.int64]
    recurrent: tuple[Tensor, ...]


def recurrent_shapes(settings: Sequence[ModelSettings], targets: int) -> list[tuple[int, ...]]:
    """Shapes of the recurrent tensors of one series, for networks with these `settings`."""
    return [
        (targets, one.stride, one.num_layers, one.hidden_size)
        for one in settings
        for _ in range(recurrent_tensors(one))
    ]


def recurrent_tensors(settings: ModelSettings) -> int:
    """How many tensors a recurrent state consists of; none of a network that reads a window."""
    if settings.windowed:
        return 0
    return 2 if settings.cell == "lstm" else 1


def longest_reach(settings: Sequence[ModelSettings]) -> int:
    """Rows that a series' ring keeps, so that every network finds what it reads."""
    return max(one.reach for one in settings)


def start_state(
    settings: Sequence[ModelSettings], targets: int, past: int, static: Array
) -> SeriesState:
    """The state before a series' first row, for networks with these `settings`."""
    return SeriesState(
        index=-1,
        rows=0,
        tail=np.zeros((len(TAIL), targets, 0)),
        past=np.zeros((0, past)),
        now=np.zeros(0),
        static=static,
        sums=np.zeros((targets, 4)),
        first=np.full(targets, -1, dtype=np.int64),
        recurrent=tuple(torch.zeros(shape) for shape in recurrent_shapes(settings, targets)),
    )


def read_states(
    networks: Sequence[Network], panel: Panel, last_index: npt.NDArray[np.int64]
) -> list[SeriesState]:
    """The state of every series of a panel after its last row, at grid indices `last_index`."""
    with torch.no_grad():
        recurrent = [part for network in networks for part in final_states(network, panel)]
    targets = int(panel.target.max()) + 1
    reach = longest_reach([network.settings for network in networks])
    states = []
    for number in range(panel.channels // targets):
        channel = slice(number * targets, (number + 1) * targets)
        start, rows = int(panel.row_offset[number]), int(panel.length[channel][0])
        recent = min(rows, reach)
        tails, sums, first = [], [], []
        for c in range(number * targets, (number + 1) * targets):
            offset = int(panel.offset[c])
            end = slice(offset + rows - recent, offset + rows)
            tails.append(np.stack([getattr(panel, name)[end].numpy() for name in TAIL]))
            sums.append(_sums(panel.truth[offset : offset + rows].numpy()))
            seen = int(panel.first[c]) - offset
            first.append(seen if sums[-1][1] else -1)
        states.append(
            SeriesState(
                index=int(last_index[number]),
                rows=rows,
                tail=np.stack(tails, axis=1),
                past=panel.past[start + rows - recent : start + rows].numpy().copy(),
                now=panel.future[start + rows - 1].numpy().copy(),
                static=panel.static[number].numpy().copy(),
                sums=np.stack(sums),
                first=np.array(first, dtype=np.int64),
                recurrent=tuple(part[channel].clone() for part in recurrent),
            )
        )
    return states


def _sums(truth: Array) -> Array:
    _, _, after = RunningScale().follow(truth)
    return np.array([after.first, after.count, after.total, after.squares])
