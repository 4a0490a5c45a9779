"""How a gradient flowed back, as values: of each gate, each layer, and the whole model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recurra.runs import finite


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
        way = [back for back, _ in way_back(self.steps, self.norms[part], self.reverse)]
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


def way_back(
    steps: Sequence[int], norms: Sequence[float], reverse: bool
) -> list[tuple[int, float]]:
    """(steps back, norm) from the last step with a gradient, without steps that no row has."""
    pairs = [(t, norm) for t, norm in zip(steps, norms, strict=True) if not math.isnan(norm)]
    back = pairs if reverse else pairs[::-1]
    while back and not back[0][1] > 0:
        back = back[1:]
    return [(abs(back[0][0] - t), norm) for t, norm in back]


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
