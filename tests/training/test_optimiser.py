from __future__ import annotations

import pytest
import torch

from recurra.training.optimiser import (
    make_optimiser,
    optimiser_tensors,
    restore_optimiser,
    set_learning_rate,
)
from recurra.training.settings import TrainingSettings

SETTINGS = TrainingSettings(steps=1, learning_rate=0.1, weight_decay=0.5)


def named() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "matrix": torch.randn(4, 3, generator=generator).requires_grad_(),
        "columns": torch.randn(3, 4, generator=generator).t().detach().requires_grad_(),
        "bias": torch.randn(5, generator=generator).requires_grad_(),
        "unused": torch.randn(2, generator=generator).requires_grad_(),
    }


def step(optimiser: torch.optim.Optimizer, parameters: dict[str, torch.Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in parameters.items():
        if name != "unused":
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimiser.step()


def test_weight_decay_shrinks_matrices_and_nothing_else():
    parameters = named()
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimiser = make_optimiser(parameters, SETTINGS)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert torch.allclose(parameters["matrix"], before["matrix"] * 0.95)
    assert torch.equal(parameters["bias"], before["bias"])


def test_learning_rate_is_used_by_the_next_step():
    parameters = {"bias": torch.zeros(1, requires_grad=True)}
    optimiser = make_optimiser(parameters, SETTINGS)
    set_learning_rate(optimiser, 0.25)
    parameters["bias"].grad = torch.ones(1)
    optimiser.step()
    assert parameters["bias"].item() == pytest.approx(-0.25)  # Adam's first step is the rate


def test_parameters_apart_have_rates_of_their_own_and_the_same_decay() -> None:
    parameters = named()
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimiser = make_optimiser(parameters, SETTINGS, apart=True)
    factors = {"matrix": 0.5, "columns": 0.0, "bias": 0.25, "unused": 1.0}
    set_learning_rate(optimiser, 0.1, factors.__getitem__)
    for name in ("matrix", "columns", "bias"):
        parameters[name].grad = torch.full_like(parameters[name], 3.0)
    optimiser.step()
    assert torch.equal(parameters["columns"], before["columns"])
    assert torch.allclose(parameters["matrix"], before["matrix"] * (1 - 0.05 * 0.5) - 0.05)
    assert torch.allclose(parameters["bias"], before["bias"] - 0.025)


def test_restored_optimiser_makes_the_same_next_step():
    whole = named()
    first = make_optimiser(whole, SETTINGS)
    step(first, whole, 1)
    stored = {k: t.clone().contiguous() for k, t in optimiser_tensors(first, whole).items()}
    assert not any(key.endswith("unused") for key in stored)

    halved = named()
    second = make_optimiser(halved, SETTINGS)
    with torch.no_grad():
        for name, parameter in halved.items():
            parameter.copy_(whole[name])
    restore_optimiser(second, halved, stored)
    step(first, whole, 2)
    step(second, halved, 2)
    assert all(torch.equal(whole[name], halved[name]) for name in whole)
