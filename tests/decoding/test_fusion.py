"""Beams with language models and hot words beside brute force over every path of small cases."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tests.decoding.test_ctc import brute_force, random_log_probs

from recurra.decoding.ctc import PrefixBeam, Scorer
from recurra.decoding.fusion import HotWords, RecurrentWords, TextScorer, Together, WordScorer
from recurra.errors import ConfigError
from recurra.nn.language import LanguageNetwork

SPELLING = ("a", "b", " ")
PIECES = ("a", " ab", "b ")  # an alphabet of subwords, blanks at both ends


class Words:
    """A model of words whose probabilities hang on the word before."""

    def begin(self) -> str:
        return "^"

    def step(self, state: str, word: str) -> tuple[str, float]:
        return word, -1.0 - (sum(map(ord, state + word)) % 7) / 3

    def end(self, state: str) -> float:
        return -0.5 - len(state) / 4


def text_of(tokens: Sequence[int], spelling: Sequence[str]) -> str:
    return "".join(spelling[token - 1] for token in tokens)


def words_nats(text: str) -> float:
    """0.7 · log p(words) + 1.1 · number of words."""
    model, total = Words(), 0.0
    state = model.begin()
    for word in text.split():
        state, log_p = model.step(state, word)
        total += 0.7 * log_p + 1.1
    return total + 0.7 * model.end(state)


def hot_nats(text: str) -> float:
    """2 nats for each character of "ab" and "b a" wherever they stand between blanks."""
    padded = f" {text} "
    count = 0
    for phrase in ("ab", "b a"):
        found = (k for k in range(len(padded)) if padded[k:].startswith(f" {phrase} "))
        count += len(phrase) * len(list(found))
    return 2.0 * count


def scorers(spelling: Sequence[str]) -> dict[str, tuple[Scorer, Any]]:
    words = WordScorer(spelling, Words(), weight=0.7, word_bonus=1.1)
    hot = HotWords(spelling, ["ab", "b  a"], boost=2.0)
    return {
        "words": (words, words_nats),
        "hot": (hot, hot_nats),
        "both": (Together([words, hot]), lambda text: words_nats(text) + hot_nats(text)),
    }


@pytest.mark.parametrize("spelling", [SPELLING, PIECES])
@pytest.mark.parametrize("name", ["words", "hot", "both"])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_scores_every_sequence_as_brute_force_does(
    name: str, seed: int, spelling: Sequence[str]
) -> None:
    log_probs = random_log_probs(seed, frames=6, labels=4)
    scorer, nats_of = scorers(spelling)[name]
    beam = PrefixBeam(beam_size=100_000, scorer=scorer)
    beam.push(log_probs[:2])
    beam.push(log_probs[2:])
    wanted = {
        tokens: math.log(p) + nats_of(text_of(tokens, spelling))
        for tokens, p in brute_force(log_probs).items()
    }
    found = dict(beam.best())
    assert found.keys() == wanted.keys()
    for tokens, score in wanted.items():
        assert found[tokens] == pytest.approx(score, abs=1e-9)
    assert beam.best()[0][0] == max(wanted, key=lambda tokens: wanted[tokens])


def test_a_narrow_beam_holds_on_to_the_beginning_of_a_hot_word() -> None:
    """'b' is the likelier second label by far, but only 'ab' is hot."""
    log_probs = np.log([[0.1, 0.5, 0.4, 0.0001], [0.1, 0.55, 0.3, 0.0001]])
    for boost, wanted in ((0.0, "a"), (2.0, "ab")):
        beam = PrefixBeam(2, scorer=HotWords(SPELLING, ["ab"], boost=boost))
        beam.push(log_probs)
        assert text_of(beam.best()[0][0], SPELLING) == wanted


def network(vocab_size: int) -> LanguageNetwork:
    torch.manual_seed(3)
    return LanguageNetwork(vocab_size, hidden_size=12, num_layers=2).eval()


def whole(net: LanguageNetwork, tokens: Sequence[int], end_id: int) -> float:
    """log p of a whole text, read at once between two ends."""
    with torch.no_grad():
        features, _ = net(torch.tensor([[end_id, *tokens]]))
        log_probs = net.log_probs(features[0])
    return float(log_probs[torch.arange(len(tokens) + 1), torch.tensor([*tokens, end_id])].sum())


@pytest.mark.parametrize("seed", range(3))
def test_a_recurrent_model_of_characters_counts_as_it_does_over_the_whole_text(seed: int) -> None:
    net, ids = network(6), {"a": 1, "b": 3, " ": 4}
    tokens_of = [[ids[character] for character in piece] for piece in PIECES]
    scorer = TextScorer(PIECES, net, tokens_of, 5, weight=0.8, word_bonus=0.4)
    beam = PrefixBeam(beam_size=1000, scorer=scorer)
    log_probs = random_log_probs(seed, frames=4, labels=4)
    beam.push(log_probs)
    acoustic = brute_force(log_probs)
    for tokens, score in beam.best():
        text = text_of(tokens, PIECES)
        wanted = math.log(acoustic[tokens]) + 0.4 * (text.count(" ") + 1)
        wanted += 0.8 * whole(net, [ids[character] for character in text], 5)
        assert score == pytest.approx(wanted, abs=1e-4)


def test_a_recurrent_model_of_words_counts_as_it_does_over_the_whole_text() -> None:
    net, ids = network(5), {"a": 0, "ab": 2, "b": 3}
    scorer = WordScorer(
        SPELLING, RecurrentWords(net, lambda word: ids[word], 4), weight=1.0, word_bonus=0.0
    )
    for words in itertools.product(ids, repeat=2):
        worth = scorer.begin()
        for character in " ".join(words):
            worth = scorer.extend(worth, SPELLING.index(character) + 1)
        wanted = whole(net, [ids[word] for word in words], 4)
        assert scorer.finish(worth) == pytest.approx(wanted, abs=1e-5)


def test_hot_words_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hot word 'abc' has characters .* write: 'c'; .*' ab'"):
        HotWords(SPELLING, ["ab", "abc"], boost=1.0)
    with pytest.raises(ConfigError, match="hot word '' is empty"):
        HotWords(SPELLING, ["  "], boost=1.0)
