from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recurra.decoding.batched import Found, Rules, beam_decode, best_of_rows, decode
from recurra.errors import ConfigError, DivergenceError

SIZE, END, START, PLACES = 4, 0, 3, 3


class Table:
    """log p of a token by sentence and the two tokens before it; attention by the token read."""

    def __init__(self, seeds: list[int], beams: int) -> None:
        self.tables = torch.stack([table(seed) for seed in seeds])
        self.numbers = torch.arange(len(seeds)).repeat_interleave(beams)
        self.beams = beams
        self.before = torch.full((len(seeds) * beams,), START)
        self.last = self.before

    def step(self, last: Tensor) -> tuple[Tensor, Tensor]:
        self.before, self.last = self.last, last
        weights = torch.eye(PLACES + 1)[last][:, :PLACES] * 0.5
        return self.tables[self.numbers, self.before, last], weights

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        self.before, self.last = self.before[rows], self.last[rows]
        self.numbers = self.numbers[rows]


def table(seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, SIZE, SIZE, generator=rng).mul(2).log_softmax(2)


def rules(count: int, length: int = 4, **values: Any) -> Rules:
    real = torch.ones(count, PLACES, dtype=torch.bool)
    return Rules(END, torch.full((count,), length), real, **values)


def every(seed: int, length: int, alpha: float, beta: float) -> list[tuple[float, tuple[int, ...]]]:
    """All sequences of 1 to `length` tokens with their scores, best first."""
    own, found = table(seed), []
    for count in range(1, length + 1):
        for tokens in itertools.product(range(1, SIZE), repeat=count):
            words = (START, START, *tokens, END)
            log_prob = sum(
                float(own[a, b, c]) for a, b, c in zip(words, words[1:], words[2:], strict=False)
            )
            seen = [sum(0.5 for w in (START, *tokens) if w == s) for s in range(PLACES)]
            coverage = sum(math.log(min(1.0, max(1e-6, value))) for value in seen)
            score = log_prob / ((5 + count + 1) / 6) ** alpha + beta * coverage
            found.append((score, tokens))
    return sorted(found, reverse=True)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (1.0, 0.0), (0.6, 0.2)])
def test_a_beam_as_wide_as_the_tree_finds_the_best(alpha: float, beta: float) -> None:
    seeds = list(range(6))
    size = 4 * SIZE**3
    searched = rules(6, 3, length_penalty=alpha, coverage=beta)
    found = beam_decode(Table(seeds, size), START, searched, size, count=size)
    for seed, own in zip(seeds, found, strict=True):
        expected = every(seed, 3, alpha, beta)
        assert own[0].tokens == expected[0][1]
        assert own[0].score == pytest.approx(expected[0][0], abs=1e-5)


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_a_sentence_is_decoded_as_if_alone(beams: int) -> None:
    seeds = [5, 1, 8, 2, 9, 4, 7]
    lengths = torch.tensor([1, 2, 9, 4, 3, 8, 5])
    together = rules(7)._replace(lengths=lengths, length_penalty=0.7)
    found = beam_decode(Table(seeds, beams), START, together, beams, count=beams)
    for k, seed in enumerate(seeds):
        own = rules(1)._replace(lengths=lengths[k : k + 1], length_penalty=0.7)
        alone = beam_decode(Table([seed], beams), START, own, beams, count=beams)[0]
        assert [one.tokens for one in found[k]] == [one.tokens for one in alone]
        assert [one.score for one in found[k]] == [one.score for one in alone]
        assert len(found[k][0].tokens) <= lengths[k]
        assert found[k] == sorted(found[k], key=lambda one: -one.score)


def test_one_beam_is_greedy() -> None:
    seeds = list(range(20))
    greedy = decode(Table(seeds, 1), START, rules(20, 6))
    beam = beam_decode(Table(seeds, 1), START, rules(20, 6), 1)
    assert [one.tokens for one in greedy] == [own[0].tokens for own in beam]
    assert [one.score for one in greedy] == [own[0].score for own in beam]


