"""Small tasks for the tests of the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class ToyState(NamedTuple):
    """Carried state of `WaveTask`, nested on purpose."""

    h: Tensor
    seen: tuple[Tensor, None]


class WaveModel(nn.Module):
    """A GRU with dropout and with a buffer that every training step changes."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.gru = nn.GRU(2, 6)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(6, 1)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("mean", torch.zeros(2))
        self.mean: Tensor
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.4, 0.4, generator=generator)

    def forward(self, x: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.training:
            self.mean.lerp_(x.mean((0, 1)), 0.1)
        output, h = self.gru(x - self.mean, h)
        return self.head(self.drop(output)) * self.frozen, h


class WaveTask:
    """Next value of noisy waves, with everything that a resume has to bring back."""

    def __init__(self, *, validates: bool = True, before: Callable[[int], None] | None = None):
        self.model: nn.Module = WaveModel()
        self._validates = validates
        self._before = before

    def batch(self, step: int, rng: torch.Generator) -> Any:
        if self._before is not None:
            self._before(step)
        return self._waves(8.0 * step, torch.rand(9, 3, 2, generator=rng))

    def _waves(self, start: float, noise: Tensor) -> Tensor:
        time = start + torch.arange(9.0).reshape(9, 1, 1)
        period = torch.tensor([5.0, 7.0, 11.0]).reshape(1, 3, 1)
        wave = torch.sin(2 * math.pi * time / period)
        return torch.cat([wave, wave.roll(1, 1)], 2) + 0.1 * noise

    def loss(self, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        assert state is None or isinstance(state, ToyState)
        output, h = self.model(batch[:-1], None if state is None else state.h)
        loss = (output - batch[1:, :, :1]).square().mean()
        seen = batch.sum() if state is None else state.seen[0] + batch.sum()
        return loss, ToyState(h, (seen, None))

    def validate(self) -> float | None:
        if not self._validates:
            return None
        assert not self.model.training
        waves = self._waves(1e4, torch.zeros(9, 3, 2))
        return float((self.model(waves[:-1], None)[0] - waves[1:, :, :1]).square().mean())


class PointTask:
    """One weight pulled towards a target: loss (w − target)²; arithmetic done by hand in tests."""

    def __init__(self, weight: float = 0.0, target: float = 1.0) -> None:
        self.model: nn.Module = nn.ParameterDict({"w": nn.Parameter(torch.tensor([weight]))})
        self.target = target
        self.validations: list[float] = []
        self.answers: list[float] | None = None

    @property
    def w(self) -> float:
        return float(self.model["w"].detach())  # type: ignore[index,operator]

    def batch(self, step: int, rng: torch.Generator) -> Any:
        return None

    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        return (self.model["w"] - self.target).square().sum(), None  # type: ignore[index,operator]

    def validate(self) -> float | None:
        self.validations.append(self.w)
        return None if self.answers is None else self.answers[len(self.validations) - 1]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two sets of weights agree in every bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A history without the speed, which no two runs share."""
    return [{k: v for k, v in entry.items() if k != "steps_per_s"} for entry in history]
