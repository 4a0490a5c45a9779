"""How the gradient of a loss flows back through the recurrent layers of a model, in numbers.

Layers run in pieces of time while the loss is computed (`recurra.kernels.recording`), so that
dLoss/dState exists between the pieces: after every step of up to 64, else after 64 of them, the
first and the last eight among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recurra.errors import ArgumentError, ConfigError, ShapeError
from recurra.kernels.recording import PIECES, Call, recording
from recurra.training.flow_layers import exponents, gate_flows, real_rows, spectral_radii
from recurra.training.flow_values import GradientFlow, LayerFlow, way_back

# Steps that are looked at, at least: the first, the last eight, and some in between.
FEWEST_STEPS = 16


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
    _check_arguments(model, loss, scale, steps)
    with (
        _left_alone(model),
        torch.enable_grad(),
        recording(weights=False, pieces=steps) as recorder,
    ):
        value = loss(model, batch)
        calls = list(recorder.calls)  # a model that recomputes parts of itself adds to them
        _check_loss(value, calls)
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


def _check_arguments(model: Any, loss: Any, scale: Any, steps: Any) -> None:
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


def _check_loss(value: Any, calls: Sequence[Call]) -> None:
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
    real = real_rows(call, [piece.last(sequence.reverse) for piece in call.pieces])
    return {part: _row_means(torch.stack(rows), real, scale) for part, rows in columns.items()}


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
            gates=gate_flows(calls),
            lyapunov=exponents(first, params),
        )


def _memory_length(
    steps: Sequence[int], norms: Sequence[float], reverse: bool = False
) -> int | None:
    """Steps back from the last one with a gradient until its norm has halved, None for never."""
    way = way_back(steps, norms, reverse)
    return next((back for back, norm in way if norm <= way[0][1] / 2), None)
