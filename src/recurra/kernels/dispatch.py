"""Which backend runs a call, and why.

"auto"     the first backend of BACKENDS that can
a name     that backend, or an error with its reason; nothing falls back in silence
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from typing import Protocol

import torch
from torch import Tensor

from recurra.cells.cell import Cell, Masks, State
from recurra.errors import BackendError, ConfigError, unknown
from recurra.kernels import chunkwise, cpu, cudnn, reference, scanned
from recurra.kernels import compiled as compiled  # registers its operators
from recurra.kernels.recompute import run_in_segments, segments_of
from recurra.kernels.sequence import Features, Sequence, Zoneout


class Backend(Protocol):
    """What a backend's module offers.

    It may also have run_together(calls) -> (output, states), as the function of that name here.
    """

    def why_not(
        self, cell: Cell, features: Features, dtype: torch.dtype, device: torch.device
    ) -> str | None: ...

    def run(self, sequence: Sequence) -> tuple[Tensor, State]: ...


Together = Callable[[SequenceOf[Sequence]], tuple[Tensor, list[State]]]

# In order of preference; the last one can run everything.
BACKENDS: Mapping[str, Backend] = {
    "cudnn": cudnn,
    "cpu": cpu,
    "chunkwise": chunkwise,
    "scan": scanned,
    "reference": reference,
}
# Those that know recompute="gates" themselves.
REBUILDING = ("cpu", "reference")
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
        for candidate, backend in BACKENDS.items():
            if backend.why_not(cell, features, dtype, device) is None:
                return candidate
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
    output, states = run_together((sequence,), backend)
    return output, states[0]


def run_together(calls: SequenceOf[Sequence], backend: str = AUTO) -> tuple[Tensor, list[State]]:
    """Run the directions of one layer, calls over the same x, on the chosen backend.

    Returns their outputs, one after another on the last axis in the layout of x, and the final
    state of each. A backend that has a run_together of its own gets all calls at once where it was
    chosen for all. Autocast is treated as in `run`.
    """
    x = calls[0].x
    if not autocasts(x.device):
        return _run_together(calls, backend)
    # Cast once, then off: a second look at every operator of every step would cost more than it.
    x = x.to(working_dtype(x))
    calls = [_cast(call, x) for call in calls]
    with torch.autocast(x.device.type, enabled=False):
        return _run_together(calls, backend)


def _run_alone(call: Sequence, backend: str) -> tuple[Tensor, State]:
    x = call.x
    name = select(backend, call.cell, call.features(), x.dtype, x.device)
    count = segments_of(call, rebuilds=name in REBUILDING)
    if count:
        return run_in_segments(call, count, BACKENDS[name].run)
    return BACKENDS[name].run(call)


def _run_together(calls: SequenceOf[Sequence], backend: str) -> tuple[Tensor, list[State]]:
    if len(calls) == 1:
        output, state = _run_alone(calls[0], backend)
        return output, [state]
    chosen = [
        select(backend, call.cell, call.features(), call.x.dtype, call.x.device) for call in calls
    ]
    counts = [
        segments_of(call, rebuilds=name in REBUILDING)
        for call, name in zip(calls, chosen, strict=True)
    ]
    if any(counts):
        cut = [
            run_in_segments(call, count, BACKENDS[name].run)
            for call, count, name in zip(calls, counts, chosen, strict=True)
        ]
        return torch.cat([output for output, _ in cut], -1), [state for _, state in cut]
    together: Together | None = getattr(BACKENDS[chosen[0]], "run_together", None)
    if together is not None and all(name == chosen[0] for name in chosen):
        return together(calls)
    results = [BACKENDS[name].run(call) for name, call in zip(chosen, calls, strict=True)]
    return torch.cat([output for output, _ in results], -1), [state for _, state in results]


def autocasts(device: torch.device) -> bool:
    """Whether torch.autocast is on for this device."""
    kind = device.type
    available = kind == "cpu" or torch.amp.is_autocast_available(kind)
    return available and torch.is_autocast_enabled(kind)


def working_dtype(x: Tensor) -> torch.dtype:
    """The dtype a call on x runs in: autocast's where that is on; autocast leaves float64 alone."""
    if x.dtype != torch.float64 and autocasts(x.device):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _cast(sequence: Sequence, x: Tensor) -> Sequence:
    """The call over x, with everything else in the dtype of x."""
    dtype, state, masks, zoneout = x.dtype, sequence.state, sequence.masks, sequence.zoneout
    if state is not None:
        state = sequence.cell.make_state(*(part.to(dtype) for part in state))
    if masks is not None and masks.h is not None:
        masks = Masks(masks.h.to(dtype))
    if zoneout is not None:
        keep = (part.to(dtype) if isinstance(part, Tensor) else part for part in zoneout.keep)
        zoneout = Zoneout(tuple(keep))
    params = {name: value.to(dtype) for name, value in sequence.params.items()}
    return sequence._replace(x=x, params=params, state=state, masks=masks, zoneout=zoneout)
