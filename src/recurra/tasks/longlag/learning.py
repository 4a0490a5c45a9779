"""Training one network on one problem, in the loop that all tasks share."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.errors import DivergenceError
from recurra.tasks.longlag.model import Network
from recurra.tasks.longlag.problems import Batch, Measure, Problem
from recurra.training.loop import train
from recurra.training.settings import TrainingSettings

_ROWS = 100  # held-out sequences computed at once


class Learned(NamedTuple):
    """How a training ended.

    steps     done, the last one included when it diverged
    stopped   "target" when the problem was solved, "steps" when it was not, or "diverged"
    clipped   share of steps whose gradient was clipped; None when it diverged
    measure   on the test sequences, under the best weights by validation
    """

    steps: int
    stopped: str
    clipped: float | None
    measure: float


class LongLagTask:
    """A problem and a network, as the training loop wants them."""

    def __init__(self, problem: Problem, network: Network, batch_size: int) -> None:
        self.problem = problem
        self.model = network
        self.begun = 0  # steps; read only when training has diverged
        self._batch_size = batch_size

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """Fresh sequences of the problem."""
        self.begun = step + 1
        return self.problem.draw(rng, self._batch_size)

    def loss(self, batch: Batch, state: Any) -> tuple[Tensor, None]:
        """Squared error or cross entropy, the mean over the steps that count; no state is kept."""
        y = self.model(batch.inputs, batch.mask)
        measure: Measure = "mse" if self.problem.measure == "mse" else "nats"
        return mean_of(measure, y, batch.targets[batch.mask]), None

    def validate(self) -> float:
        """The problem's own measure on its validation sequences."""
        return evaluate(self.model, self.problem.measure, self.problem.validation)


def mean_of(measure: Measure, y: Tensor, targets: Tensor) -> Tensor:
    """The mean of a measure: y (N, output_size), targets (N,).

    >>> mean_of("error", torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    tensor(0.5000)
    """
    if measure == "mse":
        return F.mse_loss(y.squeeze(1), targets)
    if measure == "nats":
        return F.cross_entropy(y, targets)
    return (y.argmax(1) != targets).float().mean()


@torch.no_grad()
def evaluate(network: Network, measure: Measure, batch: Batch) -> float:
    """The mean of a measure over the steps that count."""
    starts = range(0, len(batch.inputs), _ROWS)
    ys = [network(batch.inputs[k : k + _ROWS], batch.mask[k : k + _ROWS]) for k in starts]
    return float(mean_of(measure, torch.cat(ys), batch.targets[batch.mask]))


def learn(
    problem: Problem,
    network: Network,
    *,
    batch_size: int,
    settings: TrainingSettings,
    progress: bool,
) -> Learned:
    """Train until the problem is solved or the steps are used up; then test.

    A training that diverges is a result too: the network keeps its best weights.
    """
    task = LongLagTask(problem, network, batch_size)
    try:
        result = train(task, settings, progress=progress)
    except DivergenceError:
        steps, stopped, clipped = task.begun, "diverged", None
    else:
        shares = [entry["clipped"] for entry in result.history]
        steps, stopped, clipped = result.steps, str(result.stopped), sum(shares) / len(shares)
    return Learned(steps, stopped, clipped, evaluate(network, problem.measure, problem.test))
