"""Which backend a layer would use for an input, how, and why not the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from recurra.cells.cell import Cell
from recurra.errors import ArgumentError, ShapeError
from recurra.kernels import core, cpu, dispatch, scanned
from recurra.kernels.sequence import Features
from recurra.nn.accelerate import OURS
from recurra.nn.arguments import check_x
from recurra.nn.cell_layers import CellLayer
from recurra.nn.dropouts import zoneout_parts
from recurra.nn.packed import unpack
from recurra.nn.recurrent import Recurrent


def explain(
    layer: Recurrent | CellLayer,
    x: Tensor | PackedSequence,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> str:
    """Say, for each layer and direction, which backend runs x and why every other one does not.

    The arguments are those of the call in question; nothing is computed. For the cpu backend it
    also says at which level of vector instructions and with how many threads it would run, for the
    scan backend whether the core runs the scan.
    Raises: ShapeError when the arguments do not fit the layer; ArgumentError for anything but a
    layer of recurra.nn, such as torch's own or a model around one.

    >>> import torch
    >>> from recurra import nn
    >>> print(explain(nn.GRU(3, 5), torch.zeros(7, 2, 3)))
    GRU(3, 5), float32 on cpu, backend='auto'
      layer 0: cpu
        ...-bit vectors, 1 thread ...; second derivatives by reference
        not cudnn: it needs a CUDA device, and x is on cpu
        not chunkwise: it runs mLSTM only, and the cell is GRU
        not scan: it runs linear recurrences only, and the cell is GRU
        not reference: it could, but cpu is preferred
    """
    if isinstance(layer, CellLayer):
        return _explain_step(layer, x, lengths, reset)
    if not isinstance(layer, Recurrent):
        raise ArgumentError(_not_ours(layer))
    if isinstance(x, PackedSequence):
        x, lengths = unpack(x, layer.batch_first)
    check_x(type(layer).__name__, x, layer.input_size, layer.all_weights[0][0], layer.batch_first)
    dtype = dispatch.working_dtype(x)
    lines = [_title(layer, x, dtype)]
    shape = (1, *x.shape) if x.dim() == 2 else tuple(x.shape)
    batch_axis = 0 if layer.batch_first or x.dim() == 2 else 1
    directions = 2 if layer.bidirectional else 1
    for number, cell in enumerate(layer.cells):
        for direction in range(directions):
            features = Features(
                batch=shape[batch_axis],
                time=shape[1 - batch_axis],
                lengths=lengths is not None,
                reset=reset is not None,
                reverse=direction == 1,
                masks=layer.training and layer.recurrent_dropout > 0,
                zoneout=any(zoneout_parts(layer.zoneout, cell)),
                clip=layer.clip_state_grad is not None,
                learned_start=layer.learn_initial_state and reset is not None,
                plain=core.are_plain([x, *layer.all_weights[number * directions + direction]]),
            )
            where = f"layer {number}" + (", reverse" if direction else "")
            lines += _reasons(where, layer, cell, features, dtype, x.device, directions)
    return "\n".join(lines)


def _not_ours(layer: Any) -> str:
    """What is wrong with explaining something else than a layer of recurra.nn, and what to do."""
    name = type(layer).__name__
    torchs = tuple(OURS)
    if isinstance(layer, torchs):
        plain = next(kind.__name__ for kind in torchs if isinstance(layer, kind))
        return (
            f"explain: {name} is torch's own layer, which recurra does not run. Use "
            f"recurra.nn.{plain}, or recurra.accelerate(model), which swaps it in place and "
            "reports the backend."
        )
    if not isinstance(layer, nn.Module):
        given = f"the class {layer.__name__}" if isinstance(layer, type) else f"a {name}"
        return (
            f"explain: layer is {given}, but must be a layer of recurra.nn. Pass it first, as in "
            "explain(recurra.nn.GRU(3, 5), x)."
        )
    modules = dict(layer.named_modules())
    inside = [path for path, m in modules.items() if isinstance(m, Recurrent | CellLayer)]
    if inside:
        return (
            f"explain: {name} is a model, and has the layer of recurra.nn {inside[0]!r} inside. "
            f"Pass that layer and its own input: explain(model.get_submodule({inside[0]!r}), x)."
        )
    hint = "Pass a layer of recurra.nn, such as recurra.nn.GRU"
    if any(isinstance(module, torchs) for module in modules.values()):
        hint = "Swap torch's layers inside by recurra.accelerate(model), which reports the backends"
    return f"explain: {name} is no recurrent layer of recurra.nn, and has none inside. {hint}."


def _explain_step(
    layer: CellLayer,
    x: Tensor | PackedSequence,
    lengths: Tensor | None,
    reset: Tensor | None,
) -> str:
    who = type(layer).__name__
    for name, value in (("lengths", lengths), ("reset", reset)):
        if value is not None:
            raise ShapeError(
                f"{who}: {name} is given, but a cell runs one step and takes no {name}. Leave it "
                f"out, or explain a recurra.nn.{who.removesuffix('Cell')}."
            )
    layer._check_x(x.contiguous() if isinstance(x, Tensor) else x, layer._params()["weight_ih"])
    assert isinstance(x, Tensor)
    dtype = dispatch.working_dtype(x)
    plain = core.are_plain([x, *layer._params().values()])
    features = Features(batch=x.shape[0] if x.dim() == 2 else 1, time=1, plain=plain)
    lines = _reasons("one step", layer, layer.cell, features, dtype, x.device, 1)
    return "\n".join([_title(layer, x, dtype), *lines])


def _title(layer: Recurrent | CellLayer, x: Tensor, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return f"{layer}, {name} on {x.device}, backend={layer.backend!r}"


def _reasons(
    where: str,
    layer: Recurrent | CellLayer,
    cell: Cell,
    features: Features,
    dtype: torch.dtype,
    device: torch.device,
    directions: int,
) -> list[str]:
    """The lines of one direction of one layer."""
    reasons = dispatch.reasons(cell, features, dtype, device)
    chosen = _chosen(layer.backend, reasons)
    lines = [f"  {where}: {chosen or 'no backend'}"]
    if chosen == "cpu":
        lines.append(f"    {_how(cell, features, dtype, directions)}")
    elif chosen == "scan":
        lines.append(f"    {scanned.outline(features, dtype, device)}")
    for name, reason in reasons.items():
        if name != chosen:
            lines.append(f"    not {name}: {reason or _passed_over(layer.backend, chosen)}")
    return lines


def _how(cell: Cell, features: Features, dtype: torch.dtype, directions: int) -> str:
    """How the cpu backend runs the call, and what keeps it from more threads."""
    plan = cpu.outline(cell, features, dtype, directions)
    torchs, (usable, allowed) = torch.get_num_threads(), cpu.threads()
    limits = f"torch allows {torchs}, {_count(allowed, 'CPU')} allowed"
    if usable < min(torchs, allowed):
        limits += "; 1 in a forked process or without OpenMP"
    elif plan.threads < min(torchs, usable):
        limits += "; more would not pay for so little work"
    parts = [
        f"{plan.level}, {plan.vector_bits}-bit vectors",
        f"{_count(plan.threads, 'thread')} ({limits})",
    ]
    if directions == 2 and plan.threads > 1:
        parts.append("both directions at once")
    if plan.slices > 1:
        parts.append(f"batch in {plan.slices} slices")
    if plan.team > 1:
        parts.append(f"teams of {plan.team}")
    if dtype in cpu.WIDENED:
        parts.append("computed in float32")
    return ", ".join(parts) + "; second derivatives by reference"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _chosen(backend: str, reasons: dict[str, str | None]) -> str | None:
    if backend != dispatch.AUTO:
        return backend if reasons[backend] is None else None
    return next((name for name, reason in reasons.items() if reason is None), None)


def _passed_over(backend: str, chosen: str | None) -> str:
    if backend != dispatch.AUTO:
        return f"it could, but backend={backend!r} was asked for"
    return f"it could, but {chosen} is preferred"
