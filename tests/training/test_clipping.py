from __future__ import annotations

import math

import pytest
import torch

from recurra.training.clipping import clip_norm, clip_value, gradient_norm, largest_gradient


def test_norm_is_taken_over_all_gradients_together():
    assert gradient_norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]).item() == 5.0
    assert gradient_norm([]).item() == 0.0


def test_clipping_by_norm_keeps_the_direction_and_leaves_small_gradients_alone():
    gradients = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    clip_norm(gradients, 5.0, limit=1.0)
    assert gradients[0].tolist() == pytest.approx([0.6])
    assert gradients[1].tolist() == [pytest.approx([0.0, 0.8])]
    clip_norm(gradients, 1.0, limit=1.5)
    assert gradients[0].tolist() == pytest.approx([0.6])


def test_clipping_by_value_clamps_each_entry():
    gradients = [torch.tensor([-3.0, 0.5]), torch.tensor([[7.0]])]
    clip_value(gradients, 1.0)
    assert [g.tolist() for g in gradients] == [[-1.0, 0.5], [[1.0]]]


def parameter(*gradient: float) -> torch.Tensor:
    value = torch.zeros(len(gradient), requires_grad=True)
    value.grad = torch.tensor(gradient)
    return value


def test_largest_gradient_is_found_by_size_and_nan_wins_over_infinity():
    named = {"a": parameter(1.0, -9.0), "b": parameter(5.0), "none": torch.zeros(1)}
    assert largest_gradient(named) == ("a", 9.0)
    named["c"] = parameter(0.0, -math.inf)
    assert largest_gradient(named) == ("c", math.inf)
    named["d"] = parameter(0.0, math.nan)
    name, size = largest_gradient(named)
    assert name == "d"
    assert math.isnan(size)
