"""What a task brings to the training loop."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class TrainingTask(Protocol):
    """A model, its data and its loss; all that differs between forecasting and translation.

    A task keeps no state of its own that training changes: whatever a step needs comes from the
    step number and `rng`, so a resumed run draws the same batches as an uninterrupted one.
    """

    @property
    def model(self) -> nn.Module:
        """The network to train; it is moved to the training device and left there."""
        ...

    def batch(self, step: int, rng: torch.Generator) -> Any:
        """The data of step 0, 1, 2, ...; `rng` is a CPU generator freshly seeded for the step.

        Tensors in nested tuples, lists and dicts are moved to the training device by the loop.
        """
        ...

    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """Scalar loss of one batch, and the recurrent state to carry into the next step.

        `state` is what the step before returned, detached; None means a fresh start. It may be any
        nesting of tuples, named tuples, lists and dicts of tensors and None; a task without a
        carried state returns None.
        """
        ...

    def validate(self) -> float | None:
        """Validation loss, lower is better; None when there is no validation set.

        Called in eval mode without gradients, with the averaged weights in place, and without
        autocast: what is measured is the model as it will be used.
        """
        ...


@runtime_checkable
class RatedTask(Protocol):
    """A task some of whose parameters learn more slowly than others, or not from the start."""

    def rate_factor(self, name: str, step: int) -> float:
        """What the learning rate of a parameter is multiplied by in step 0, 1, 2, ...

        At 0 it stays as it is; it must depend on nothing but its arguments.
        """
        ...
