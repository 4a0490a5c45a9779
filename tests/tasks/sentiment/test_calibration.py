from __future__ import annotations

import numpy as np
import pytest
import torch

from recurra.tasks.sentiment.calibration import (
    expected_calibration_error,
    find_temperature,
    nll,
    reliability,
)


def test_the_temperature_undoes_a_scale() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 3) * 2
    targets = torch.distributions.Categorical(logits=logits).sample()
    assert find_temperature(logits, targets) == pytest.approx(1.0, abs=0.05)
    assert find_temperature(7 * logits, targets) == pytest.approx(7.0, abs=0.35)


def test_a_few_right_answers_do_not_make_it_sure() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]] * 4)
    temperature = find_temperature(logits, torch.tensor([0, 1] * 4))
    # 8 texts: 1/10 of each counts for both labels evenly, so p = 0.95 is the best
    assert torch.softmax(logits[0] / temperature, 0)[0] == pytest.approx(0.95, abs=1e-3)


def test_ece_is_that_of_a_worked_example() -> None:
    # two at 0.9, one of them right; three at 0.6, all right: (2 · 0.4 + 3 · 0.4) / 5
    probabilities = np.array([[0.9, 0.1]] * 2 + [[0.4, 0.6]] * 3)
    targets = np.array([0, 1, 1, 1, 1])
    assert expected_calibration_error(probabilities, targets) == pytest.approx(0.4)
    assert [row["n"] for row in reliability(probabilities, targets)] == [3, 2]


def test_nll_is_in_nats() -> None:
    assert nll(torch.zeros(2, 4), torch.tensor([0, 3])) == pytest.approx(np.log(4))