def test_greedy_takes_the_likeliest_and_knows_what_it_looked_at() -> None:
    found = decode(Table([3], 1), START, rules(1, 5))[0]
    own, words = table(3), [START, START]
    while True:
        row = own[words[-2], words[-1]].clone()
        row[END] = -math.inf if len(words) == 2 else row[END]
        token = END if len(words) == 7 else int(row.argmax())
        words.append(token)
        if token == END:
            break
    assert found.tokens == tuple(words[2:-1])
    assert found.complete == (len(found.tokens) < 5)
    expected = torch.eye(PLACES + 1)[[START, *found.tokens]][:, :PLACES] * 0.5
    assert torch.equal(found.attention, expected)
    total = sum(float(own[a, b, c]) for a, b, c in zip(words, words[1:], words[2:], strict=False))
    assert found.log_prob == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("beams", [1, 3])
def test_forced_tokens_come_first_and_banned_ones_never(beams: int) -> None:
    forced = torch.tensor([[2, 2], [1, -1], [-1, -1]])
    kept = rules(3, 5, forced=forced, banned=(3,))
    found = [own[0] for own in beam_decode(Table([1, 2, 6], beams), START, kept, beams)]
    assert found[0].tokens[:2] == (2, 2)
    assert found[1].tokens[0] == 1
    assert all(3 not in one.tokens for one in found)


def test_a_model_that_never_ends_is_ended() -> None:
    class Endless(Table):
        def step(self, last: Tensor) -> tuple[Tensor, Tensor]:
            log_probs, weights = super().step(last)
            log_probs = log_probs.clone()
            log_probs[:, END] = -50.0
            return log_probs, weights

    for found in (
        decode(Endless([1, 2], 1), START, rules(2, 7)),
        [own[0] for own in beam_decode(Endless([1, 2], 4), START, rules(2, 7), 4)],
    ):
        assert [len(one.tokens) for one in found] == [7, 7]
        assert not any(one.complete for one in found)


@pytest.mark.parametrize(
    ("rows", "width", "count"), [(3, 50, 4), (5, 1000, 4), (2, 64 * 40 + 1, 10)]
)
def test_the_best_of_rows_are_those_of_a_sort(rows: int, width: int, count: int) -> None:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(width))
    values, at = best_of_rows(x, count)
    expected = x.sort(descending=True).values[:, :count]
    assert torch.equal(values, expected)
    assert torch.equal(x.gather(1, at), expected)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="beam_size=2, count=3: expected a count from 1"):
        beam_decode(Table([1], 2), START, rules(1), 2, count=3)
    with pytest.raises(ConfigError, match="a greatest length of 0"):
        decode(Table([1], 1), START, rules(1, 0))


class NoNumbers(Table):
    def step(self, last: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, weights = super().step(last)
        return log_probs * torch.nan, weights


@pytest.mark.parametrize("beams", [1, 3])
def test_probabilities_that_are_no_numbers_are_an_error_and_no_endless_loop(beams: int) -> None:
    with pytest.raises(DivergenceError, match="token 1 are NaN"):
        beam_decode(NoNumbers([1], beams), START, rules(1), beams)
    with pytest.raises(DivergenceError, match="token 1 are NaN"):
        decode(NoNumbers([1], 1), START, rules(1))


def test_the_greatest_length_holds_whatever_is_chosen() -> None:
    found = decode(
        Table([1, 2], 1), START, rules(2, 5), lambda log_p, _: torch.full((len(log_p),), 2)
    )
    assert [one.tokens for one in found] == [(2,) * 5] * 2
    assert not any(one.complete for one in found)


def test_the_end_cannot_be_banned() -> None:
    with pytest.raises(ConfigError, match="banned holds the end, 0"):
        decode(Table([1], 1), START, rules(1, banned=[END]))


def test_a_score_does_not_depend_on_the_number_of_sentences() -> None:
    several = beam_decode(Table(list(range(40)), 3), START, rules(40, 9, length_penalty=0.6), 3)
    for seed in (0, 7, 39):
        alone = beam_decode(Table([seed], 3), START, rules(1, 9, length_penalty=0.6), 3)
        assert alone[0][0].score == several[seed][0].score


def test_no_sentences_have_no_translations() -> None:
    assert decode(Table([1], 1), START, rules(0)) == []
    nothing: list[list[Found]] = beam_decode(Table([1], 2), START, rules(0), 2)
    assert nothing == []
