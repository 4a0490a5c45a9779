"""The running opinion about a text that comes word by word, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from recurra.errors import ConfigError, DataError
from recurra.streaming.jsonlines import read_key
from recurra.tasks.sentiment.fitted import Fitted
from recurra.tasks.sentiment.naive_bayes import feature_names
from recurra.tasks.sentiment.network import Reading
from recurra.tasks.sentiment.words import WordTable, split_words

Every = Literal["word", "sentence"]
_SENTENCE_END = re.compile(r"[.!?…。！？]+")


@dataclass(frozen=True)
class TextState:
    """Where a text stands; its size is bounded by the network, the chunk and the features.

    reading   the network at the end of the last whole chunk
    open      words since then, fewer than a chunk
    found     known features of the whole text
    before    the last word
    words     how many there were
    """

    reading: Reading | None = None
    open: tuple[str, ...] = ()
    found: frozenset[int] = field(default=frozenset(), repr=False)
    before: str | None = None
    words: int = 0


class OpinionStream:
    """One text that goes on and on; after any word the opinion is that of the text so far.

    The network of a bidirectional model reads the last, open chunk again at each opinion, at most
    `chunk` words; a forward one reads each word once.

    >>> from recurra import SentimentClassifier
    >>> rows = {"text": ["good film", "nice film", "bad film", "poor film"] * 3,
    ...         "label": ["pos", "pos", "neg", "neg"] * 3}
    >>> import polars
    >>> model = SentimentClassifier(steps=2, hidden_size=4, progress=False)
    >>> stream = model.fit(polars.DataFrame(rows)).stream()
    >>> stream.push("such a good")
    >>> sorted(stream.opinion())
    ['neg', 'pos']
    """

    def __init__(self, fitted: Fitted) -> None:
        self._fitted = fitted
        self._features = {name: k for k, name in enumerate(fitted.bayes.features)}
        settings = fitted.network.settings
        # Without a reverse direction a chunk may end anywhere.
        self._chunk = settings.chunk if settings.bidirectional else 1
        self._state = TextState()

    @property
    def state(self) -> TextState:
        """Where the text stands, for `restore`."""
        return self._state

    def restore(self, state: TextState | None) -> None:
        """Go on from such a state; None is the beginning of a text."""
        self._state = TextState() if state is None else state

    def push(self, text: str) -> None:
        """Read on; a word ends where the piece does."""
        for word in split_words(text):
            self.push_word(word.text)

    @torch.no_grad()
    def push_word(self, word: str) -> None:
        """Read one more word."""
        state = self._state
        pair = [word] if state.before is None else [state.before, word]
        known = {self._features[name] for name in feature_names(pair) if name in self._features}
        found = state.found if known <= state.found else state.found | known
        reading, waiting = state.reading, (*state.open, word)
        if len(waiting) == self._chunk:
            reading, waiting = self._read(waiting, reading), ()
        self._state = TextState(reading, waiting, found, word, state.words + 1)

    @torch.no_grad()
    def opinion(self) -> dict[str, float]:
        """Calibrated probabilities of the labels, after all words so far.

        Raises: DataError before the first word.
        """
        state = self._state
        if not state.words:
            raise DataError("there is no word yet; push a text before asking for the opinion.")
        reading = self._read(state.open, state.reading) if state.open else state.reading
        assert reading is not None
        odds = self._fitted.bayes.log_odds[sorted(state.found)]
        scores = odds.sum(axis=0) / np.sqrt(max(1, len(state.found)))
        lexical = torch.from_numpy(np.asarray(scores, np.float32))[None]
        logits = self._fitted.network.logits(reading.pools, lexical)
        probabilities = self._fitted.calibrated(logits)[0]
        return {name: float(p) for name, p in zip(self._fitted.labels, probabilities, strict=True)}

    def _read(self, words: tuple[str, ...], before: Reading | None) -> Reading:
        table, network = WordTable(self._fitted.vocabulary), self._fitted.network
        entries = table.add(words)
        distinct, where = np.unique(entries, return_inverse=True)
        numbers, buckets, offsets = (torch.from_numpy(part) for part in table.select(distinct))
        x = network.vectors(numbers, buckets, offsets)[torch.from_numpy(where)]
        return network.read(x[None], torch.tensor([len(words)]), before)


class LineStream:
    """Lines of text in, the opinion after each out.

    text             the name under which an event holds its text
    key              the name under which it says which text goes on; None: each line is a text
    every            also the running opinion after every "word" or "sentence"
    min_confidence   probability below which the label is None

    An answer echoes the event and adds `label`, `confidence`, `probabilities`, `words`, and
    `running` where asked.
    """

    def __init__(
        self,
        fitted: Fitted,
        *,
        text: str = "text",
        key: str | None = None,
        every: Every | None = None,
        min_confidence: float = 0.0,
    ) -> None:
        if every not in (None, "word", "sentence"):
            raise ConfigError(f"every={every!r}: expected 'word' or 'sentence'.")
        self._stream = OpinionStream(fitted)
        self._states: dict[str | int, TextState] = {}
        self._text = text
        self._key = key
        self._every = every
        self._min_confidence = min_confidence

    def push(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one event. Raises: DataError when it has no text with words, or no key."""
        line, key = event.get(self._text), read_key(event, self._key)
        if not isinstance(line, str):
            raise DataError(
                f"the event has no text under {self._text!r}. Add it, or name another with --text."
            )
        self._stream.restore(None if key is None else self._states.get(key))
        running = list(self._read(line))
        answer = {**event, **self._opinion(), "words": self._stream.state.words}
        if key is not None:
            self._states[key] = self._stream.state
        return answer if self._every is None else {**answer, "running": running}

    def _read(self, line: str) -> Iterator[dict[str, Any]]:
        """Read a line, and give the opinion after each word or sentence of it."""
        words = split_words(line)
        begin = 0
        for word in words:
            self._stream.push_word(word.text)
            ends = self._every == "word" or (
                self._every == "sentence"
                and (word is words[-1] or _SENTENCE_END.fullmatch(word.text) is not None)
            )
            if ends:
                piece = line[begin : word.end].strip()
                begin = word.end
                yield {"text": piece, **self._opinion()}

    def _opinion(self) -> dict[str, Any]:
        return judge(self._stream.opinion(), self._min_confidence)


def judge(probabilities: Mapping[str, float], min_confidence: float) -> dict[str, Any]:
    """{"label", "confidence", "probabilities"}; the label is None below the least confidence."""
    best = max(probabilities, key=lambda name: probabilities[name])
    confidence = probabilities[best]
    return {
        "label": best if confidence >= min_confidence else None,
        "confidence": round(confidence, 6),
        "probabilities": {name: round(p, 6) for name, p in probabilities.items()},
    }
