"""Real-time recurrent learning: full gradients of a running stream, in memory that does not grow.

BPTT keeps every step until the loss is known. RTRL carries the sensitivity of the state to every
parameter along with the state instead, so a step can be forgotten once it is done:

    h_t = f(x_t, h_{t−1}; θ)
    E_t = ∂f/∂h ⊙ E_{t−1} + ∂f/∂θ        dL_t/dθ = dL_t/dh_t · E_t

For a dense recurrence ∂f/∂h is a matrix, and E has hidden_size numbers for each parameter. Where
units do not mix, ∂f/∂h is a vector and unit j is moved by its own weights only, so E has one
number for each parameter and row. The gates of RG-LRU read the input u = W x + b of their whole
head, so W and b move all units of a head, and have an entry in E for each of these.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import grad, vmap

from recurra.cells.cell import Cell, Params
from recurra.cells.ind_rnn import IndRNN
from recurra.cells.min_gru import MinGRU
from recurra.cells.min_lstm import MinLSTM
from recurra.cells.rg_lru import RGLRU
from recurra.errors import ConfigError, ShapeError
from recurra.nn.recurrent import Recurrent

SUPPORTED = (IndRNN, MinGRU, MinLSTM, RGLRU)
"""Cells whose units do not mix, with a real state that is the output."""

REFUSED = (
    "bidirectional",
    "zoneout",
    "recurrent_dropout",
    "variational_dropout",
    "weight_drop",
    "clip_state_grad",
)
"""Options that see the future, draw masks for a whole sequence, or change the gradient."""

# For each parameter under the cell's name, ∂h/∂θ of every row: (B, units moved, G, H, rest).
Traces = dict[str, Tensor]


class RTRL:
    """Full gradients of a layer that runs on a stream, step by step, with nothing kept of the past.

        E_t = ∂h_t/∂h_{t−1} ⊙ E_{t−1} + ∂h_t/∂θ        dL_t/dθ = dL_t/dh_t · E_t

    layer        one layer of MinGRU, MinLSTM, IndRNN or RGLRU, whose parameters may be trained
    batch_size   streams that run side by side

    `push(x)` returns the output of one step. `backward` of a loss of it adds to the parameters'
    `.grad` what backpropagation through all steps since the row's last reset would: no window, no
    truncation. Sum the losses of several steps by calling `backward` after each; the graph of a
    step is as long as its output is held. The gradient is that of BPTT to rounding while the
    parameters stay as they are. After an update, E still holds what the parameters before it did,
    which is small for small steps, and what RTRL does everywhere.

    Memory: E has batch_size numbers for each parameter, for RGLRU's weight_ih and bias_ih
    batch_size · hidden_size / num_heads; a push makes a second E before the first is dropped.
    One layer only: from the layers below, a gradient would have to go through the past of the
    layers above. For the same reason x may not require a gradient; a head after the layer may.

    Raises: ConfigError for another module or cell, several layers, a batch_size below 1, and for
    bidirectional, zoneout, dropouts in the layer, weight_drop and clip_state_grad.

    >>> from recurra.nn.min_gru import MinGRU as Layer
    >>> _ = torch.manual_seed(0)
    >>> layer, head = Layer(1, 16, positive=False), nn.Linear(16, 1)
    >>> optimiser = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)
    >>> rtrl, losses, level = RTRL(layer, batch_size=4), [], torch.zeros(4, 1)
    >>> for x in torch.randn(600, 4, 1):          # the target is a running mean of all x so far
    ...     level = 0.95 * level + 0.05 * x
    ...     loss = (head(rtrl.push(x)) - level).square().mean()
    ...     optimiser.zero_grad(); loss.backward(); optimiser.step()
    ...     losses.append(float(loss.detach()))
    >>> sum(losses[-100:]) < 0.1 * sum(losses[:100])
    True

    Source: Williams and Zipser 1989, "A learning algorithm for continually running fully recurrent
    neural networks"; for recurrences without mixing Zucchet et al. 2023, "Online learning of
    long-range dependencies", and Irie, Gopalakrishnan and Schmidhuber 2023, "Exploring the promise
    and limits of real-time recurrent learning".
    """

    def __init__(self, layer: nn.Module, batch_size: int = 1) -> None:
        self._layer = _check_layer(layer)
        self.batch_size = _check_batch_size(batch_size)
        self._cell = self._layer.cells[0]
        self._fresh = torch.ones(batch_size, dtype=torch.bool)
        self._h = torch.empty(0)
        self._traces: Traces = {}

    def push(self, x: Tensor, reset: Tensor | None = None) -> Tensor:
        """The output (B, hidden_size) of the next step, through which gradients flow.

        x      (B, input_size), of the layer's dtype and device
        reset  (B,) bool, True where a row starts afresh before this step; None: nowhere

        The first push starts all rows. Under torch.no_grad it moves state and traces on alike.
        Raises: ShapeError for tensors of another shape, dtype or device; ConfigError for an x that
        requires a gradient.
        """
        params = _read(self._layer)
        self._check_x(x, next(iter(params.values())))
        if reset is not None:
            self._fresh = self._fresh | self._check_reset(reset).to(self._fresh.device)
        with torch.no_grad():
            own = {name: value.detach() for name, value in params.items()}
            h, traces = self._before(own)
            self._h, self._traces = _advance(self._cell, own, x, h, traces)
        self._fresh = torch.zeros_like(self._fresh)
        moved = [_units_moved(self._cell, name) for name in params]
        output: Tensor = _Output.apply(  # type: ignore[no-untyped-call]
            self._h, moved, *self._traces.values(), *params.values()
        )
        if self._layer.residual and x.shape == output.shape:
            return output + x
        return output

    def _before(self, params: Params) -> tuple[Tensor, Traces]:
        """h (B, H) and its traces before the step, with fresh rows where they start."""
        if not bool(self._fresh.any()):
            return self._h, self._traces
        (start,) = self._cell.initial_state(self.batch_size, params)
        starts = _start_traces(self._cell, self.batch_size, params)
        if bool(self._fresh.all()):
            return start, starts
        fresh = self._fresh.to(start.device)
        rows = fresh.view(-1, 1, 1, 1, 1)
        traces = {k: torch.where(rows, starts[k], trace) for k, trace in self._traces.items()}
        return torch.where(fresh.view(-1, 1), start, self._h), traces

    def _check_x(self, x: Tensor, weight: Tensor) -> None:
        shape = (self.batch_size, self._cell.input_size)
        if not isinstance(x, Tensor):
            raise ShapeError(
                f"RTRL: x is a {type(x).__name__}; expected a tensor of shape {shape}, one step. "
                "Use torch.as_tensor(x)."
            )
        if tuple(x.shape) != shape or x.dtype != weight.dtype or x.device != weight.device:
            raise ShapeError(
                f"RTRL: x has shape {tuple(x.shape)}, {x.dtype} on {x.device}; expected {shape}, "
                f"{weight.dtype} on {weight.device}, (batch, input_size) of one step. Push steps "
                "one by one, or make RTRL with another batch_size."
            )
        if x.requires_grad:
            raise ConfigError(
                "RTRL: x requires a gradient, but what made earlier inputs is not traced, so its "
                "gradient would be cut to one step. Push x.detach(), or train with BPTT."
            )

    def _check_reset(self, reset: Any) -> Tensor:
        if not isinstance(reset, Tensor):
            raise ShapeError(
                f"RTRL: reset is a {type(reset).__name__}; expected a bool tensor of shape "
                f"({self.batch_size},), or None. Use torch.tensor([...]), one flag for each row."
            )
        if reset.dtype != torch.bool or tuple(reset.shape) != (self.batch_size,):
            raise ShapeError(
                f"RTRL: reset has shape {tuple(reset.shape)} and {reset.dtype}; expected bool of "
                f"shape ({self.batch_size},), True where a row starts afresh before this step."
            )
        return reset


class _Output(torch.autograd.Function):
    """h with a gradient to the parameters that goes by the traces.

    Arguments: h, units moved by each parameter, all traces, all parameters.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, moved: list[int], *tensors: Tensor) -> Tensor:
        ctx.moved = moved
        ctx.shapes = [value.shape for value in tensors[len(moved) :]]
        ctx.save_for_backward(*tensors[: len(moved)])
        return h.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor) -> Any:
        d_params = [
            torch.einsum("bkh,bkghr->ghr", _at_parameters(d_h, moved), trace).reshape(shape)
            for moved, trace, shape in zip(ctx.moved, ctx.saved_tensors, ctx.shapes, strict=True)
        ]
        return None, None, *(None for _ in ctx.moved), *d_params


