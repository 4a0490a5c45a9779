"""A training ends when the problem is solved, when the steps are used up, or when it diverges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from recurra.tasks.longlag.learning import evaluate, learn, mean_of
from recurra.tasks.longlag.model import Network, find_variant, make_network
from recurra.tasks.longlag.problems import Problem, adding, copy, parity
from recurra.training.settings import TrainingSettings


def settings(**values: object) -> TrainingSettings:
    plain = {"warmup_steps": 0, "cooldown_share": 0.0, "ema_decay": None, "validate_every": 20}
    return TrainingSettings(**(plain | values))


def network(problem: Problem, cell: str = "elman") -> Network:
    return make_network(
        find_variant(cell),
        input_size=problem.input_size,
        hidden_size=16,
        num_layers=1,
        output_size=problem.output_size,
        length=problem.length,
        seed=0,
    )


class Echo(nn.Module):
    """Answers with the features of the input itself."""

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        return inputs[mask]


def test_measures_by_hand() -> None:
    y = torch.tensor([[0.0, math.log(3.0)], [math.log(3.0), 0.0], [0.0, math.log(3.0)]])
    targets = torch.tensor([1, 0, 0])
    expected = (2 * math.log(4 / 3) + math.log(4)) / 3
    assert float(mean_of("nats", y, targets)) == pytest.approx(expected, rel=1e-6)
    assert float(mean_of("error", y, targets)) == pytest.approx(1 / 3, rel=1e-6)
    numbers = torch.tensor([[1.0], [4.0]])
    assert float(mean_of("mse", numbers, torch.tensor([2.0, 2.0]))) == 2.5


def test_held_out_sequences_count_once_each_and_at_their_steps_only() -> None:
    held_out = copy(5).test  # 500 sequences, in pieces
    y = held_out.inputs[held_out.mask]
    expected = float(nn.functional.cross_entropy(y, held_out.targets[held_out.mask]))
    assert evaluate(Echo(), "nats", held_out) == pytest.approx(expected, rel=1e-6)
    odd = held_out._replace(mask=torch.zeros_like(held_out.mask))
    odd.mask[450:, 3] = True
    expected = float((held_out.inputs[450:, 3].argmax(1) != 8).float().mean())
    assert evaluate(Echo(), "error", odd) == pytest.approx(expected, rel=1e-6)


def test_a_solved_problem_ends_at_the_validation_that_says_so() -> None:
    problem = parity(12, trained_length=5)
    model = network(problem, "lstm")
    done = learn(
        problem,
        model,
        batch_size=32,
        settings=settings(steps=2000, learning_rate=0.01, target_loss=problem.solved_below),
        progress=False,
    )
    assert done.stopped == "target"
    assert done.steps < 2000
    assert done.steps % 20 == 0
    assert done.measure == evaluate(model, "error", problem.test) < 0.05


def test_an_unsolved_problem_uses_all_its_steps() -> None:
    problem = adding(30)
    always = settings(steps=40, target_loss=problem.solved_below, clip="norm", clip_limit=1e-6)
    model = network(problem)
    done = learn(problem, model, batch_size=8, settings=always, progress=False)
    assert (done.steps, done.stopped, done.clipped) == (40, "steps", 1.0)
    assert done.measure == evaluate(model, "mse", problem.test)
    assert done.measure != evaluate(model, "mse", problem.validation)


def test_divergence_is_a_result() -> None:
    problem = adding(30)
    model = network(problem)

    class Breaks(Network):
        calls = 0

        def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
            self.calls += self.training
            return super().forward(inputs, mask) * (math.nan if self.calls == 27 else 1.0)

    model.__class__ = Breaks
    model.calls = 0
    try:
        done = learn(problem, model, batch_size=8, settings=settings(steps=40), progress=False)
    finally:
        model.__class__ = Network
    assert (done.steps, done.stopped, done.clipped) == (27, "diverged", None)
    assert math.isfinite(done.measure)
