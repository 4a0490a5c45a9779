"""Greedy and beam decoding beside brute force: every path of small cases, summed up."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from recurra.decoding.ctc import (
    GreedyDecoder,
    PrefixBeam,
    align,
    frames_needed,
)
from recurra.errors import ConfigError, ShapeError


def random_log_probs(seed: int, frames: int, labels: int, sharpness: float = 1.0) -> np.ndarray:
    logits = sharpness * np.random.default_rng(seed).normal(size=(frames, labels))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def brute_force(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """p of every sequence, by all its paths."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        p = math.exp(sum(log_probs[t, label] for t, label in enumerate(path)))
        found[collapse(path)] = found.get(collapse(path), 0.0) + p
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_wide_beam_finds_every_sequence_with_its_probability(seed: int) -> None:
    log_probs = random_log_probs(seed, frames=5, labels=3)
    wanted = brute_force(log_probs)
    beam = PrefixBeam(beam_size=10_000)
    beam.push(log_probs)
    found = {tokens: math.exp(score) for tokens, score in beam.best()}
    assert found.keys() == wanted.keys()
    for tokens, p in wanted.items():
        assert found[tokens] == pytest.approx(p, rel=1e-10)
    scores = [score for _, score in beam.best()]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(12))
def test_a_narrow_beam_finds_the_best_of_sharp_probabilities(seed: int) -> None:
    log_probs = random_log_probs(seed, frames=6, labels=4, sharpness=3.0)
    wanted = brute_force(log_probs)
    beam = PrefixBeam(beam_size=8)
    beam.push(log_probs)
    assert beam.best()[0][0] == max(wanted, key=lambda tokens: wanted[tokens])


def test_a_beam_beats_greedy_where_many_paths_say_the_same() -> None:
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    greedy, beam = GreedyDecoder(), PrefixBeam(2)
    greedy.push(log_probs)
    beam.push(log_probs)
    assert (greedy.emissions, beam.best()[0][0]) == ([], (1,))


@pytest.mark.parametrize("seed", range(6))
def test_pieces_change_nothing(seed: int) -> None:
    log_probs = random_log_probs(seed, frames=40, labels=5, sharpness=2.0)
    greedy, beam = GreedyDecoder(), PrefixBeam(4)
    greedy.push(log_probs)
    beam.push(log_probs)
    pieces = np.split(log_probs, [1, 2, 9, 10, 30])
    other, other_beam = GreedyDecoder(), PrefixBeam(4)
    taken = []
    for piece in pieces:
        other.push(piece)
        other_beam.push(piece)
    assert other.emissions == greedy.emissions
    assert other_beam.best() == beam.best()
    taken = other.take()
    assert (taken, other.emissions, other.frames) == (greedy.emissions, [], 40)


@pytest.mark.parametrize("seed", range(8))
def test_greedy_says_what_the_best_path_says_and_when(seed: int) -> None:
    log_probs = random_log_probs(seed, frames=30, labels=4, sharpness=2.0)
    decoder = GreedyDecoder()
    decoder.push(log_probs)
    labels = log_probs.argmax(-1)
    assert tuple(one.token for one in decoder.emissions) == collapse(tuple(labels.tolist()))
    for one in decoder.emissions:
        assert set(labels[one.start : one.end].tolist()) == {one.token}
        said = np.exp(log_probs[one.start : one.end, one.token]).mean()
        assert one.confidence == pytest.approx(said, rel=1e-12)
    assert align(log_probs, [one.token for one in decoder.emissions]) == pytest.approx(
        decoder.emissions
    )


