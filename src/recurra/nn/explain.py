"""Which backend a layer would use for an input, and why not the others."""

from __future__ import annotations

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.kernels import dispatch
from recurra.kernels.sequence import Features
from recurra.nn.arguments import check_x
from recurra.nn.dropouts import zoneout_parts
from recurra.nn.packed import unpack
from recurra.nn.recurrent import Recurrent


def explain(
    layer: Recurrent,
    x: Tensor | PackedSequence,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> str:
    """Say, for each layer and direction, which backend runs x and why every other one does not.

    The arguments are those of the call in question; nothing is computed.
    Raises: ShapeError when x does not fit the layer.

    >>> import torch
    >>> from recurra import nn
    >>> print(explain(nn.GRU(3, 5), torch.zeros(7, 2, 3)))
    GRU(3, 5), float32 on cpu, backend='auto'
      layer 0: cpu
        not cudnn: it needs a CUDA device, and x is on cpu
        not reference: it could, but cpu is preferred
    """
    if isinstance(x, PackedSequence):
        x, lengths = unpack(x, layer.batch_first)
    check_x(type(layer).__name__, x, layer.input_size, layer.all_weights[0][0], layer.batch_first)
    dtype = dispatch.working_dtype(x)
    lines = [
        f"{layer}, {str(dtype).removeprefix('torch.')} on {x.device}, backend={layer.backend!r}"
    ]
    shape = (1, *x.shape) if x.dim() == 2 else tuple(x.shape)
    batch_axis = 0 if layer.batch_first or x.dim() == 2 else 1
    for number, cell in enumerate(layer.cells):
        for direction in range(2 if layer.bidirectional else 1):
            features = Features(
                batch=shape[batch_axis],
                time=shape[1 - batch_axis],
                lengths=lengths is not None,
                reset=reset is not None,
                reverse=direction == 1,
                masks=layer.training and layer.recurrent_dropout > 0,
                zoneout=any(zoneout_parts(layer.zoneout, cell)),
            )
            reasons = dispatch.reasons(cell, features, dtype, x.device)
            chosen = _chosen(layer.backend, reasons)
            where = f"layer {number}" + (", reverse" if direction else "")
            lines.append(f"  {where}: {chosen or 'no backend'}")
            for name, reason in reasons.items():
                if name != chosen:
                    lines.append(f"    not {name}: {reason or _passed_over(layer.backend, chosen)}")
    return "\n".join(lines)


def _chosen(backend: str, reasons: dict[str, str | None]) -> str | None:
    if backend != dispatch.AUTO:
        return backend if reasons[backend] is None else None
    return next((name for name, reason in reasons.items() if reason is None), None)


def _passed_over(backend: str, chosen: str | None) -> str:
    if backend != dispatch.AUTO:
        return f"it could, but backend={backend!r} was asked for"
    return f"it could, but {chosen} is preferred"
