"""The best weights so far by validation loss, and the patience of early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from recurra.errors import DivergenceError


class BestWeights:
    """A copy of the weights with the lowest validation loss.

    step, loss   of the best validation; None before the first one
    stale        validations since then that were no better
    tensors      the copy by name, empty before the first validation
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.loss: float | None = None
        self.stale = 0
        self.tensors: dict[str, Tensor] = {}

    def consider(self, step: int, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of `weights` when `loss` is lower than all before.

        Raises: DivergenceError when the loss is NaN, which nothing can be compared with.
        """
        if math.isnan(loss):
            raise DivergenceError(
                f"the validation loss is nan after step {step} while the training loss is finite. "
                "Look for missing values, or a division by an empty count, in the validation data."
            )
        if loss < (math.inf if self.loss is None else self.loss):
            self.step, self.loss, self.stale = step, loss, 0
            self.tensors = {name: tensor.detach().clone() for name, tensor in weights.items()}
        else:
            self.stale += 1
