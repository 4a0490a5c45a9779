"""Between torch's hx and the states of cells: one state for each layer and direction.

torch stacks them: h_n (num_layers * directions, B, size), for an LSTM the pair (h_n, c_n). When a
layer was made with a list of hidden sizes, its layers cannot be stacked: then each of h_n and c_n
is a tuple with one tensor (directions, B, size) for each layer. Without a batch axis, no B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recurra.cells.cell import Cell, State
from recurra.errors import ShapeError


@dataclass(frozen=True)
class Layout:
    """How the states of `cells`, each run in `directions`, are arranged for the user."""

    cells: Sequence[Cell]
    directions: int
    listed: bool

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.cells[0].state_sizes())

    def split(
        self,
        hx: Any,
        batch: int | None,
        dtype: torch.dtype | None,
        device: torch.device,
        who: str,
    ) -> list[State] | None:
        """One state (B, size) for each layer and direction, in torch's order; None for None.

        batch None means a state without batch axis, dtype None that any floating dtype will do.
        Raises: ShapeError naming the part and its shape, dtype or device.
        """
        if hx is None:
            return None
        parts = self.parts
        given = (hx,) if len(parts) == 1 else hx
        if not isinstance(given, tuple | list) or len(given) != len(parts):
            wanted = ", ".join(f"{part}_0" for part in parts)
            raise ShapeError(
                f"{who}: the initial state is a {type(hx).__name__}, but must be ({wanted}). "
                "Pass what an earlier call returned, or None."
            )
        columns = [
            self._rows(part, value, batch, dtype, device, who)
            for part, value in zip(parts, given, strict=True)
        ]
        flat = (cell for cell in self.cells for _ in range(self.directions))
        return [
            cell.make_state(*row)
            for cell, row in zip(flat, zip(*columns, strict=True), strict=True)
        ]

    def join(self, finals: list[State], batched: bool) -> Any:
        """The final states as the user gets them."""
        if len(finals) == 1 and batched and not self.listed:
            (state,) = finals
            # stack copies: what a backend hands out may be part of its output, or the start.
            alone = tuple([torch.stack((part,)) for part in state])
            return alone[0] if len(alone) == 1 else alone
        joined: list[Any] = []
        for column in zip(*finals, strict=True):
            rows = column if batched else tuple(row.squeeze(0) for row in column)
            if self.listed:
                step = self.directions
                joined.append(
                    tuple(torch.stack(rows[i : i + step]) for i in range(0, len(rows), step))
                )
            else:
                joined.append(torch.stack(rows))
        return joined[0] if len(joined) == 1 else tuple(joined)

    def _rows(
        self,
        part: str,
        value: Any,
        batch: int | None,
        dtype: torch.dtype | None,
        device: torch.device,
        who: str,
    ) -> list[Tensor]:
        sizes = [cell.state_sizes()[part] for cell in self.cells]
        middle = () if batch is None else (batch,)
        name = f"{part}_0"
        if self.listed:
            if not isinstance(value, tuple | list) or len(value) != len(sizes):
                raise ShapeError(
                    f"{who}: {name} must be a tuple of {len(sizes)} tensors, one for each layer, "
                    f"because hidden_size was given as a list; it is a {type(value).__name__}."
                )
            blocks = [
                (f"{name}[{layer}]", block, (self.directions, *middle, size))
                for layer, (block, size) in enumerate(zip(value, sizes, strict=True))
            ]
        else:
            blocks = [(name, value, (len(sizes) * self.directions, *middle, sizes[0]))]
        rows: list[Tensor] = []
        for label, block, shape in blocks:
            _check(label, block, shape, dtype, device, who)
            rows += (block if batch is not None else block.unsqueeze(1)).unbind(0)
        return rows


def _check(
    label: str,
    value: Any,
    shape: tuple[int, ...],
    dtype: torch.dtype | None,
    device: torch.device,
    who: str,
) -> None:
    if not isinstance(value, Tensor):
        raise ShapeError(
            f"{who}: {label} is a {type(value).__name__}, but must be a tensor of shape {shape}."
        )
    if tuple(value.shape) != shape:
        raise ShapeError(
            f"{who}: {label} has shape {tuple(value.shape)}, but this x and layer need {shape}, "
            "(layers * directions, batch, size). Batch stays second whatever batch_first says."
        )
    if value.device != device:
        raise ShapeError(
            f"{who}: {label} is on {value.device}, but x is on {device}. Move it there."
        )
    if not value.is_floating_point() or dtype not in (None, value.dtype):
        raise ShapeError(
            f"{who}: {label} has dtype {value.dtype}, but x has {dtype}. Use {label}.to(x.dtype)."
        )
