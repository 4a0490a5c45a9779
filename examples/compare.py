"""What the examples share: the same model before and after `recurra.accelerate`, side by side."""

from __future__ import annotations

import argparse
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
    """Differences are relative to the largest entry; times are medians in seconds."""

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
    torch_times = _times(model, evaluate, options.repetitions)

    report = recurra.accelerate(model, backend=options.backend)

    after = _outputs_and_gradients(model, evaluate)
    recurra_times = _times(model, evaluate, options.repetitions)
    comparison = Comparison(
        report,
        _difference(before[:1], after[:1]),
        _difference(before[1:], after[1:]),
        (torch_times[0], recurra_times[0]),
        (torch_times[1], recurra_times[1]),
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
    largest = max(float(value.abs().max()) for value in expected)
    pairs = zip(expected, actual, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs) / largest


def _times(model: nn.Module, evaluate: Evaluate, repetitions: int) -> tuple[float, float]:
    """Median seconds of forward and backward, and of forward alone."""

    def forward() -> None:
        with torch.no_grad():
            evaluate(model)

    medians = []
    for work in (lambda: _outputs_and_gradients(model, evaluate), forward):
        seconds = []
        for _ in range(repetitions):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        medians.append(statistics.median(seconds))
    return medians[0], medians[1]


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
