"""Checks of what users pass to a recurrent layer, each done once, at the public door."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from torch import Tensor

from recurra.cells.cell import Cell
from recurra.errors import ConfigError, ShapeError
from recurra.kernels import dispatch
from recurra.kernels.sequence import Recompute


def is_list(hidden_size: int | Sequence[int]) -> TypeGuard[Sequence[int]]:
    """Whether each layer was given a size of its own."""
    return isinstance(hidden_size, list | tuple)


def cells_for(
    who: str,
    make: Callable[[int, int], Cell],
    input_size: int,
    hidden_size: int | Sequence[int],
    num_layers: int,
    bidirectional: bool,
) -> list[Cell]:
    """One cell for each layer; `make(input_size, hidden_size)` makes one.

    Raises: ConfigError when there is no layer, or the list of sizes contradicts num_layers.
    """
    if isinstance(num_layers, bool) or not isinstance(num_layers, int) or num_layers < 1:
        raise ConfigError(
            f"{who}: num_layers is {num_layers!r}, but must be an integer of at least 1."
        )
    check_flags(who, bidirectional=bidirectional)
    sizes: list[Any] = list(hidden_size) if is_list(hidden_size) else [hidden_size] * num_layers
    if not sizes:
        raise ConfigError(f"{who}: hidden_size is an empty list; give one size for each layer.")
    if num_layers not in (1, len(sizes)):
        raise ConfigError(
            f"{who}: hidden_size lists {len(sizes)} layers, but num_layers={num_layers}. Leave "
            "num_layers out, or give as many sizes."
        )
    cells: list[Cell] = []
    for size in sizes:
        cells.append(make(input_size, size))
        input_size = cells[-1].output_size * (2 if bidirectional else 1)
    return cells


def check_flags(who: str, **flags: Any) -> None:
    """Raise ConfigError for a flag that is not True or False: often an argument out of place."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(
                f"{who}: {name} is {value!r}, but must be True or False. Check the order of "
                "arguments, or pass them by name."
            )


def check_dropout(who: str, dropout: float, num_layers: int) -> None:
    """Raise ConfigError outside 0..1; warn where there is nothing between layers to drop."""
    check_probability(who, "dropout", dropout)
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            f"{who}: dropout={dropout} acts between layers, and there is only one layer, so it "
            "does nothing. Use num_layers=2 or more, or torch.nn.Dropout after this layer.",
            stacklevel=4,
        )


def check_probability(who: str, name: str, value: Any) -> float:
    """The value as a float. Raises: ConfigError for what is no number from 0 to 1."""
    if not _is_probability(value):
        raise ConfigError(f"{who}: {name} is {value!r}, but must be a number from 0 to 1.")
    return float(value)


def check_limit(who: str, name: str, value: Any) -> float | None:
    """The value as a float. Raises: ConfigError for what is neither None nor a number above 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(
            f"{who}: {name} is {value!r}, but must be a number above 0, or None for no limit."
        )
    return float(value)


def check_recompute(who: str, recompute: Any) -> Recompute:
    """Raise ConfigError for anything but None, "gates" and a number of segments."""
    if recompute is None or recompute == "gates":
        return recompute  # type: ignore[no-any-return]
    if isinstance(recompute, bool) or not isinstance(recompute, int) or recompute < 1:
        raise ConfigError(
            f"{who}: recompute is {recompute!r}, but must be None, 'gates', or a number of "
            "segments of time, at least 1."
        )
    return recompute


def check_recurrent_dropout(who: str, recurrent_dropout: Any, cell: Cell) -> float:
    """The probability as a float.

    Raises: ConfigError for what is no number from 0 to 1, and for one above 0 where the cell has no
    product with h that a mask could act in.
    """
    p = check_probability(who, "recurrent_dropout", recurrent_dropout)
    if p > 0 and not cell.has_recurrent_product:
        raise ConfigError(
            f"{who}: recurrent_dropout is {p}, but it masks h in the product with recurrent "
            f"weights, and {cell.name} has none. Leave it out, and use variational_dropout, which "
            "masks the input, or zoneout."
        )
    return p


def check_zoneout(who: str, zoneout: Any, parts: Sequence[str]) -> float | tuple[float, ...]:
    """One probability, or one for each part of the state where it has several.

    Raises: ConfigError for anything else.
    """
    if isinstance(zoneout, tuple | list) and len(parts) > 1:
        if len(zoneout) == len(parts) and all(_is_probability(value) for value in zoneout):
            return tuple(float(value) for value in zoneout)
    elif _is_probability(zoneout):
        return float(zoneout)
    several = f", or one for each of ({', '.join(parts)})" if len(parts) > 1 else ""
    raise ConfigError(f"{who}: zoneout is {zoneout!r}, but must be a number from 0 to 1{several}.")


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def check_x(who: str, x: Any, input_size: int, weight: Tensor, batch_first: bool) -> None:
    """Raise ShapeError unless x is a tensor that fits the layer's sizes, device and dtype."""
    if (
        isinstance(x, Tensor)
        and x.dim() in (2, 3)
        and x.shape[-1] == input_size
        and x.dtype == weight.dtype
        and x.is_floating_point()
        and x.device == weight.device
    ):
        return
    batched = f"(batch, time, {input_size})" if batch_first else f"(time, batch, {input_size})"
    if not isinstance(x, Tensor):
        raise ShapeError(
            f"{who}: x is a {type(x).__name__}, but must be a tensor {batched} or a "
            "PackedSequence. Use torch.as_tensor(x)."
        )
    if x.dim() not in (2, 3):
        raise ShapeError(
            f"{who}: x has {x.dim()} axes, shape {tuple(x.shape)}, but must have 3, {batched}, "
            f"or 2 for one sequence, (time, {input_size})."
        )
    if x.shape[-1] != input_size:
        seen = x.shape[-1]
        raise ShapeError(
            f"{who}: x has {seen} features on its last axis, but this layer was made with "
            f"input_size={input_size}. Pass {batched}, or make {who}({seen}, ...)."
        )
    if x.device != weight.device:
        raise ShapeError(
            f"{who}: x is on {x.device}, but the layer's parameters are on {weight.device}. "
            f"Use x.to({str(weight.device)!r}) or layer.to({str(x.device)!r})."
        )
    if not x.is_floating_point():
        raise ShapeError(
            f"{who}: x has dtype {x.dtype}, but must be floating point. Use x.to({weight.dtype}), "
            "or an embedding for class numbers."
        )
    if x.dtype != weight.dtype and not dispatch.autocasts(x.device):
        raise ShapeError(
            f"{who}: x has dtype {x.dtype}, but the layer's parameters have {weight.dtype}. "
            f"Use x.to({weight.dtype}) or layer.to({x.dtype}); nothing is converted silently."
        )
