"""Text as the words that stand in it, between blanks, with an end after each line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from recurra.data.tokenizer import Ids
from recurra.errors import ConfigError

UNKNOWN = "<unk>"
END = "<eos>"
_MOST = 50_000  # words of a vocabulary of no given size


class WordTokenizer:
    """Words as they are written, by falling frequency; nothing is split off and no case changed.

    A text that has `<unk>` in it has had its rare words replaced, so all that is left is known;
    otherwise words seen only once become `<unk>`, so that a model learns what unknown words do.

    >>> tokenizer = WordTokenizer.train(["the cat sat\\n", "the cat ran\\n"], None)
    >>> tokenizer.decode(tokenizer.encode("the dog sat\\n"))
    'the <unk> <unk>\\n'
    """

    kind: ClassVar[Literal["word"]] = "word"

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._id = {word: i for i, word in enumerate(self.words)}
        self.vocab_size = len(self.words)
        self.unk_id = self._id[UNKNOWN]
        self.end_id = self._id[END]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        if vocab_size is not None and vocab_size < 3:
            raise ConfigError(
                f"vocab_size={vocab_size}: words need at least 3, two of them {UNKNOWN} and {END}."
            )
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.split())
            counts[END] += text.count("\n")
        least = 1 if counts[UNKNOWN] else 2
        rare = sum(count for word, count in counts.items() if word != END and count < least)
        counts[UNKNOWN] += rare
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        words = [word for word in ranked if word not in (UNKNOWN, END) and counts[word] >= least]
        kept = [*words[: (vocab_size or _MOST) - 2], UNKNOWN, END]
        # What is left out counts as unknown too.
        counts[UNKNOWN] += sum(counts[word] for word in words[len(kept) - 2 :])
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def encode(self, text: str) -> Ids:
        known, unk, end = self._id.get, self.unk_id, self.end_id
        ids: list[int] = []
        *whole, last = text.split("\n")
        for line in whole:
            ids += [known(word, unk) for word in line.split()]
            ids.append(end)
        ids += [known(word, unk) for word in last.split()]
        return np.array(ids, dtype=np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        parts: list[str] = []
        for i in ids:
            at_start = not parts or parts[-1] == "\n"
            word = "\n" if i == self.end_id else self.words[int(i)]
            parts += [word] if at_start or word == "\n" else [" ", word]
        return "".join(parts)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return ["\n" if i == self.end_id else f"{self.words[int(i)]} " for i in ids]

    def to_json(self) -> Any:
        return self.words

    @classmethod
    def from_json(cls, value: Any) -> Self:
        is_list = isinstance(value, list) and all(isinstance(word, str) for word in value)
        if not is_list or not {UNKNOWN, END} <= set(value):
            raise ValueError(f"its vocabulary is no list of words with {UNKNOWN} and {END}")
        if len(set(value)) < len(value):
            raise ValueError("its vocabulary has a word twice")
        return cls(value)
