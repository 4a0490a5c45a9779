from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recurra.decoding.beam import Hypothesis, beam_search
from recurra.errors import ConfigError

SIZE = 4


def model(seed: int) -> tuple[Tensor, Any]:
    """log p of a token by the two before it: (last, the one before it, next)."""
    rng = torch.Generator().manual_seed(seed)
    table = torch.randn(SIZE, SIZE, SIZE, generator=rng, dtype=torch.float64).mul(2).log_softmax(2)

    def step(last: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return table[last, state], last

    return table, step


def select(state: Tensor, rows: Tensor) -> Tensor:
    return state[rows]


def find(step: Any, **options: Any) -> list[Hypothesis]:
    return beam_search(step, select, 1, torch.tensor([2]), **options)


def log_prob(table: Tensor, tokens: tuple[int, ...]) -> float:
    words = (2, 1, *tokens)
    return sum(
        float(table[last, before, token])
        for before, last, token in zip(words, words[1:], words[2:], strict=False)
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_as_wide_as_all_sequences_finds_the_best(seed: int) -> None:
    table, step = model(seed)
    every = sorted(
        itertools.product(range(SIZE), repeat=4), key=lambda tokens: -log_prob(table, tokens)
    )
    found = find(step, beam_size=SIZE**3, length=4)
    assert [one.tokens for one in found[:5]] == every[:5]
    for one in found:
        assert one.log_prob == pytest.approx(log_prob(table, one.tokens))
        assert not one.ended


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_sequences_that_end_are_compared_with_those_that_go_on(seed: int, penalty: float) -> None:
    table, step = model(seed)
    every = []
    for length in range(1, 5):
        for tokens in itertools.product(range(SIZE), repeat=length):
            is_open = 3 not in tokens and length == 4
            if is_open or (tokens[-1] == 3 and 3 not in tokens[:-1]):
                every.append(tokens)
    every.sort(
        key=lambda tokens: log_prob(table, tokens) / ((5 + len(tokens)) / 6) ** penalty,
        reverse=True,
    )
    found = find(step, beam_size=SIZE**3, length=4, end_id=3, length_penalty=penalty)
    assert [one.tokens for one in found[:4]] == every[:4]
    assert all(one.ended is (one.tokens[-1] == 3) for one in found)


def test_a_beam_of_one_is_greedy() -> None:
    table, step = model(0)
    tokens: list[int] = []
    before, last = 2, 1
    for _ in range(6):
        before, last = last, int(table[last, before].argmax())
        tokens.append(last)
    (found,) = find(step, beam_size=1, length=6)
    assert found.tokens == tuple(tokens)


@pytest.mark.parametrize("seed", range(5))
def test_a_wider_beam_keeps_its_scores_in_order(seed: int) -> None:
    _, step = model(seed)
    scores = [one.log_prob for one in find(step, beam_size=5, length=7)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 5


def test_banned_tokens_are_in_no_sequence() -> None:
    _, step = model(1)
    found = find(step, beam_size=9, length=3, banned=[0, 2])
    assert len(found) == 8  # of two tokens there are no more
    assert all(set(one.tokens) <= {1, 3} for one in found)


def test_ties_go_to_the_smaller_id() -> None:
    table = torch.full((SIZE,), 1 / SIZE).log()
    found = beam_search(
        lambda last, state: (table.expand(len(last), SIZE), state),
        lambda state, rows: state,
        0,
        None,
        beam_size=3,
        length=2,
    )
    assert [one.tokens for one in found] == [(0, 0), (0, 1), (0, 2)]


def test_the_score_of_a_length_is_that_of_the_paper() -> None:
    assert Hypothesis((1, 2, 3, 4, 5, 6, 7), -6.0, True).score(1.0) == pytest.approx(-3.0)
    assert Hypothesis((1,), -6.0, True).score(0.6) == pytest.approx(-6.0)
    assert math.isclose(Hypothesis((1, 2), -6.0, True).score(0.0), -6.0)


def test_sizes_below_1_are_refused() -> None:
    _, step = model(0)
    with pytest.raises(ConfigError, match="beam_size=0; expected at least 1"):
        find(step, beam_size=0, length=2)
    with pytest.raises(ConfigError, match="length=0"):
        find(step, beam_size=1, length=0)
