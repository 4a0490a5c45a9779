"""How the gradient of a loss flows back through the recurrent layers of a model, in numbers.

Layers run in pieces of time while the loss is computed (`recurra.kernels.recording`), so that
dLoss/dState exists between the pieces: after every step of up to 64, else after 64 of them, the
first and the last eight among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State
from recurra.errors import ArgumentError, ConfigError, ShapeError
from recurra.kernels.recording import PIECES, Call, Piece, recording
from recurra.runs import finite
from recurra.training.lyapunov import lyapunov_exponents

# Steps that are looked at, at least: the first, the last eight, and some in between.
FEWEST_STEPS = 16
# Steps of one row that Lyapunov exponents are computed over.
WINDOW = 32
# Steps that gates are looked at, of each call and in all of its rows.
GATE_STEPS = 16
# A gate below or above these lets next to no gradient through to its own weights.
CLOSED, OPEN = 0.05, 0.95


@dataclass(frozen=True)
class GateFlow:
    """A gate over rows, steps and units: its mean, and the shares below 0.05 and above 0.95."""

    openness: float
    closed: float
    open: float

    @property
    def saturation(self) -> float:
        """The share of values near 0 or 1."""
        return self.closed + self.open


@dataclass(frozen=True)
class LayerFlow:
    """One direction of one layer.

    name, layer, reverse  the module's name in the model, the layer in it, and the direction
    cell                  the name of its cell
    steps                 time steps that norms belong to, in order; a module that was called
                          several times has the steps of its calls one after another
    norms                 for each part of the state, ‖dLoss/dState‖ after each of `steps`: the
                          norm over features, the mean over rows that are real there (NaN: none)
    memory_length         for each part, steps from the end (the last of `steps` with a gradient)
                          back to the one where its norm has halved, None where it never does.
                          Where `steps` skips some, that is the most it can be: see `memory`
    spectral_radius       for each gate, the largest |eigenvalue| of its recurrent weights
    gates                 for each gate that opens and closes
    lyapunov              the largest exponents of up to 32 steps of one row: the gradient grows
                          (> 0) or shrinks (< 0) as exp(λt) on its way back
    """

    name: str
    layer: int
    reverse: bool
    cell: str
    steps: tuple[int, ...]
    norms: Mapping[str, tuple[float, ...]]
    memory_length: Mapping[str, int | None]
    spectral_radius: Mapping[str, float]
    gates: Mapping[str, GateFlow]
    lyapunov: tuple[float, ...]

    @property
    def title(self) -> str:
        """Such as `encoder, layer 0, reverse`."""
        return f"{self.name}, layer {self.layer}" + (", reverse" if self.reverse else "")

    def memory(self, part: str) -> str:
        """`memory_length` of a part of the state, in words, as far as it is known.

        "7" steps; "at most 16", because the steps just before were not looked at; "over 99", which
        is as far as there are steps; "no gradient" anywhere; "no way back", because the only state
        with a gradient is that of the first step that the layer reads.
        """
        way = [back for back, _ in _way_back(self.steps, self.norms[part], self.reverse)]
        halved = self.memory_length[part]
        if not way:
            return "no gradient"
        if halved is not None:
            return f"{halved}" if halved - 1 in way else f"at most {halved}"
        return f"over {way[-1]}" if len(way) > 1 else "no way back"


@dataclass(frozen=True)
class GradientFlow:
    """What `gradient_flow` found: the loss, and every recurrent layer and direction."""

    loss: float
    layers: tuple[LayerFlow, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; numbers that JSON cannot hold are None."""
        form: dict[str, Any] = finite(asdict(self))
        return form

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> GradientFlow:
        """The inverse of `to_json`; None is NaN where a number belongs."""
        return cls(_number(form["loss"]), tuple(map(_read_layer, form["layers"])))


