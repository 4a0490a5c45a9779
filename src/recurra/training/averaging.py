"""Averages of the weights, validated and kept instead of the last ones."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class AveragedWeights:
    """a ← d · a + (1 − d) · w after step n = 1, 2, ..., with d = min(decay, (1 + n) / (10 + n)).

    The growing decay lets a short run forget its initial weights. `tensors` holds the average by
    parameter name, on the parameters' device.
    Source: Polyak and Juditsky 1992; the growing decay is TensorFlow's `num_updates`.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.tensors = {name: p.detach().clone() for name, p in parameters.items()}
        self._parameters = [p.detach() for p in parameters.values()]
        self._averages = list(self.tensors.values())
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (from 0)."""
        decay = min(self._decay, (2 + step) / (11 + step))
        torch._foreach_lerp_(self._averages, self._parameters, 1.0 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the model for the length of a `with` block."""
        plain = [parameter.clone() for parameter in self._parameters]
        try:
            self.copy_to_model()
            yield
        finally:
            torch._foreach_copy_(self._parameters, plain)

    def copy_to_model(self) -> None:
        """Overwrite the model's weights by their averages."""
        torch._foreach_copy_(self._parameters, self._averages)


class TriggeredAverage(AveragedWeights):
    """The plain weights, and the mean of all weights once validation has stopped getting better.

    The mean begins with the weights of the next step after a validation whose loss is above the
    lowest of those before the last `wait` ones: not where it is a little worse once, by chance.
    Source: Merity, Keskar and Socher 2017, "Regularizing and optimizing LSTM language models",
    algorithm 1 (NT-ASGD); there it goes with SGD at a constant rate.
    """

    def __init__(self, parameters: Mapping[str, Tensor], wait: int) -> None:
        super().__init__(parameters, decay=0.0)
        self._wait = wait
        self._count: int | None = None  # weights in the mean; None before it begins
        self._recent: list[float] = []  # losses of the last `wait` validations
        self._lowest = math.inf  # of those before them

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step."""
        if self._count is None:
            torch._foreach_copy_(self._averages, self._parameters)
            return
        self._count += 1
        torch._foreach_lerp_(self._averages, self._parameters, 1.0 / self._count)

    def judge(self, loss: float) -> None:
        """Take in the loss of a validation, which may begin the mean."""
        if self._count is None and loss > self._lowest:
            self._count = 0
        self._recent.append(loss)
        if len(self._recent) > self._wait:
            self._lowest = min(self._lowest, self._recent.pop(0))

    @property
    def numbers(self) -> dict[str, int | float]:
        """All that `restore` needs besides the tensors."""
        numbers: dict[str, int | float] = {f"loss {k}": x for k, x in enumerate(self._recent)}
        if math.isfinite(self._lowest):
            numbers["lowest"] = self._lowest
        return numbers if self._count is None else {**numbers, "count": self._count}

    def restore(self, numbers: Mapping[str, int | float]) -> None:
        """Go back to where `numbers` came from."""
        self._count = int(numbers["count"]) if "count" in numbers else None
        self._lowest = float(numbers.get("lowest", math.inf))
        kept = range(self._wait)
        self._recent = [float(numbers[f"loss {k}"]) for k in kept if f"loss {k}" in numbers]
