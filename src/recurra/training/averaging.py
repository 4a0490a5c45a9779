"""Exponential moving average of the weights, validated and kept instead of the last ones."""

from __future__ import annotations

import contextlib
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