def _advance(
    cell: Cell, params: Params, x: Tensor, h: Tensor, traces: Traces
) -> tuple[Tensor, Traces]:
    """h and its traces after one step of all rows."""
    with torch.enable_grad():
        before = h.detach().requires_grad_()
        after = cell.step(cell.project(x, params), cell.make_state(before), params)[1][0]
        (decay,) = torch.autograd.grad(after.sum(), before)
    local: Traces = {}
    for moved in sorted({_units_moved(cell, name) for name in params}):
        chosen = {k: value for k, value in params.items() if _units_moved(cell, k) == moved}
        by_unit = vmap(grad(_sum_of_h, 4), (None, None, None, None, None, 0))
        by_row = vmap(by_unit, (None, None, 0, 0, None, None))
        local |= by_row(cell, params, x, h, chosen, _each_unit(h, moved))
    return after.detach(), {
        name: _at_parameters(decay, trace.shape[1])[:, :, None, :, None] * trace
        + local[name].reshape(trace.shape)
        for name, trace in traces.items()
    }


def _sum_of_h(
    cell: Cell, params: Params, x: Tensor, h: Tensor, chosen: Params, units: Tensor
) -> Tensor:
    """The sum of one row's next h over units, a mask; chosen stand in for their params."""
    own = {**params, **chosen}
    after = cell.step(cell.project(x, own), cell.make_state(h), own)[1][0]
    return (after * units).sum()