def gradient_flow(
    model: nn.Module,
    batch: Any,
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    scale: float = 1.0,
    steps: int = PIECES,
) -> GradientFlow:
    """Measure how the gradient of loss(model, batch) flows back through the model's states.

    The norm at a step is that of the whole gradient of the state there: what comes back from later
    steps and, where the state is the output of the step too, what comes from that output. A loss
    of every step therefore feeds a norm everywhere; the exponents show what the steps alone do to
    it. A loss of one step reaches only what was read before that step: of the last step, the
    reverse direction has read nothing else, so its norms are 0 but for that step.

    Costs one or two training steps. Parameters, their .grad, buffers and torch's random state are
    the same after the call as before it.

    model   anything with layers of `recurra.nn` inside, not compiled
    batch   whatever `loss` takes
    loss    called once; returns a scalar
    scale   the way back starts from scale · loss, and norms are divided by it: keeps the gradients
            of float16 from underflow

    steps   how many time steps of a call are looked at, at most; 16 or more. The time that a
            measurement takes is nearly proportional to it

    Raises: ConfigError when no layer of `recurra.nn` ran, the loss does not depend on one, scale is
    not positive, or steps is below 16; ShapeError when the loss is not a scalar; ArgumentError when
    it is no tensor, for a model that is no module and a loss that is no function.

    >>> from recurra import nn
    >>> _ = torch.manual_seed(0)
    >>> rnn = nn.RNN(3, 8, batch_first=True)
    >>> def last(model, x):
    ...     return model(x)[0][:, -1].square().mean()
    >>> layer = gradient_flow(rnn, torch.randn(4, 20, 3), last).layers[0]
    >>> layer.steps[-1], layer.norms["h"][0] < 1e-3 * layer.norms["h"][-1], layer.lyapunov[0] < 0
    (19, True, True)

    Source: Pascanu, Mikolov, Bengio 2013, "On the difficulty of training recurrent neural
    networks", for the norm along time.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"gradient_flow: model is a {type(model).__name__}; expected a torch.nn.Module, as in "
            "gradient_flow(model, batch, loss)."
        )
    if not callable(loss):
        raise ArgumentError(
            f"gradient_flow: loss is a {type(loss).__name__}; expected a function that is called "
            "as loss(model, batch) and returns a scalar tensor."
        )
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise ConfigError(
            f"gradient_flow: scale is {scale!r}; expected a positive, finite number, 1.0 for none."
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < FEWEST_STEPS:
        raise ConfigError(
            f"gradient_flow: steps is {steps!r}; expected a whole number of {FEWEST_STEPS} or "
            f"more, {PIECES} by default."
        )
    with (
        _left_alone(model),
        torch.enable_grad(),
        recording(weights=False, pieces=steps) as recorder,
    ):
        value = loss(model, batch)
        calls = list(recorder.calls)  # a model that recomputes parts of itself adds to them
        _check(value, calls)
        norms = _norms(calls, value, scale)
    names = {id(module): name for name, module in model.named_modules()}
    groups: dict[tuple[int, int, bool], list[int]] = {}
    for number, call in enumerate(calls):
        key = (id(call.module), call.layer, call.sequence.reverse)
        groups.setdefault(key, []).append(number)
    layers = tuple(
        _layer_flow(
            names.get(key[0]) or type(calls[numbers[0]].module).__name__,
            [calls[n] for n in numbers],
            [norms[n] for n in numbers],
        )
        for key, numbers in groups.items()
    )
    return GradientFlow(float(value.detach()), layers)


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass changes: buffers, and what torch's generators have drawn."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {p.get_device() for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices), device_type="cuda"):
        try:
            yield
        finally:
            for module, name, buffer, before in kept:
                module._buffers[name] = buffer
                if not torch.equal(buffer, before):
                    with torch.no_grad():
                        buffer.copy_(before)


def _check(value: Any, calls: Sequence[Call]) -> None:
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"gradient_flow: loss(model, batch) returned {_described(value)}; expected a scalar "
            "tensor. Return the loss as a training step would call backward() of it, without "
            "item() or float()."
        )
    if not calls:
        raise ConfigError(
            "gradient_flow: no layer of recurra.nn ran while the loss was computed. Use recurra.nn "
            "layers, swap torch's by recurra.accelerate(model), and pass the model uncompiled."
        )
    if value.dim() != 0:
        raise ShapeError(
            f"gradient_flow: the loss has shape {tuple(value.shape)}; expected a scalar. Take its "
            "mean or sum before returning it."
        )
    if not value.requires_grad:
        raise ConfigError(
            "gradient_flow: the loss does not depend on any recurrent layer. Compute it from the "
            "model's output, without detach() or no_grad()."
        )


def _described(value: Any) -> str:
    if value is None or isinstance(value, int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def _norms(calls: Sequence[Call], loss: Tensor, scale: float) -> list[dict[str, list[float]]]:
    """For each call and part of its state, the norms in the order of `call.pieces`."""
    tensors = [t for call in calls for piece in call.pieces for t in (piece.output, *piece.final)]
    found = iter(
        torch.autograd.grad(loss * scale, tensors, allow_unused=True, materialize_grads=True)
    )
    return [_call_norms(call, found, scale) for call in calls]


def _call_norms(call: Call, found: Iterator[Tensor], scale: float) -> dict[str, list[float]]:
    sequence, parts = call.sequence, list(call.sequence.cell.state_sizes())
    output_part = sequence.cell.output_part
    columns: dict[str, list[Tensor]] = {part: [] for part in parts}
    for piece in call.pieces:
        at_last = piece.last(sequence.reverse) - piece.begin
        d_output = next(found).select(sequence.time_axis, at_last)
        for part in parts:
            d_part = next(found)
            columns[part].append(d_part + d_output if part == output_part else d_part)
    real = _real_rows(call, [piece.last(sequence.reverse) for piece in call.pieces])
    return {part: _row_means(torch.stack(rows), real, scale) for part, rows in columns.items()}


def _real_rows(call: Call, steps: Sequence[int]) -> Tensor:
    """(steps, B) bool, True where a row is real."""
    sequence = call.sequence
    at = torch.tensor(steps, device=sequence.x.device).unsqueeze(1)
    if sequence.lengths is None:
        return torch.ones(len(steps), sequence.batch, dtype=torch.bool, device=at.device)
    return at < sequence.lengths.values


def _row_means(d: Tensor, real: Tensor, scale: float) -> list[float]:
    """The norm over features of d (K, B, size), averaged over real rows."""
    # In float64: the square of a gradient that has all but vanished is nothing in float32.
    norms = torch.linalg.vector_norm(d, dim=-1, dtype=torch.float64) / scale
    sums = torch.where(real, norms, 0).sum(1)
    means: list[float] = (sums / real.sum(1)).tolist()
    return means


def _layer_flow(
    name: str, calls: Sequence[Call], norms: Sequence[Mapping[str, list[float]]]
) -> LayerFlow:
    """What is known of one direction of one layer, from all of its calls."""
    first = max(calls, key=lambda call: call.sequence.time)
    cell, reverse = first.sequence.cell, first.sequence.reverse
    steps: list[int] = []
    columns: dict[str, list[float]] = {part: [] for part in cell.state_sizes()}
    begin = 0
    for call, found in zip(calls, norms, strict=True):
        order = slice(None, None, -1 if reverse else 1)
        steps += [begin + piece.last(reverse) for piece in call.pieces[order]]
        for part, values in found.items():
            columns[part] += values[order]
        begin += call.sequence.time
    params = {key: value.detach() for key, value in first.sequence.params.items()}
    memory = {part: _memory_length(steps, values, reverse) for part, values in columns.items()}
    with torch.no_grad(), torch.autocast(first.sequence.x.device.type, enabled=False):
        return LayerFlow(
            name=name,
            layer=first.layer,
            reverse=reverse,
            cell=cell.name,
            steps=tuple(steps),
            norms={part: tuple(values) for part, values in columns.items()},
            memory_length=memory,
            spectral_radius=spectral_radii(cell, params),
            gates=_gate_flows(calls),
            lyapunov=_exponents(first, params),
        )


def _memory_length(
    steps: Sequence[int], norms: Sequence[float], reverse: bool = False
) -> int | None:
    """Steps back from the last one with a gradient until its norm has halved, None for never."""
    way = _way_back(steps, norms, reverse)
    return next((back for back, norm in way if norm <= way[0][1] / 2), None)


def _way_back(
    steps: Sequence[int], norms: Sequence[float], reverse: bool
) -> list[tuple[int, float]]:
    """(steps back, norm) from the last step with a gradient, without steps that no row has."""
    pairs = [(t, norm) for t, norm in zip(steps, norms, strict=True) if not math.isnan(norm)]
    back = pairs if reverse else pairs[::-1]
    while back and not back[0][1] > 0:
        back = back[1:]
    return [(abs(back[0][0] - t), norm) for t, norm in back]


def spectral_radii(cell: Cell, params: Params) -> dict[str, float]:
    """The largest |eigenvalue| of each gate's recurrent weights U, or of U R with a projection R.

    Blocks that do not map the state to something of its own size are left out.

    >>> from recurra.cells.elman import Elman
    >>> spectral_radii(Elman(1, 2), {"weight_hh": torch.tensor([[0.0, 9.0], [0.0, 2.0]])})
    {'h': 2.0}
    """
    found = {}
    for name in cell.recurrent_weights:
        weight = params[name].to(torch.promote_types(params[name].dtype, torch.float32))
        blocks, labels = [weight], [name]
        if len(weight) == len(cell.gates) * cell.hidden_size:
            blocks, labels = list(weight.chunk(len(cell.gates))), list(cell.gates)
        for label, block in zip(labels, blocks, strict=True):
            square = block @ params["weight_hr"].to(block) if "weight_hr" in params else block
            if square.dim() == 2 and square.shape[0] == square.shape[1]:
                found[label] = _spectral_radius(square)
    return found


def _spectral_radius(square: Tensor) -> float:
    if not bool(square.isfinite().all()):
        return math.nan
    return float(torch.linalg.eigvals(square).abs().max())


def _gate_flows(calls: Sequence[Call]) -> dict[str, GateFlow]:
    """The gates in up to GATE_STEPS steps of each call, spread over its time."""
    found: dict[str, list[Tensor]] = {}
    for call in calls:
        for gate, values in _gate_values(call).items():
            found.setdefault(gate, []).append(values.flatten())
    flows = {}
    for gate, tensors in found.items():
        values = torch.cat(tensors).float()
        if len(values):
            shares = (values, (values < CLOSED).float(), (values > OPEN).float())
            flows[gate] = GateFlow(*torch.stack([share.mean() for share in shares]).tolist())
    return flows


def _gate_values(call: Call) -> dict[str, Tensor]:
    """Each gate in the real rows of the first steps of some pieces."""
    sequence, cell = call.sequence, call.sequence.cell
    axis, params = sequence.time_axis, sequence.params
    dtype = next(iter(params.values())).dtype
    pieces = call.pieces[:: -(-len(call.pieces) // GATE_STEPS)]
    steps = [piece.first(sequence.reverse) for piece in pieces]
    at = torch.tensor(steps, device=sequence.x.device)
    real = _real_rows(call, steps)

    def rows(over_time: Tensor) -> Tensor:
        """The real rows of a tensor in the layout of x at these steps."""
        chosen = over_time.index_select(axis, at)
        return (chosen.transpose(0, 1) if axis == 1 else chosen)[real].to(dtype)

    starts = zip(*(piece.start for piece in pieces), strict=True)
    state = cell.make_state(*(torch.stack(parts)[real].to(dtype) for parts in starts))
    if sequence.reset is not None:
        begun = sequence.reset[:, steps].t()[real].unsqueeze(1)
        fresh = cell.initial_state(len(begun), params)
        pairs = zip(fresh, state, strict=True)
        state = cell.make_state(*(torch.where(begun, new, old) for new, old in pairs))
    masks = NO_MASKS
    if sequence.masks is not None and sequence.masks.h is not None:
        h = sequence.masks.h
        masks = Masks(rows(h) if h.dim() == 3 else h.expand(len(steps), -1, -1)[real].to(dtype))
    return cell.gate_values(cell.project(rows(sequence.x), params), state, params, masks)


def _exponents(call: Call, params: Params) -> tuple[float, ...]:
    """Lyapunov exponents along the longest row of a call, by the cell's own step."""
    sequence, cell = call.sequence, call.sequence.cell
    if sequence.batch == 0:
        return ()
    row = 0 if sequence.lengths is None else int(sequence.lengths.values.argmax())
    piece, steps = _longest_window(call, row)
    if piece is None:
        return ()
    state: State = cell.make_state(*(part[row : row + 1] for part in piece.start))
    if sequence.reset is not None and bool(sequence.reset[row, steps[0]]):
        state = cell.initial_state(1, params)
    dtype = next(iter(params.values())).dtype
    dtype = torch.promote_types(dtype, torch.float32)  # there is no QR of half precision
    wide = {name: value.to(dtype) for name, value in params.items()}
    x = sequence.x.select(1 - sequence.time_axis, row)[steps].to(dtype)
    state = cell.make_state(*(part.to(dtype) for part in state))
    return tuple(lyapunov_exponents(cell, x, state, wide))


