"""The learned forecaster: a GRU that says quantiles of the next row, trained on the first part.

    h_t = GRU(h_{t−1}, [u_t, u_t − u_{t−1}, clock_t])        q_{t+1} = u_t + sorted(W h_t + b)

All channels of all series share the weights, each with a state of its own. Training goes once and
again over their values, laid end to end, with the quantile loss of the next row and truncated BPTT;
afterwards the weights stay as they are, and nothing here is needed but their numbers.

Source: Cho et al. 2014 for the GRU; Koenker, Bassett 1978 for the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurra.errors import DataError
from recurra.nn.gru import GRU
from recurra.nn.linear import Linear
from recurra.nn.quantile import SortedQuantiles, pinball
from recurra.tasks.anomaly.forecast import INPUTS, LEVELS
from recurra.tasks.anomaly.lanes import Array, State
from recurra.tasks.anomaly.leaky import LARGEST, Scaler, changes, scaled
from recurra.training.bptt import StreamBatch, StreamBatches, run_window
from recurra.training.loop import train
from recurra.training.settings import TrainingSettings

LEAST = 200
"""Values of all channels together without which there is nothing to learn from."""
_STREAMS, _STEPS = 16, 64
_SHORTEST = 3  # values of a channel that it can be learned from
_KEPT = 0.15  # of each channel's values, its last, to choose the best weights by


class ForecastNetwork(torch.nn.Module):
    """x (B, T, 4) → quantiles (B, T, 5) of u at the row after each, and the state."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gru = GRU(INPUTS, hidden_size, batch_first=True)
        self.head = Linear(hidden_size, len(LEVELS))
        self.quantiles = SortedQuantiles(LEVELS)

    def forward(self, x: Tensor, state: Any, reset: Tensor | None) -> tuple[Tensor, Any]:
        y, state = self.gru(x, state, reset=reset)
        return x[..., :1] + self.quantiles(self.head(y)), state


class _Forecasting:
    """The task of the training loop."""

    def __init__(self, model: ForecastNetwork, learn: list[Array], keep: list[Array]) -> None:
        self.model = model
        self._levels = torch.tensor(LEVELS)
        self._learn, self._keep = _streams(learn), _streams(keep)

    def batch(self, step: int, rng: torch.Generator) -> StreamBatch:
        return self._learn.batch(step)

    def loss(self, batch: StreamBatch, state: Any) -> tuple[Tensor, Any]:
        made, state = run_window(self.model, batch, state)
        # Where the next row is another channel's, the target is not a number.
        counts = ~torch.isnan(batch.targets)
        lost = pinball(made, torch.nan_to_num(batch.targets), self._levels)
        return (lost * counts).sum() / counts.sum().clamp(min=1), state

    def validate(self) -> float:
        state, lost = None, []
        for step in range(self._keep.updates):
            loss, state = self.loss(self._keep.batch(step), state)
            lost.append(float(loss))
        return float(np.mean(lost))


def learn_weights(
    lanes: Sequence[tuple[Array, Array]],
    *,
    hidden_size: int,
    seed: int,
    progress: bool,
    **length: Any,
) -> dict[str, Array]:
    """The numbers of a network trained on lanes of values (n,) with clocks (n, 2).

    length is `steps` or `minutes` of the training loop.
    Raises: DataError when there are fewer than `LEAST` values in lanes of `_SHORTEST` and more.
    """
    long = [(values, clock) for values, clock in lanes if len(values) >= _SHORTEST]
    total = sum(len(values) for values, _ in long)
    if total < LEAST:
        raise DataError(
            f"there are {total} values to learn from, in series of {_SHORTEST} rows and more, but "
            f"a forecaster needs at least {LEAST}. Give more rows, or use model='memory' "
            "(--model memory), which learns as it goes."
        )
    rows = [_rows(values, clock) for values, clock in long]
    # Two are kept at least: the last value of a lane has nothing after it to be forecast.
    ends = [len(one) - max(2, int(_KEPT * len(one))) for one in rows]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ForecastNetwork(hidden_size)
    task = _Forecasting(
        model,
        [one[:end] for one, end in zip(rows, ends, strict=True)],
        [one[end:] for one, end in zip(rows, ends, strict=True)],
    )
    settings = TrainingSettings(learning_rate=5e-3, seed=seed, device="cpu", **length)
    train(task, settings, progress=progress)
    return {
        name: part.detach().numpy().astype(np.float64) for name, part in model.named_parameters()
    }


def _rows(values: Array, clock: Array) -> Array:
    """Inputs and, last, the next u (n, 5), NaN at the end, of one lane."""
    scaler = Scaler()
    x = np.clip(values, -LARGEST, LARGEST)[:, None]
    scale = scaler.run(scaler.initial_state(1), x)
    u = scaled(x, scale, np.arange(len(x))[:, None])
    state: State = {"last": np.zeros((1,))}
    inputs = [u, changes(state, u, np.array([True])), clock, np.append(u[1:], [[np.nan]], axis=0)]
    return np.concatenate(inputs, axis=1)


def _streams(rows: list[Array]) -> StreamBatches:
    """All lanes end to end, cut into streams of equal length."""
    joined = torch.from_numpy(np.concatenate(rows)).float()
    starts = np.cumsum([0, *(len(one) for one in rows[:-1])])
    reset = torch.zeros(len(joined), dtype=torch.bool)
    reset[starts] = True
    streams = min(_STREAMS, max(1, len(joined) // _STEPS))
    return StreamBatches(
        joined[:, :INPUTS], batch_size=streams, k1=_STEPS, targets=joined[:, INPUTS], reset=reset
    )
