"""Transducer searches beside brute force: every way of small cases, summed up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from recurra.decoding.ctc import Worth
from recurra.decoding.transducer import TransducerBeam, TransducerGreedy
from recurra.errors import ConfigError

Tokens = tuple[int, ...]


class Chance:
    """A model whose probabilities are drawn anew for each step and everything said before."""

    def __init__(self, seed: int, outputs: int, sharpness: float = 1.0) -> None:
        self.seed, self.outputs, self.sharpness = seed, outputs, sharpness

    def begin(self) -> Tokens:
        return ()

    def extend(self, said: Tokens, token: int) -> Tokens:
        return (*said, token)

    def log_probs(self, heard: int, said: Sequence[Tokens]) -> np.ndarray:
        rows = []
        for tokens in said:
            rng = np.random.default_rng([self.seed, heard, *tokens])
            logits = self.sharpness * rng.normal(size=self.outputs)
            rows.append(logits - np.log(np.exp(logits).sum()))
        return np.array(rows)


def brute_force(model: Chance, steps: int, most: int) -> dict[Tokens, float]:
    """p of every sequence, by all ways with at most so many labels at a step."""
    found: dict[Tokens, float] = {}

    def go(t: int, said: Tokens, count: int, p: float) -> None:
        if t == steps:
            found[said] = found.get(said, 0.0) + p
            return
        row = np.exp(model.log_probs(t, [said])[0])
        go(t + 1, said, 0, p * row[0])
        if count < most:
            for label in range(1, model.outputs):
                go(t, (*said, label), count + 1, p * row[label])

    go(0, (), 0, 1.0)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_every_sequence_with_its_probability(seed: int) -> None:
    model = Chance(seed, outputs=3)
    wanted = brute_force(model, steps=3, most=2)
    beam = TransducerBeam(model, beam_size=10_000, most=2)
    beam.push([0, 1])
    beam.push([2])
    found = {tokens: math.exp(score) for tokens, score in beam.best()}
    assert found.keys() == wanted.keys()
    for tokens, p in wanted.items():
        assert found[tokens] == pytest.approx(p, rel=1e-10)
    scores = [score for _, score in beam.best()]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_beam_finds_the_best_of_sharp_probabilities(seed: int) -> None:
    model = Chance(seed, outputs=4, sharpness=3.0)
    wanted = brute_force(model, steps=4, most=2)
    beam = TransducerBeam(model, beam_size=8, most=2)
    beam.push(range(4))
    tokens = beam.best()[0][0]
    assert tokens == max(wanted, key=lambda one: wanted[one])
    said = beam.emissions
    assert tuple(one.token for one in said) == tokens
    assert all(0 <= one.start < one.end <= 4 and 0 < one.confidence <= 1 for one in said)
    assert [one.start for one in said] == sorted(one.start for one in said)


def test_a_scorer_says_what_is_wanted() -> None:
    class Length:
        def begin(self) -> Worth:
            return Worth(0.0)

        def extend(self, before: Worth, token: int) -> Worth:
            return Worth(before.nats - 2.0)

        def finish(self, worth: Worth) -> float:
            return worth.nats - 1.0

    model = Chance(1, outputs=3)
    wanted = brute_force(model, steps=2, most=2)
    beam = TransducerBeam(model, beam_size=10_000, scorer=Length(), most=2)
    beam.push([0, 1])
    for tokens, score in beam.best():
        assert score == pytest.approx(math.log(wanted[tokens]) - 2 * len(tokens) - 1)


def test_greedy_takes_the_likeliest_at_every_moment_in_any_pieces() -> None:
    model = Chance(3, outputs=4, sharpness=2.0)
    said: list[tuple[int, int]] = []
    for t in range(12):
        for _ in range(3):
            label = int(model.log_probs(t, [tuple(one for one, _ in said)])[0].argmax())
            if label == 0:
                break
            said.append((label, t))
    assert len(said) > 3
    for size in (1, 5, 12):
        greedy = TransducerGreedy(model, most=3)
        rows = [row for k in range(0, 12, size) for row in greedy.push(range(12)[k : k + size])]
        assert [(one.token, one.start) for one in greedy.emissions] == said
        assert len(rows) == greedy.frames == 12
        assert greedy.blanks == 11 - said[-1][1]
        assert greedy.take()[0].end == said[0][1] + 1
        assert greedy.emissions == []


def test_a_model_that_never_says_the_blank_is_stopped() -> None:
    class Talker(Chance):
        def log_probs(self, heard: int, said: Sequence[Tokens]) -> np.ndarray:
            return np.log([[0.1, 0.9]] * len(said))

    greedy = TransducerGreedy(Talker(0, 2), most=4)
    greedy.push(range(3))
    assert [one.start for one in greedy.emissions] == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(ConfigError, match="beam_size=0; expected at least 1"):
        TransducerBeam(Talker(0, 2), 0)
