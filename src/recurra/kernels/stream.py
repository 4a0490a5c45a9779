"""A stack of cells that is stepped through a stream by the compiled core.

The weights are packed once and the state lies in place, so a step is one call without allocation.
Outputs have the bits that the cpu backend gives for the same rows in a batch: packed numbers are
widened before use, so weights="bfloat16" and "int8" give the bits of a layer whose weights have
been rounded to them.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import torch
from torch import Tensor

from recurra.cells.cell import Cell, Params
from recurra.kernels import core, cpu
from recurra.kernels.layout import (
    MOST_PARTS,
    PARAMETERS,
    addresses,
    apart,
    core_name,
    in_core,
    kind_of,
    time_step,
)
from recurra.kernels.sequence import Features

# How weights are stored, in the order of csrc/plan.h: float32 stands for the layer's own dtype.
WEIGHTS = ("float32", "bfloat16", "int8")
# A second thread pays from about this many bytes of weights; below, waking it costs more.
BYTES_OF_A_THREAD = 512 * 1024


def why_not(cells: SequenceOf[Cell], params: SequenceOf[Params]) -> str | None:
    """Why the core cannot stream these cells with these parameters, or None."""
    tensors = [value for own in params for value in own.values()]
    dtype, device = tensors[0].dtype, tensors[0].device
    if dtype in cpu.WIDENED:
        return f"it streams float32 and float64, and the parameters are {dtype}"
    features = Features(batch=1, time=1, plain=core.are_plain(tensors))
    reasons = (cpu.why_not(cell, features, dtype, device) for cell in cells)
    return next((reason for reason in reasons if reason is not None), None)


class CoreStream:
    """The cells one after another, each over the outputs of the one before.

    state holds for every cell its parts, (batch, size) each; they are read and written in place.
    keep is the zoneout expectation of every part of the state.
    Raises: ShapeError for parameters that do not go with their cell and with one another.
    """

    def __init__(
        self,
        cells: SequenceOf[Cell],
        params: SequenceOf[Params],
        batch: int,
        weights: str,
        threads: int,
        keep: SequenceOf[SequenceOf[float]],
    ) -> None:
        like = next(iter(params[0].values()))
        pairs = [cpu.plain_cell(*pair) for pair in zip(cells, params, strict=True)]
        cells, params = [cell for cell, _ in pairs], [own for _, own in pairs]
        for cell, own in zip(cells, params, strict=True):
            for name, shape in cell.parameter_shapes().items():
                core.check(cell.name, name, own[name], shape, like.dtype)
        held = [
            [like.new_zeros(batch, size) for size in in_core(cell.state_sizes().values())]
            for cell in cells
        ]
        self.state = [
            apart(parts, len(cell.state_sizes())) for cell, parts in zip(cells, held, strict=True)
        ]
        choice = cpu.choice._replace(threads=threads or _threads(cells, weights))
        kept = [
            {core_name(cell, name): core.stored(p.detach()).contiguous() for name, p in own.items()}
            for cell, own in zip(cells, params, strict=True)
        ]
        layers = [
            (
                kind_of(cell),
                like.dtype == torch.float64,
                cell.input_size,
                cell.hidden_size,
                cell.output_size,
                time_step(cell),
                *(own[name].data_ptr() if name in own else 0 for name in PARAMETERS),
                *addresses(parts),
                *zone,
                *(0.0,) * (MOST_PARTS - len(zone)),
            )
            for cell, own, parts, zone in zip(cells, kept, held, keep, strict=True)
        ]
        self._push = core.module.Stream(choice, layers, batch, WEIGHTS.index(weights)).push
        self._sizes = cells[0].input_size, cells[-1].output_size

    def push(self, x: Tensor, y: Tensor) -> None:
        """One step: x (B, I) into y (B, O), both contiguous; or without B when that is 1."""
        inputs, outputs = self._sizes
        self._push(x.data_ptr(), inputs, 0, y.data_ptr(), outputs, 0, 1)

    def push_chunk(self, x: Tensor, y: Tensor) -> None:
        """Several steps: x (B, T, I) into y (B, T, O); last axes contiguous."""
        x_batch, x_time, _ = x.stride()
        y_batch, y_time, _ = y.stride()
        time = x.shape[1]
        self._push(x.data_ptr(), x_batch, x_time, y.data_ptr(), y_batch, y_time, time)


def _threads(cells: SequenceOf[Cell], weights: str) -> int:
    bytes_each = {"float32": 4, "bfloat16": 2, "int8": 1}[weights]
    largest = max(
        len(cell.gates) * cell.hidden_size * (cell.input_size + cell.output_size) for cell in cells
    )
    return max(1, min(torch.get_num_threads(), largest * bytes_each // BYTES_OF_A_THREAD))
