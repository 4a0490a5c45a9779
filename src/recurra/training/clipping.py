"""Gradients: their norm, four ways of clipping them, and the largest one for error messages.

    norm      g ← g · min(1, limit / ‖g‖)                all gradients together
    value     g ← max(−limit, min(limit, g))             each entry
    adaptive  g ← g · min(1, limit · max(‖w‖, ε) / ‖g‖)  each unit, a row of a weight, by itself
    zscore    g ← g · min(1, limit_t / ‖g‖)              as norm, against the norms seen before

A clipper is one of them with its numbers; `apply` clips in place and reports what it found.
Source: Pascanu, Mikolov, Bengio 2013, algorithm 1 (norm); Mikolov 2012 (value); Brock et al. 2021,
"High-performance large-scale image recognition without normalization" (adaptive); Kumar et al.
2025, "ZClip: adaptive spike mitigation for LLM pre-training" (zscore).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from recurra.errors import ArgumentError, ConfigError, unknown
from recurra.training.settings import Clip


class ClipReport(NamedTuple):
    """What `apply` found: the common norm of all gradients before clipping, whether it clipped."""

    norm: float
    triggered: bool


class Clipper(ABC):
    """One way of clipping, with its limit.

    Raises: ConfigError for a limit that is not positive and finite.
    """

    def __init__(self, limit: float) -> None:
        _check(self, limit=limit)
        self.limit = limit

    @torch.no_grad()
    def apply(self, parameters: Iterable[Tensor], norm: float | None = None) -> ClipReport:
        """Clip the gradients of `parameters` in place, after backward and before the update.

        norm   the common norm of the gradients, where the caller has it already

        Gradients whose norm is NaN or infinite stay as they are and are not counted as clipped:
        check `norm` in the report before the update.

        Raises: ArgumentError for anything but tensors: a model, named_parameters(), names.
        """
        given = _listed(type(self).__name__, parameters)
        trained = [p for p in given if p.grad is not None and p.grad.numel()]
        if norm is None:
            norm = float(gradient_norm(_gradients(trained)))
        triggered = bool(trained) and math.isfinite(norm) and self._clip(trained, norm)
        return ClipReport(norm, triggered)

    @property
    def state(self) -> dict[str, int | float]:
        """The numbers that `apply` changes; a clipper that gets them back goes on the same way."""
        return {}

    def restore(self, state: Mapping[str, int | float]) -> None:
        """Put back what `state` returned.

        Raises: ConfigError for the state of another kind of clipper.
        """
        if not isinstance(state, Mapping) or state.keys() != self.state.keys():
            given = sorted(state) if isinstance(state, Mapping) else f"a {type(state).__name__}"
            raise ConfigError(
                f"{type(self).__name__}: the state to restore has {given}; expected "
                f"{sorted(self.state)}. Restore what the same kind of clipper returned."
            )

    @abstractmethod
    def _clip(self, parameters: Sequence[Tensor], norm: float) -> bool:
        """Clip gradients, finite and none of them empty; whether any was changed."""


class NormClipper(Clipper):
    """Scales all gradients together to a norm of at most `limit`; keeps their direction.

    g ← g · min(1, limit / ‖g‖)

    >>> w = torch.zeros(2, requires_grad=True)
    >>> w.grad = torch.tensor([3.0, 4.0])
    >>> NormClipper(1.0).apply([w]), w.grad
    (ClipReport(norm=5.0, triggered=True), tensor([0.6000, 0.8000]))

    Raises: ConfigError for a limit that is not positive and finite.
    Source: Pascanu, Mikolov, Bengio 2013, algorithm 1.
    """

    def __init__(self, limit: float = 1.0) -> None:
        super().__init__(limit)

    def _clip(self, parameters: Sequence[Tensor], norm: float) -> bool:
        return _scale(parameters, norm, self.limit)


class ValueClipper(Clipper):
    """Clamps every entry of every gradient to [−limit, limit]; changes their direction.

    >>> w = torch.zeros(2, requires_grad=True)
    >>> w.grad = torch.tensor([-3.0, 0.5])
    >>> ValueClipper(1.0).apply([w]).triggered, w.grad
    (True, tensor([-1.0000,  0.5000]))

    Raises: ConfigError for a limit that is not positive and finite.
    Source: Mikolov 2012, "Statistical language models based on neural networks".
    """

    def __init__(self, limit: float = 1.0) -> None:
        super().__init__(limit)

    def _clip(self, parameters: Sequence[Tensor], norm: float) -> bool:
        gradients = _gradients(parameters)
        sizes = torch._foreach_norm(gradients, math.inf)
        if float(torch.stack([size.to(sizes[0]) for size in sizes]).max()) <= self.limit:
            return False
        torch._foreach_clamp_min_(gradients, -self.limit)
        torch._foreach_clamp_max_(gradients, self.limit)
        return True


class AdaptiveClipper(Clipper):
    """Adaptive gradient clipping, AGC: each unit's gradient stays small beside its weights.

    g_i ← g_i · min(1, limit · max(‖w_i‖, ε) / ‖g_i‖)

    A unit i is a row of a weight with two axes or more (one output, in recurrent layers one gate of
    one hidden unit), and the whole of a bias or another vector. ε keeps weights that begin at zero
    from staying there. The report's norm is still the common one of all gradients.

    The authors leave the last linear layer out: give `apply` the other parameters only.

    >>> w = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    >>> w.grad = torch.tensor([[0.0, 1.0], [0.0, 1e-6]])
    >>> AdaptiveClipper(0.1).apply([w]).triggered, w.grad[0]
    (True, tensor([0.0000, 0.5000]))

    Raises: ConfigError for a limit or eps that is not positive and finite.
    Source: Brock, De, Smith, Simonyan 2021, "High-performance large-scale image recognition without
    normalization".
    """

    def __init__(self, limit: float = 0.01, eps: float = 1e-3) -> None:
        super().__init__(limit)
        _check(self, eps=eps)
        self.eps = eps

    def _clip(self, parameters: Sequence[Tensor], norm: float) -> bool:
        over = []
        for parameter, gradient in zip(parameters, _gradients(parameters), strict=True):
            largest = _unit_norm(parameter).clamp_(min=self.eps).mul_(self.limit)
            size = _unit_norm(gradient)
            above = size > largest
            gradient.mul_(torch.where(above, largest / size, 1.0))
            over.append(above.any())
        return bool(torch.stack([each.to(over[0].device) for each in over]).any())


class ZScoreClipper(Clipper):
    """ZClip: scales spikes of the norm back towards what it has been, and leaves the rest alone.

    z = (‖g‖ − μ) / (σ + 1e-6);  where z > limit:  g ← g · ĝ / ‖g‖,  ĝ = μ + σ · limit² / z
    μ ← α μ + (1 − α) ĝ;  σ² ← α σ² + (1 − α) (ĝ − μ)²          (ĝ = ‖g‖ where nothing is clipped)

    The larger the spike, the smaller the norm it is scaled to. μ and σ² begin as mean and variance
    of the first `warmup_steps` norms, which are not clipped; if these are all the same, σ stays 0
    and they bound all later ones. Every call of `apply` is a step; one with a NaN or infinite norm
    is not counted.

    decay   α, the weight of the past in each step

    >>> clipper = ZScoreClipper(warmup_steps=4)
    >>> w = torch.zeros(1, requires_grad=True)
    >>> for gradient in (1.0, 2.0, 1.0, 2.0, 10.0):
    ...     w.grad = torch.tensor([gradient])
    ...     report = clipper.apply([w])
    >>> report, round(float(w.grad), 3)
    (ClipReport(norm=10.0, triggered=True), 1.684)

    Raises: ConfigError for a limit that is not positive and finite, decay outside (0, 1), or
    warmup_steps below 2.
    Source: Kumar, Owen, Chowdhury, Güra 2025, "ZClip: adaptive spike mitigation for LLM
    pre-training", with reciprocal clipping; the authors' code adds clipping by norm, which this
    does not.
    """

    def __init__(self, limit: float = 2.5, decay: float = 0.97, warmup_steps: int = 25) -> None:
        super().__init__(limit)
        if not 0 < decay < 1 or warmup_steps < 2:
            raise ConfigError(
                f"ZScoreClipper: decay={decay!r} and warmup_steps={warmup_steps!r}; expected decay "
                "between 0 and 1, both excluded, and at least 2 steps. The usual ones are 0.97, 25."
            )
        self.decay = decay
        self.warmup_steps = warmup_steps
        self._seen = 0
        self._mean = self._variance = 0.0

    @property
    def state(self) -> dict[str, int | float]:
        """How many norms were seen, and their running mean and variance."""
        return {"seen": self._seen, "mean": self._mean, "variance": self._variance}

    def restore(self, state: Mapping[str, int | float]) -> None:
        """Put back what `state` returned.

        Raises: ConfigError for the state of another kind of clipper.
        """
        super().restore(state)
        self._seen = int(state["seen"])
        self._mean, self._variance = float(state["mean"]), float(state["variance"])

    def _clip(self, parameters: Sequence[Tensor], norm: float) -> bool:
        warming_up = self._seen < self.warmup_steps
        limit = norm if warming_up else self._limit(norm)
        before = self._mean
        self._seen += 1
        # While all norms weigh the same, mean and variance are the plain ones (Welford 1962).
        share = 1 / self._seen if warming_up else 1 - self.decay
        self._mean += share * (limit - before)
        spread = (limit - self._mean) * (limit - (before if warming_up else self._mean))
        self._variance += share * (spread - self._variance)
        return _scale(parameters, norm, limit)

    def _limit(self, norm: float) -> float:
        """The norm that gradients of `norm` are scaled to; `norm` itself where it is no spike."""
        deviation = math.sqrt(self._variance)
        z = (norm - self._mean) / (deviation + 1e-6)
        if z <= self.limit:
            return norm
        return self._mean + deviation * self.limit**2 / z


CLIPPERS: dict[Clip, type[NormClipper | ValueClipper | AdaptiveClipper | ZScoreClipper]] = {
    "norm": NormClipper,
    "value": ValueClipper,
    "adaptive": AdaptiveClipper,
    "zscore": ZScoreClipper,
}


def make_clipper(clip: Clip, limit: float | None = None) -> Clipper:
    """The clipper that training uses for `clip`; limit None takes its usual one.

    The usual limits are norm 1.0, value 1.0, adaptive 0.01 and zscore 2.5.

    >>> model = torch.nn.Linear(2, 1)
    >>> clipper = make_clipper("norm", 0.5)
    >>> (1e3 * model(torch.ones(1, 2)).sum()).backward()
    >>> clipper.apply(model.parameters()).triggered
    True
    >>> gradient_norm([p.grad for p in model.parameters()])
    tensor(0.5000)

    Raises: ConfigError for an unknown name, or a limit that is not positive and finite.
    """
    if clip not in CLIPPERS:
        raise ConfigError(unknown("way of clipping", clip, CLIPPERS))
    return CLIPPERS[clip]() if limit is None else CLIPPERS[clip](limit)


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all entries of all gradients, a scalar on their device."""
    if not gradients:
        return torch.zeros(())
    return get_total_norm(gradients, foreach=True)