def _longest_window(call: Call, row: int) -> tuple[Piece | None, list[int]]:
    """The latest piece from which most steps of the row, up to WINDOW, go on without a reset."""
    sequence, reverse = call.sequence, call.sequence.reverse
    length = sequence.time if sequence.lengths is None else int(sequence.lengths.values[row])
    reset = [False] * length if sequence.reset is None else sequence.reset[row].tolist()
    chosen: Piece | None = None
    longest: list[int] = []
    for piece in call.pieces:
        first = min(piece.first(reverse), length - 1)
        if first < piece.begin:
            continue
        steps = list(
            range(first, max(first - WINDOW, -1), -1)
            if reverse
            else range(first, min(first + WINDOW, length))
        )
        cut = next((n for n, t in enumerate(steps) if n > 0 and reset[t]), len(steps))
        if cut >= len(longest):
            chosen, longest = piece, steps[:cut]
    return chosen, longest


def _read_layer(form: Mapping[str, Any]) -> LayerFlow:
    numbers = {part: tuple(map(_number, values)) for part, values in form["norms"].items()}
    return LayerFlow(
        name=form["name"],
        layer=form["layer"],
        reverse=form["reverse"],
        cell=form["cell"],
        steps=tuple(form["steps"]),
        norms=numbers,
        memory_length=dict(form["memory_length"]),
        spectral_radius={gate: _number(r) for gate, r in form["spectral_radius"].items()},
        gates={gate: GateFlow(**values) for gate, values in form["gates"].items()},
        lyapunov=tuple(map(_number, form["lyapunov"])),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
