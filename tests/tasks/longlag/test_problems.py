"""Targets are worked out again in plain Python, from the inputs alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurra.errors import ConfigError
from recurra.tasks.longlag.problems import (
    HELD_OUT,
    Batch,
    Problem,
    adding,
    adding_batch,
    copy,
    copy_batch,
    parity,
    parity_batch,
)

LENGTHS = st.integers(2, 40)
SEEDS = st.integers(0, 2**32 - 1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(SEEDS, LENGTHS)
def test_the_sum_is_of_one_number_in_each_half(seed: int, length: int) -> None:
    inputs, targets, mask = adding_batch(generator(seed), 3, length)
    assert inputs.shape == (3, length, 2)
    assert mask.tolist() == [[False] * (length - 1) + [True]] * 3
    for row, target in zip(inputs.tolist(), targets[mask].tolist(), strict=True):
        at = [step for step, (_, mark) in enumerate(row) if mark == 1.0]
        assert sum(mark for _, mark in row) == 2.0
        assert at[0] < length // 2 <= at[1]
        assert target == pytest.approx(row[at[0]][0] + row[at[1]][0], rel=1e-6)
        assert all(0 <= number < 1 for number, _ in row)


def test_every_step_of_a_half_is_marked_at_times() -> None:
    marks = adding_batch(generator(0), 4000, 7).inputs[..., 1].mean(0)
    assert marks.tolist() == pytest.approx([1 / 3] * 3 + [1 / 4] * 4, abs=0.04)


@given(SEEDS, LENGTHS)
def test_the_copy_is_asked_for_after_the_delimiter(seed: int, blanks: int) -> None:
    inputs, targets, mask = copy_batch(generator(seed), 3, blanks)
    assert inputs.shape == (3, blanks + 20, 10)
    assert bool((inputs.sum(2) == 1).all())
    assert bool(mask.all())
    for tokens, answer in zip(inputs.argmax(2).tolist(), targets.tolist(), strict=True):
        symbols = tokens[:10]
        assert all(symbol < 8 for symbol in symbols)
        assert tokens[10:] == [8] * (blanks - 1) + [9] + [8] * 10
        assert answer == [8] * (blanks + 10) + symbols


def test_all_symbols_are_as_frequent() -> None:
    symbols = copy_batch(generator(0), 2000, 1).targets[:, -10:]
    shares = torch.bincount(symbols.flatten(), minlength=8) / symbols.numel()
    assert shares.tolist() == pytest.approx([1 / 8] * 8, abs=0.01)


@given(SEEDS, LENGTHS)
def test_parity_is_that_of_the_ones_so_far(seed: int, length: int) -> None:
    inputs, targets, mask = parity_batch(generator(seed), 3, length)
    assert inputs.shape == (3, length, 1)
    assert bool(mask.all())
    for bits, answer in zip(inputs[..., 0].tolist(), targets.tolist(), strict=True):
        assert answer == list(itertools.accumulate((int(bit) for bit in bits), int.__xor__))


def test_parity_is_trained_on_short_sequences_and_held_out_ones_are_long() -> None:
    problem = parity(256)
    assert problem.draw(generator(0), 2).inputs.shape == (2, 40, 1)
    for batch in (problem.validation, problem.test):
        assert batch.inputs.shape == (HELD_OUT, 256, 1)
        assert batch.mask.sum(0).tolist() == [0] * 255 + [HELD_OUT]


@pytest.mark.parametrize("make", [adding, copy, parity])
def test_the_seed_decides_and_held_out_sequences_are_no_training_ones(
    make: Callable[[int], Problem],
) -> None:
    problem = make(30)
    first, again = (problem.draw(generator(3), 4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.inputs, problem.draw(generator(4), 4).inputs)
    same = make(30)
    assert torch.equal(problem.validation.inputs, same.validation.inputs)
    assert torch.equal(problem.test.inputs, same.test.inputs)
    assert not torch.equal(problem.validation.inputs, problem.test.inputs)


def test_the_baseline_of_adding_is_what_answering_1_costs() -> None:
    problem = adding(20)
    # ∫∫ (u + v − 1)² over the unit square: exact for a quadratic by Simpson's rule in u and v.
    weights = {
        Fraction(0): Fraction(1, 6),
        Fraction(1, 2): Fraction(4, 6),
        Fraction(1): Fraction(1, 6),
    }
    exact = sum(weights[u] * weights[v] * (u + v - 1) ** 2 for u in weights for v in weights)
    assert problem.baseline == pytest.approx(float(exact), rel=1e-12)
    sums = adding_batch(generator(0), 20000, 20).targets[:, -1]
    assert float((sums - 1).square().mean()) == pytest.approx(problem.baseline, abs=0.005)
    assert (problem.measure, problem.solved_below) == ("mse", 0.01)


def test_the_baseline_of_copying_is_to_guess_the_symbols() -> None:
    problem = copy(30)
    log_probs = torch.full((50, 9), -1e9)  # certain of the blank ...
    log_probs[:40, 8] = 0.0
    log_probs[40:, :8] = math.log(1 / 8)  # ... then any of the eight
    targets = problem.test.targets[0]
    cost = float(torch.nn.functional.nll_loss(log_probs, targets))
    assert problem.baseline == pytest.approx(cost, rel=1e-6)
    assert problem.solved_below == pytest.approx(0.1 * cost, rel=1e-6)
    assert problem.measure == "nats"


def test_the_baseline_of_parity_is_a_coin() -> None:
    problem = parity(99)
    answers = problem.test.targets[problem.test.mask].float()
    assert float(answers.mean()) == pytest.approx(1 - problem.baseline, abs=0.07)
    assert (problem.measure, problem.solved_below) == ("error", 0.01)


@pytest.mark.parametrize(("make", "least"), [(adding, 2), (copy, 1), (parity, 1)])
def test_a_length_that_cannot_be_is_refused(make: Callable[[int], Problem], least: int) -> None:
    assert isinstance(make(least).test, Batch)
    with pytest.raises(ConfigError, match=rf"length={least - 1}; expected {least} steps or more"):
        make(least - 1)
