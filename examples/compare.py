"""What the examples share: the same model before and after `recurra.accelerate`, side by side."""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import recurra
from recurra.nn.accelerate import Report

# A model to (output, loss), over the example's own input.
Evaluate = Callable[[nn.Module], tuple[Tensor, Tensor]]

OUTPUTS_WITHIN = 1e-5
GRADIENTS_WITHIN = 1e-4


@dataclass(frozen=True)
class Comparison:
    """Differences are relative to each tensor's largest entry; times are medians in seconds."""

    report: Report
    output_difference: float
    gradient_difference: float
    training_s: tuple[float, float]
    inference_s: tuple[float, float]
    losses: list[float]

    def __str__(self) -> str:
        rows = [
            str(self.report),
            f"outputs differ by at most {self.output_difference:.1e} of the largest",
            f"gradients differ by at most {self.gradient_difference:.1e} of the largest",
        ]
        for label, (torch_s, recurra_s) in (
            ("forward and backward", self.training_s),
            ("forward, no gradient", self.inference_s),
        ):
            rows.append(
                f"{label}: torch {torch_s * 1e3:.1f} ms, recurra {recurra_s * 1e3:.1f} ms, "
                f"ratio {torch_s / recurra_s:.2f}"
            )
        losses = " ".join(f"{loss:.3f}" for loss in self.losses)
        rows.append(f"loss with the optimizer made before: {losses}")
        return "\n".join(rows)


def read_options(description: str | None, arguments: list[str] | None) -> argparse.Namespace:
    """The options that every example takes; arguments None means those of the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a small model on little input")
    parser.add_argument("--backend", default="auto", help="as in recurra.accelerate")
    parser.add_argument("--repetitions", type=int, default=5, help="of every measurement of time")
    parser.add_argument("--steps", type=int, default=8, help="of training after the swap")
    return parser.parse_args(arguments)


def compare(model: nn.Module, evaluate: Evaluate, options: argparse.Namespace) -> Comparison:
    """Evaluate with torch.nn, accelerate, evaluate again, and train on.

    Raises: AssertionError when outputs or gradients are not the same, or training does not lower
    the loss.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = _outputs_and_gradients(model, evaluate)
    original = copy.deepcopy(model)

    report = recurra.accelerate(model, backend=options.backend)

    after = _outputs_and_gradients(model, evaluate)
    training_s, inference_s = _times([original, model], evaluate, options.repetitions)
    comparison = Comparison(
        report,
        _difference(before[:1], after[:1]),
        _difference(before[1:], after[1:]),
        training_s,
        inference_s,
        _train(model, evaluate, optimizer, options.steps),
    )
    assert comparison.output_difference < OUTPUTS_WITHIN, comparison.output_difference
    assert comparison.gradient_difference < GRADIENTS_WITHIN, comparison.gradient_difference
    assert comparison.losses[-1] < comparison.losses[0], comparison.losses
    return comparison


def _outputs_and_gradients(model: nn.Module, evaluate: Evaluate) -> list[Tensor]:
    output, loss = evaluate(model)
    return [output.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def _difference(expected: list[Tensor], actual: list[Tensor]) -> float:
    """The largest difference, each tensor's relative to its own largest entry."""
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        difference, largest = float((a - b).abs().max()), float(a.abs().max())
        worst = max(worst, difference / largest if largest else difference)
    return worst


def _times(
    models: list[nn.Module], evaluate: Evaluate, repetitions: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Median seconds of both models, of forward and backward and of forward alone.

    The models take turns, and every other turn the second one begins, so that both meet the same
    machine; one call of each goes before, untimed.
    """

    def forward(model: nn.Module) -> None:
        with torch.no_grad():
            evaluate(model)

    def both(work: Callable[[nn.Module], object]) -> tuple[float, float]:
        seconds: list[list[float]] = [[], []]
        for turn in range(repetitions + 1):
            for k in (0, 1) if turn % 2 else (1, 0):
                start = time.perf_counter()
                work(models[k])
                if turn:
                    seconds[k].append(time.perf_counter() - start)
        return statistics.median(seconds[0]), statistics.median(seconds[1])

    return both(lambda model: _outputs_and_gradients(model, evaluate)), both(forward)


def _train(
    model: nn.Module, evaluate: Evaluate, optimizer: torch.optim.Optimizer, steps: int
) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        _, loss = evaluate(model)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses
