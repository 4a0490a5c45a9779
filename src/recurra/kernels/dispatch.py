"""Which backend runs a call, and why.

"auto"     the first backend of BACKENDS that can
a name     that backend, or an error with its reason; nothing falls back in silence
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from recurra.cells.cell import Cell, Masks, State
from recurra.errors import BackendError, ConfigError, unknown
from recurra.kernels import cudnn, reference
from recurra.kernels.sequence import Features, Sequence


class Backend(Protocol):
    """What a backend's module offers."""

    def why_not(
        self, cell: Cell, features: Features, dtype: torch.dtype, device: torch.device
    ) -> str | None: ...

    def run(self, sequence: Sequence) -> tuple[Tensor, State]: ...


# In order of preference; the last one can run everything.
BACKENDS: Mapping[str, Backend] = {"cudnn": cudnn, "reference": reference}
AUTO = "auto"


def check_name(name: str) -> None:
    """Raise ConfigError for a backend that does not exist."""
    if name != AUTO and name not in BACKENDS:
        raise ConfigError(unknown("backend", name, [AUTO, *BACKENDS]))


def reasons(
    cell: Cell, features: Features, dtype: torch.dtype, device: torch.device
) -> dict[str, str | None]:
    """For every backend, in order of preference, why it cannot run the call, or None."""
    return {name: b.why_not(cell, features, dtype, device) for name, b in BACKENDS.items()}


def select(
    name: str, cell: Cell, features: Features, dtype: torch.dtype, device: torch.device
) -> str:
    """The name of the backend that runs the call.

    Raises: ConfigError for an unknown name, BackendError when the named one cannot run the call.
    """
    check_name(name)
    if name == AUTO:
        return next(
            candidate
            for candidate, backend in BACKENDS.items()
            if backend.why_not(cell, features, dtype, device) is None
        )
    reason = BACKENDS[name].why_not(cell, features, dtype, device)
    if reason is None:
        return name
    raise BackendError(
        f"backend {name!r} cannot run this {cell.name}: {reason}. Use backend='auto', or "
        "recurra.explain(layer, x) to see what every backend can do."
    )


def run(sequence: Sequence, backend: str = AUTO) -> tuple[Tensor, State]:
    """Run the call on the chosen backend: outputs in the layout of x, and the final state.

    Inside autocast the whole recurrence runs in autocast's dtype, as torch's own does.
    """
    device = sequence.x.device
    dtype = working_dtype(sequence.x)
    if not autocasts(device):
        chosen = select(backend, sequence.cell, sequence.features(), dtype, device)
        return BACKENDS[chosen].run(sequence)
    # Cast once, then off: a second look at every operator of every step would cost more than it.
    sequence = _cast(sequence, dtype)
    with torch.autocast(device.type, enabled=False):
        chosen = select(backend, sequence.cell, sequence.features(), dtype, device)
        return BACKENDS[chosen].run(sequence)


def autocasts(device: torch.device) -> bool:
    """Whether torch.autocast is on for this device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype a call on x runs in: autocast's where that is on; autocast leaves float64 alone."""
    if x.dtype != torch.float64 and autocasts(x.device):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _cast(sequence: Sequence, dtype: torch.dtype) -> Sequence:
    state, masks = sequence.state, sequence.masks
    if state is not None:
        state = sequence.cell.make_state(*(part.to(dtype) for part in state))
    if masks is not None and masks.h is not None:
        masks = Masks(masks.h.to(dtype))
    params = {name: value.to(dtype) for name, value in sequence.params.items()}
    return replace(sequence, x=sequence.x.to(dtype), params=params, state=state, masks=masks)
