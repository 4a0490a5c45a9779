"""What a sequence of labels is worth beside its sound: language models and hot words.

Labels spell a text, label k the piece `spelling[k - 1]`; label 0 is the blank. Each scorer adds up

    WordScorer     weight · log p(words) + word_bonus · number of words
    TextScorer     the same, by a model that reads characters or bytes
    HotWords       boost · characters of the phrases that are in the text

and `Together` adds scorers up. A text is worth the same whichever way labels spell it.

Source: Hannun, Maas, Jurafsky and Ng 2014, eq. 3, where the bonus is a factor of the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from recurra.decoding.ctc import Scorer, Worth
from recurra.errors import ConfigError
from recurra.nn.language import LanguageNetwork

SPACE = " "


class WordModel(Protocol):
    """log p of words in a sentence, one after another, in nats."""

    def begin(self) -> Any:
        """The state before a sentence."""
        ...

    def step(self, state: Any, word: str) -> tuple[Any, float]:
        """(the state after a word, log p of the word)."""
        ...

    def end(self, state: Any) -> float:
        """log p that the sentence ends."""
        ...


class WordScorer:
    """Words by a model of words: each counts when the blank after it, or the end, has come.

    A piece may hold several characters, and blanks among them.

    >>> class Coin:
    ...     begin = lambda self: None
    ...     step = lambda self, state, word: (state, -1.0 if word == "a" else -2.0)
    ...     end = lambda self, state: 0.0
    >>> scorer = WordScorer(["a", "b", " "], Coin(), weight=0.5, word_bonus=0.25)
    >>> worth = scorer.begin()
    >>> for label in (2, 3, 1):  # "b a", whose last word is still open
    ...     worth = scorer.extend(worth, label)
    >>> worth.nats, scorer.finish(worth)
    (-0.75, -1.0)
    """

    def __init__(
        self, spelling: Sequence[str], model: WordModel, *, weight: float, word_bonus: float
    ) -> None:
        self._spelling, self._model = spelling, model
        self._weight, self._bonus = weight, word_bonus

    def begin(self) -> Worth:
        return Worth(0.0, ("", self._model.begin()))

    def extend(self, before: Worth, token: int) -> Worth:
        nats, (word, state) = before
        for character in self._spelling[token - 1]:
            if character != SPACE:
                word += character
            elif word:
                gained, state = self._read(state, word)
                nats, word = nats + gained, ""
        return Worth(nats, (word, state))

    def finish(self, worth: Worth) -> float:
        nats, (word, state) = worth
        if word:
            gained, state = self._read(state, word)
            nats += gained
        return nats + self._weight * self._model.end(state)

    def _read(self, state: Any, word: str) -> tuple[float, Any]:
        state, log_p = self._model.step(state, word)
        return self._weight * log_p + self._bonus, state


class TextScorer:
    """Text by a recurrent model of characters or bytes, which counts every one at once.

    tokens_of   for each piece, the model's tokens that spell it
    end_id      the token that stands before and after a text
    """

    def __init__(
        self,
        spelling: Sequence[str],
        network: LanguageNetwork,
        tokens_of: Sequence[Sequence[int]],
        end_id: int,
        *,
        weight: float,
        word_bonus: float,
    ) -> None:
        self._network = network
        self._tokens_of, self._end_id = tokens_of, end_id
        self._weight = weight
        self._bonuses = [word_bonus * piece.count(SPACE) for piece in spelling]
        self._last_bonus = word_bonus

    def begin(self) -> Worth:
        return Worth(0.0, _Read(self._network, None, self._end_id))

    def extend(self, before: Worth, token: int) -> Worth:
        nats, at = before
        nats += self._bonuses[token - 1]
        for one in self._tokens_of[token - 1]:
            nats += self._weight * at.log_p(one)
            at = at.then(one)
        return Worth(nats, at)

    def finish(self, worth: Worth) -> float:
        at: _Read = worth.state
        return worth.nats + self._last_bonus + self._weight * at.log_p(self._end_id)


class RecurrentWords:
    """A recurrent model of words as a `WordModel`; id_of gives the token of a word."""

    def __init__(self, network: LanguageNetwork, id_of: Callable[[str], int], end_id: int) -> None:
        self._network, self._id_of, self._end_id = network, id_of, end_id

    def begin(self) -> _Read:
        return _Read(self._network, None, self._end_id)

    def step(self, state: _Read, word: str) -> tuple[_Read, float]:
        token = self._id_of(word)
        return state.then(token), state.log_p(token)

    def end(self, state: _Read) -> float:
        return state.log_p(self._end_id)


class _Read:
    """Where a network stands after a token; it is run only when somebody asks what follows."""

    __slots__ = ("_before", "_log_probs", "_network", "_state", "_token")

    def __init__(self, network: LanguageNetwork, before: _Read | None, token: int) -> None:
        self._network, self._before, self._token = network, before, token
        self._state: Any = None
        self._log_probs: list[float] | None = None

    def then(self, token: int) -> _Read:
        return _Read(self._network, self, token)

    def log_p(self, token: int) -> float:
        if self._log_probs is None:
            self._run()
        assert self._log_probs is not None
        return self._log_probs[token]

    @torch.no_grad()
    def _run(self) -> None:
        if self._before is not None and self._before._log_probs is None:
            self._before._run()
        state = None if self._before is None else self._before._state
        tokens: Tensor = torch.tensor([[self._token]])
        features, self._state = self._network(tokens, state)
        self._log_probs = self._network.log_probs(features[:, -1])[0].tolist()
        self._before = None  # what came before is in the state


class HotWords:
    """Phrases that are likelier to be said than a model knows: names, terms, commands.

    A phrase counts where it stands between blanks, or at an end; its first characters count while
    it may still become whole, so that it is not lost on the way. Case counts.

    boost   nats for each character of a phrase
    Raises: ConfigError for a phrase that is empty or that the pieces cannot spell.

    >>> scorer = HotWords(["N", "E", "W", " "], ["NEW"], boost=1.0)
    >>> worth = scorer.begin()
    >>> for label in (1, 2):
    ...     worth = scorer.extend(worth, label)
    >>> worth.nats, scorer.finish(worth), scorer.finish(scorer.extend(worth, 3))
    (2.0, 0.0, 3.0)
    """

    def __init__(self, spelling: Sequence[str], phrases: Iterable[str], *, boost: float) -> None:
        self._spelling, self._boost = spelling, boost
        known = set("".join(spelling))
        self._phrases = {SPACE.join(phrase.split()) for phrase in phrases}
        for phrase in self._phrases:
            strange = "".join(sorted(set(phrase) - known))
            if not phrase or strange:
                what = f"has characters that the model cannot write: {strange!r}"
                raise ConfigError(
                    f"hot word {phrase!r} {what if phrase else 'is empty'}; expected words of "
                    f"{''.join(sorted(known))!r}{_in_other_case(phrase, known)}."
                )
        self._beginnings = {phrase[:k] for phrase in self._phrases for k in range(len(phrase) + 1)}

    def begin(self) -> Worth:
        return Worth(0.0, (0, ("",)))

    def extend(self, before: Worth, token: int) -> Worth:
        done, open_ones = before.state
        for character in self._spelling[token - 1]:
            done, open_ones = self._read(done, open_ones, character)
        longest = max(map(len, open_ones), default=0)
        return Worth(self._boost * (done + longest), (done, open_ones))

    def finish(self, worth: Worth) -> float:
        done, open_ones = worth.state
        count: int = done + self._whole(open_ones)
        return self._boost * count

    def _read(
        self, done: int, open_ones: tuple[str, ...], character: str
    ) -> tuple[int, tuple[str, ...]]:
        """Characters of whole phrases, and what stands of others, after another character."""
        longer = tuple(one + character for one in open_ones if one + character in self._beginnings)
        if character != SPACE:
            return done, longer
        return done + self._whole(open_ones), ("", *longer)

    def _whole(self, open_ones: Iterable[str]) -> int:
        return sum(len(one) for one in open_ones if one in self._phrases)


def _in_other_case(phrase: str, known: set[str]) -> str:
    """A phrase as the pieces can spell it, as words for a message."""
    for other in (phrase.upper(), phrase.lower()):
        if other and set(other) <= known:
            return f", as {other!r}"
    return ""


class Together:
    """Several scorers, added up."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._scorers = scorers

    def begin(self) -> Worth:
        return self._sum([one.begin() for one in self._scorers])

    def extend(self, before: Worth, token: int) -> Worth:
        parts = zip(self._scorers, before.state, strict=True)
        return self._sum([scorer.extend(worth, token) for scorer, worth in parts])

    def finish(self, worth: Worth) -> float:
        parts = zip(self._scorers, worth.state, strict=True)
        return sum(scorer.finish(part) for scorer, part in parts)

    def _sum(self, worths: Sequence[Worth]) -> Worth:
        return Worth(sum(one.nats for one in worths), tuple(worths))