def _units_moved(cell: Cell, name: str) -> int:
    """How many units of h an entry of a parameter moves at once: 1, or all of a head."""
    if isinstance(cell, RGLRU) and name in ("weight_ih", "bias_ih"):
        return cell.hidden_size // cell.num_heads
    return 1


def _each_unit(h: Tensor, moved: int) -> Tensor:
    """Masks (moved, H): the first unit of every head, the second, ...

    No parameter moves two heads, so one gradient holds those of all heads side by side.
    """
    return torch.eye(moved, dtype=h.dtype, device=h.device).repeat(1, h.shape[1] // moved)


def _at_parameters(per_unit: Tensor, moved: int) -> Tensor:
    """(B, H) of units of h as (B, moved, H): what belongs to the units that a parameter moves.

    Entry [b, k, j] is that of unit k of the head that j is in.
    """
    heads = per_unit.reshape(len(per_unit), -1, moved)
    return heads.transpose(1, 2).repeat_interleave(moved, 2)


def _start_traces(cell: Cell, batch: int, params: Params) -> Traces:
    """∂h/∂θ of the initial state: 1 for a learned one, else 0."""
    traces = {}
    for name, value in params.items():
        rest = value.shape[-1] if value.dim() > 1 else 1
        moved = _units_moved(cell, name)
        blocks = value.numel() // (cell.hidden_size * rest)
        shape = (batch, moved, blocks, cell.hidden_size, rest)
        traces[name] = value.new_full(shape, float(name in _starts(cell)))
    return traces


def _starts(cell: Cell) -> list[str]:
    """The names that a learned initial state has in params."""
    return [f"{part}_0" for part in cell.state_sizes()]


def _read(layer: Recurrent) -> dict[str, Tensor]:
    """The layer's parameters as they are now, under the cell's names."""
    cell = layer.cells[0]
    names = [*cell.parameter_shapes(), *(_starts(cell) if layer.learn_initial_state else [])]
    return dict(zip(names, layer.all_weights[0], strict=True))


def _check_layer(layer: Any) -> Recurrent:
    names = ", ".join(cell.name for cell in SUPPORTED)
    if not isinstance(layer, Recurrent):
        raise ConfigError(
            f"RTRL: layer is a {type(layer).__name__}; expected a layer of recurra.nn, one of "
            f"{names}. Heads and losses come after push."
        )
    who = type(layer).__name__
    if not isinstance(layer.cells[0], SUPPORTED):
        raise ConfigError(
            f"RTRL: there is no RTRL for the recurrence of {who}; expected one of {names}, whose "
            "units do not mix. Train it with truncated BPTT, see StreamBatches."
        )
    if layer.num_layers != 1:
        raise ConfigError(
            f"RTRL: the {who} has {layer.num_layers} layers, but gradients are full for one layer "
            "only. Make it with num_layers=1, or train the stack with BPTT."
        )
    for option in REFUSED:
        value = getattr(layer, option)
        if value:
            raise ConfigError(
                f"RTRL: the {who} has {option}={value!r}, which it cannot follow step by step. "
                "Make the layer without it."
            )
    return layer


def _check_batch_size(batch_size: Any) -> int:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(
            f"RTRL: batch_size is {batch_size!r}, but must be an integer of at least 1."
        )
    return batch_size
