"""Text as words, and each word as a number and its character n-grams.

The n-grams of "<good>" (3 to 5 characters, the brackets mark the ends) and the word's shape (lower,
Capital, UPPER, digits) fall into buckets by a hash, so that a word never seen has a vector too.

Source: Bojanowski et al. 2017, "Enriching word vectors with subword information", section 3.2.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

# A character of a script without blanks; a word with its apostrophes and hyphens; a run of one
# mark ("!!!", "...").
_WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W぀-ヿ㐀-鿿]+(?:['’-][^\W぀-ヿ㐀-鿿]+)*|([^\w\s])\1*")
_GRAM_SIZES = (3, 4, 5)
_LONGEST = 40  # characters of a word that have n-grams: a runaway "word" must not cost a second
NO_WORDS = "⟨empty⟩"
"""What stands for a text without any word."""


class Word(NamedTuple):
    """A word as it is written, and the characters of the text that it takes."""

    text: str
    begin: int
    end: int


def split_words(text: str) -> list[Word]:
    """The words and marks of a text, in order.

    >>> [word.text for word in split_words("Don't go... NOW!")]
    ["Don't", 'go', '...', 'NOW', '!']
    """
    return [Word(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]


def written_words(text: str) -> list[str]:
    """The same without their places; one word that stands for a text that has none."""
    return [match[0] for match in _WORD.finditer(text)] or [NO_WORDS]


class Vocabulary:
    """Words by falling frequency; number 0 is every other word.

    >>> vocabulary = Vocabulary.learn([["Good", "film"], ["good"]], size=10, min_count=2, buckets=8)
    >>> vocabulary.words, vocabulary.number("GOOD"), vocabulary.number("film")
    (['good'], 1, 0)
    """

    def __init__(self, words: Sequence[str], buckets: int) -> None:
        self.words = list(words)
        self.buckets = buckets
        self._numbers = {word: k for k, word in enumerate(self.words, start=1)}

    @classmethod
    def learn(
        cls, texts: Iterable[Sequence[str]], *, size: int, min_count: int, buckets: int
    ) -> Self:
        """The `size` most frequent words that occur `min_count` times, whatever their case."""
        counts: Counter[str] = Counter()
        for words in texts:
            counts.update(word.lower() for word in words)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls([word for word in ranked if counts[word] >= min_count][:size], buckets)

    @property
    def size(self) -> int:
        """Numbers that words have, 0 among them."""
        return len(self.words) + 1

    def number(self, word: str) -> int:
        """The number of a word; 0 when it is not in the vocabulary."""
        return self._numbers.get(word.lower(), 0)

    def grams(self, word: str) -> Ids:
        """Buckets of the word's n-grams and of its shape; at least one."""
        marked = f"<{word.lower()[:_LONGEST]}>"
        parts = [f"shape:{_shape(word)}"]
        for size in _GRAM_SIZES:
            parts += [marked[k : k + size] for k in range(len(marked) - size + 1)]
        encoded = (part.encode("utf-8", "replace") for part in parts)
        return np.array([zlib.crc32(part) % self.buckets for part in encoded], np.int64)

    def to_json(self) -> Any:
        """The vocabulary as a JSON value, for `from_json`."""
        return {"words": self.words, "buckets": self.buckets}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises: ValueError for a value that `to_json` did not make."""
        if not isinstance(value, dict) or not isinstance(value.get("buckets"), int):
            raise ValueError("it is no vocabulary")
        words = value.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("its words are no texts")
        if len(set(words)) != len(words) or value["buckets"] < 0:
            raise ValueError("it has a word twice, or a negative number of buckets")
        return cls(words, value["buckets"])


def _shape(word: str) -> str:
    if any(character.isdigit() for character in word):
        return "digits"
    if word.isupper():
        return "upper" if len(word) > 1 else "capital"
    return "capital" if word[:1].isupper() else "lower"


class WordTable:
    """Distinct written words, numbered as they come; what the network needs of each."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._entries: dict[str, int] = {}
        self._numbers: list[int] = []
        self._grams: list[Ids] = []

    def add(self, words: Iterable[str]) -> Ids:
        """The entries of some words, new ones made where needed."""
        return np.array([self._entry(word) for word in words], np.int64)

    def _entry(self, word: str) -> int:
        entry = self._entries.get(word)
        if entry is None:
            entry = self._entries[word] = len(self._numbers)
            self._numbers.append(self._vocabulary.number(word))
            if self._vocabulary.buckets:
                self._grams.append(self._vocabulary.grams(word))
        return entry

    def select(self, entries: Ids) -> tuple[Ids, Ids, Ids]:
        """(numbers (U,), buckets (G,), offsets (U,)) of some entries, for an embedding bag."""
        numbers = np.array([self._numbers[k] for k in entries], np.int64)
        if not self._grams:
            return numbers, np.empty(0, np.int64), np.empty(0, np.int64)
        grams = [self._grams[k] for k in entries]
        ends = np.cumsum([len(part) for part in grams])
        return numbers, np.concatenate(grams), np.concatenate([[0], ends[:-1]])
