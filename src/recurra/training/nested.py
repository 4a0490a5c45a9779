"""Tensors in nested tuples, named tuples, lists and dicts: recurrent states and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.errors import ConfigError


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Same nesting, with `function` applied to every tensor in order; other leaves are kept."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        entries = (map_tensors(entry, function) for entry in value)
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    if isinstance(value, list):
        return [map_tensors(entry, function) for entry in value]
    if isinstance(value, dict):
        return {key: map_tensors(entry, function) for key, entry in value.items()}
    return value


def list_tensors(value: Any) -> list[Tensor]:
    """All tensors in the nesting, in order."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, keep)
    return found


def replace_tensors(value: Any, tensors: list[Tensor]) -> Any:
    """Same nesting with its tensors replaced, in order; the inverse of `list_tensors`."""
    source = iter(tensors)
    return map_tensors(value, lambda _: next(source))


def describe(value: Any) -> str:
    """The nesting as text, such as `(LSTMState(h=tensor, c=tensor), None)`.

    Raises: ConfigError for a leaf that is neither a tensor nor None.
    """
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        named = zip(value._fields, value, strict=True)
        inner = ", ".join(f"{name}={describe(entry)}" for name, entry in named)
        return f"{type(value).__name__}({inner})"
    if isinstance(value, (tuple, list)):
        inner = ", ".join(describe(entry) for entry in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{key!r}: {describe(entry)}" for key, entry in value.items())
        return f"{{{inner}}}"
    raise ConfigError(
        f"the recurrent state returned by the task's loss holds {value!r}, a "
        f"{type(value).__name__}; expected tensors and None in tuples, lists or dicts. "
        "Keep other values out of the state, or make them tensors."
    )


def move(value: Any, device: torch.device) -> Any:
    """Same nesting with all tensors on `device`."""
    if isinstance(value, PackedSequence):
        return value.to(device)  # type: ignore[arg-type]  # its batch sizes have to stay on the CPU
    return map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))
