"""The segment network: a GRU over pieces of a window, and all steps ahead read from its last state.

    x_1 … x_n  the window, cut into n segments of w rows;  e_i = ReLU(W_e x_i)
    h = GRU(e_1, …, e_n);  h_j = GRU step from h with input [p_j, c];  o_j = W_o h_j

The forecast of segment j is o_j, w rows of Q quantiles; p_j belongs to its place in the horizon and
c to the target. No h_j waits for another, so the horizon costs one step. Windows are normalised by
their last value and by the deviation of everything seen so far. W_o starts at zero, so an untrained
network's median is the last value.

With `linear`, L x is added, where L is solved in closed form before training and then held, see
`linear_skip.py`: the GRU learns what a linear map of the window misses. Trained together they fit
the training rows' noise.

Nothing but the window is read: a stream keeps a ring of `context` rows and no recurrent state.

Source: Lin et al. 2023, "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
Forecasting", sections 3.2 to 3.4, with parallel multi-step forecasting; dividing by the deviation,
the quantiles and the linear map are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recurra.nn.gru import GRU
from recurra.nn.quantile import SortedQuantiles
from recurra.tasks.forecasting.settings import ModelSettings

GRU_NAMES = ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0")


class SegmentNetwork(nn.Module):
    """Normalised quantile forecasts from a window alone.

    Shapes: window (..., context), extra (..., K) which of K targets it is, as zeros and a one →
    quantiles (..., horizon, Q), in units of the window's scale, relative to its level. A window
    that is no multiple of a segment is lengthened on the left by its level.

    Raises: ShapeError from the GRU for sizes that do not fit.
    """

    def __init__(self, settings: ModelSettings, targets: int) -> None:
        super().__init__()
        if settings.segment is None:
            raise ValueError("a segment network needs settings with model='segments'")
        self.settings = settings
        hidden, levels, width = settings.hidden_size, settings.quantile_levels, settings.segment
        self.segments_ahead = -(-settings.horizon // width)
        self.embed = nn.Linear(width, hidden)
        self.recurrent = GRU(hidden, hidden, batch_first=True)
        self.place = nn.Parameter(torch.randn(self.segments_ahead, hidden - hidden // 2))
        self.target = nn.Parameter(torch.randn(targets, hidden // 2))
        self.out = nn.Linear(hidden, width * len(levels))
        self.linear: nn.Parameter | None = None
        if settings.linear:
            shape = (settings.horizon, settings.context)
            self.linear = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self.dropout = nn.Dropout(settings.dropout)
        self.sort = SortedQuantiles(levels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        window: Tensor,
        extra: Tensor,
        future: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Quantiles (..., horizon, Q); `future` and `lengths` are for designs that read them."""
        quantiles = self.decode(self.encode(window), extra)
        if self.linear is None:
            return quantiles
        return quantiles + functional.linear(window, self.linear).unsqueeze(-1)

    def encode(self, window: Tensor) -> Tensor:
        """h (..., hidden): the state after the last segment."""
        width = self.embed.in_features
        short = -window.shape[-1] % width
        segments = functional.pad(window, (short, 0)).reshape(-1, window.shape[-1] + short)
        segments = segments.view(len(segments), segments.shape[-1] // width, width)
        _, h = self.recurrent(torch.relu(self.embed(segments)))
        state: Tensor = h[-1]
        return state.view(*window.shape[:-1], state.shape[-1])

    def decode(self, h: Tensor, extra: Tensor) -> Tensor:
        """Quantiles (..., horizon, Q) from states (..., hidden)."""
        steps = self.step_ahead(h, extra)  # (..., segments ahead, hidden)
        levels = len(self.settings.quantile_levels)
        free = self.out(self.dropout(steps))
        free = free.flatten(-2).unflatten(-1, (-1, levels))[..., : self.settings.horizon, :]
        quantiles: Tensor = self.sort(free)
        return quantiles

    def step_ahead(self, h: Tensor, extra: Tensor) -> Tensor:
        """h_j (..., segments ahead, hidden): one GRU step from h for every segment ahead.

        The products with h, with each place and with each target are made once, and only added for
        every combination: what `GRU` does with an input [p_j, c] a segment, at a fraction of it.
        """
        half = self.place.shape[1]
        w, b, u, c = (self.recurrent.get_parameter(name) for name in GRU_NAMES)
        from_place = functional.linear(self.place, w[:, :half], b)
        from_target = extra @ functional.linear(self.target, w[:, half:])
        from_state = functional.linear(h, u, c)
        x_rz, x_n = from_place.tensor_split((2 * h.shape[-1],), dim=-1)
        t_rz, t_n = from_target.tensor_split((2 * h.shape[-1],), dim=-1)
        h_rz, h_n = from_state.tensor_split((2 * h.shape[-1],), dim=-1)
        r, z = torch.sigmoid(x_rz + (t_rz + h_rz).unsqueeze(-2)).chunk(2, dim=-1)
        n = torch.tanh(torch.addcmul(x_n + t_n.unsqueeze(-2), r, h_n.unsqueeze(-2)))
        return torch.lerp(n, h.unsqueeze(-2), z)