@pytest.mark.parametrize("tokens", [(), (1,), (1, 1), (1, 2), (2, 1, 2), (2, 2, 2)])
def test_align_takes_the_likeliest_path_of_a_sequence(tokens: tuple[int, ...]) -> None:
    log_probs = random_log_probs(len(tokens), frames=6, labels=3)
    paths = [
        path for path in itertools.product(range(3), repeat=6) if collapse(path) == tuple(tokens)
    ]
    best = max(paths, key=lambda path: sum(log_probs[t, k] for t, k in enumerate(path)))
    runs = [(k, len(list(run))) for k, run in itertools.groupby(best)]
    starts = np.cumsum([0] + [length for _, length in runs])
    wanted = [
        (k, int(start), int(start) + length)
        for (k, length), start in zip(runs, starts, strict=False)
        if k != 0
    ]
    assert [(one.token, one.start, one.end) for one in align(log_probs, tokens)] == wanted


def test_frames_needed_counts_the_blank_between_equal_tokens() -> None:
    assert [frames_needed(tokens) for tokens in ([], [1], [1, 2], [1, 1], [1, 1, 1])] == [
        0, 1, 2, 3, 5,
    ]  # fmt: skip
    with pytest.raises(ShapeError, match="2 tokens need 3 frames, and there are 2"):
        align(np.zeros((2, 3)), [1, 1])


def by_tokens(log_probs: np.ndarray, beam_size: int) -> dict[tuple[int, ...], float]:
    """The same search, plainly: sequences are dict keys, log p of (blank, said) their values."""
    beam = {(): (0.0, -np.inf)}
    for frame in log_probs:
        after: dict[tuple[int, ...], list[float]] = {}
        for tokens, (blank, said) in beam.items():
            own = after.setdefault(tokens, [-np.inf, -np.inf])
            own[0] = np.logaddexp(own[0], np.logaddexp(blank, said) + frame[0])
            if tokens:
                own[1] = np.logaddexp(own[1], said + frame[tokens[-1]])
            for label in range(1, len(frame)):
                is_repeat = bool(tokens) and tokens[-1] == label
                before = blank if is_repeat else np.logaddexp(blank, said)
                longer = after.setdefault((*tokens, label), [-np.inf, -np.inf])
                longer[1] = np.logaddexp(longer[1], before + frame[label])
        ranked = sorted(after.items(), key=lambda item: -np.logaddexp(*item[1]))
        beam = {tokens: (value[0], value[1]) for tokens, value in ranked[:beam_size]}
    return {tokens: float(np.logaddexp(*value)) for tokens, value in beam.items()}


def test_a_sequence_that_leaves_a_narrow_beam_and_comes_back_is_still_one() -> None:
    # Of these, number 352 has a prefix that goes and comes back while a longer one of it stays.
    for seed in (*range(20), 352):
        rng = np.random.default_rng(seed)
        log_probs = np.log(rng.dirichlet([0.3, 0.3, 0.3], size=16))
        beam = PrefixBeam(3, narrowest=-np.inf)
        beam.push(log_probs)
        found = dict(beam.best())
        assert len(found) == len(beam.best())
        assert found == pytest.approx(by_tokens(log_probs, 3), abs=1e-9)


def test_what_goes_on_after_a_take_is_said_again() -> None:
    decoder = GreedyDecoder()
    decoder.push(np.log([[0.1, 0.9]]))
    assert [one.token for one in decoder.take()] == [1]
    decoder.push(np.log([[0.2, 0.8]]))
    assert [(one.token, one.start, one.end) for one in decoder.emissions] == [(1, 1, 2)]


def test_a_sequence_that_cannot_be_has_no_alignment() -> None:
    with np.errstate(divide="ignore"), pytest.raises(ShapeError, match="probability 0"):
        align(np.log([[0.5, 0.5, 0.0]] * 3), [2])


def test_a_beam_needs_a_place() -> None:
    with pytest.raises(ConfigError, match="beam_size=0; expected at least 1"):
        PrefixBeam(0)


def test_blanks_are_counted_from_the_last_character() -> None:
    decoder = GreedyDecoder()
    sure = np.log(np.full((6, 2), 0.1))
    sure[[0, 2], 1] = sure[[1, 3, 4, 5], 0] = math.log(0.9)
    decoder.push(sure)
    assert (decoder.blanks, decoder.frames) == (3, 6)