def largest_gradient(parameters: Mapping[str, Tensor]) -> tuple[str, float]:
    """Name and size of the largest gradient entry; NaN counts as larger than infinity."""
    name, largest = "none", 0.0
    for candidate, parameter in parameters.items():
        if parameter.grad is None or parameter.grad.numel() == 0:
            continue
        size = parameter.grad.detach().abs().max().item()  # max passes NaN on
        if math.isnan(size):
            return candidate, size
        if size > largest or name == "none":
            name, largest = candidate, size
    return name, largest


def _listed(who: str, parameters: Any) -> list[Tensor]:
    """Parameters as a list. Raises: ArgumentError for what holds anything else than tensors."""
    if isinstance(parameters, Tensor):
        return [parameters]
    given = f"a {type(parameters).__name__}"
    if isinstance(parameters, Iterable):
        found = list(parameters)
        wrong = next((value for value in found if not isinstance(value, Tensor)), found)
        if wrong is found:
            return found
        given += f" with a {type(wrong).__name__} in it"
    raise ArgumentError(
        f"{who}: parameters is {given}; expected tensors whose .grad backward has filled. Pass "
        "model.parameters()."
    )


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _scale(parameters: Sequence[Tensor], norm: float, limit: float) -> bool:
    if norm <= limit:
        return False
    torch._foreach_mul_(_gradients(parameters), limit / norm)
    return True


def _unit_norm(value: Tensor) -> Tensor:
    """Norm of each row (rows, 1, ...) of a matrix or more; of all of a vector or scalar."""
    axes = tuple(range(1, value.dim()))
    norm: Tensor = torch.linalg.vector_norm(value, dim=axes or None, keepdim=bool(axes))
    return norm


def _check(clipper: Clipper, **numbers: float) -> None:
    for name, number in numbers.items():
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not (is_number and 0 < number < math.inf):
            raise ConfigError(
                f"{type(clipper).__name__}: {name}={number!r}; expected a positive, finite number."
            )
