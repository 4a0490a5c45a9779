"""Word n-grams with back-off, read from ARPA files, as KenLM, SRILM and others write them.

    p(w | h) = table[h w]                     where the file has it
             = backoff[h] · p(w | h without its first word)    otherwise

Numbers in a file are logarithms to base 10; here they are nats. Source: Katz 1987, "Estimation of
probabilities from sparse data"; the format is that of Doug Paul's ARPA back-off files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from recurra.data.textfiles import read_line_pieces
from recurra.errors import DataError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
HIGHEST = 10
"""Words of an n-gram at most."""
_LN10 = math.log(10)
_NEVER = -99.0  # what writers put for a probability of 0
_UNSEEN = -7 * _LN10  # of a word that the file does not have, where it has no <unk> either
State = tuple[int, ...]


class NGram:
    """log p of words after other words, in nats; a state is the last words that still matter.

    >>> ngram = NGram(2)
    >>> for words, log_p, backoff in ((("<s>",), -99.0, -0.1), (("</s>",), -1.0, 0.0),
    ...                               (("go",), -0.5, 0.0), (("<s>", "go"), -0.2, 0.0)):
    ...     ngram.add(words, log_p, backoff)
    >>> state, nats = ngram.step(ngram.begin(), "go")
    >>> round(nats / math.log(10), 3), round(ngram.end(state) / math.log(10), 3)
    (-0.2, -1.0)
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self._ids: dict[str, int] = {}
        self._table: dict[State, tuple[float, float]] = {}

    @property
    def words(self) -> list[str]:
        """All words, in the order they came."""
        return list(self._ids)

    def __len__(self) -> int:
        return len(self._table)

    def add(self, words: tuple[str, ...], log_p: float, backoff: float = 0.0) -> None:
        """Add an n-gram with its logarithms to base 10; those of one word come first.

        Raises: ValueError when it is there already, or has a word that no n-gram of one word has.
        """
        if len(words) == 1:
            self._ids.setdefault(words[0], len(self._ids))
        for word in words:
            if word not in self._ids:
                raise ValueError(f"the word {word!r} is in no n-gram of one word")
        key = tuple(self._ids[word] for word in words)
        if key in self._table:
            raise ValueError(f"the n-gram {' '.join(words)!r} is there twice")
        self._table[key] = (log_p * _LN10, backoff * _LN10)

    def begin(self) -> State:
        """The state before a sentence."""
        return self._kept((self._ids[BEGIN],)) if BEGIN in self._ids else ()

    def step(self, state: State, word: str) -> tuple[State, float]:
        """(the state after a word, log p of the word)."""
        known = word if word in self._ids else UNKNOWN
        if known not in self._ids:
            return (), _UNSEEN
        at = self._ids[known]
        return self._kept((*state, at)), self._log_p(state, at)

    def end(self, state: State) -> float:
        """log p that the sentence ends; 0 where the file has no word for it."""
        return self._log_p(state, self._ids[END]) if END in self._ids else 0.0

    def _log_p(self, state: State, word: int) -> float:
        total = 0.0
        while (found := self._table.get((*state, word))) is None:
            total += self._table.get(state, (0.0, 0.0))[1]
            state = state[1:]
        return total + found[0]

    def _kept(self, words: State) -> State:
        return words[len(words) - self.order + 1 :] if len(words) >= self.order else words


def read_arpa(path: Path) -> NGram:
    r"""The n-grams of an ARPA file, also .gz or .xz.

    Raises: DataError naming the line, for a file that is none: a section is missing, a count does
    not agree, a number is no logarithm of a probability, a word or an n-gram is not as it must be.
    """
    lines = _Lines(path)
    lines.until("\\data\\")
    counts = _read_counts(lines)
    ngram = NGram(len(counts))
    for order, count in enumerate(counts, start=1):
        lines.expect(f"\\{order}-grams:")
        for _ in range(count):
            words, log_p, backoff = _read_entry(lines, order)
            try:
                ngram.add(words, log_p, backoff)
            except ValueError as error:
                raise lines.error(str(error)) from None
    lines.expect("\\end\\")
    return ngram


class _Lines:
    """The lines of a file that are not empty, and the number of the last one, for messages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._lines = self._read()
        self._again: str | None = None

    def _read(self) -> Iterator[str]:
        for piece in read_line_pieces(self._path):
            for line in piece.split("\n"):
                self._number += 1
                if line.strip():
                    yield line.strip()
            self._number -= not line  # a piece ends where a line ends

    def next(self, wanted: str) -> str:
        again, self._again = self._again, None
        line = next(self._lines, None) if again is None else again
        if line is None:
            raise self.error(f"the file ends; expected {wanted}")
        return line

    def give_back(self, line: str) -> None:
        """Let the last line be the next one again."""
        self._again = line

    def until(self, mark: str) -> None:
        """Pass over what stands before a mark."""
        while self.next(f"a line {mark!r}") != mark:
            pass

    def expect(self, mark: str) -> None:
        if (line := self.next(f"a line {mark!r}")) != mark:
            raise self.error(f"{line[:60]!r} stands where {mark!r} was expected")

    def error(self, problem: str) -> DataError:
        return DataError(
            f"{self._path}, line {self._number}: {problem}. Give an ARPA file, such as "
            "KenLM's lmplz writes."
        )


def _read_counts(lines: _Lines) -> list[int]:
    """How many n-grams the file says it has, for each order from 1."""
    counts: list[int] = []
    while True:
        line = lines.next("a line 'ngram 1=...'")
        head, _, count = line.partition("=")
        if head.split() != ["ngram", str(len(counts) + 1)] or not count.strip().isdecimal():
            break
        if len(counts) == HIGHEST:
            raise lines.error(f"n-grams of over {HIGHEST} words are not read")
        counts.append(int(count.strip()[:18]))
    if not counts:
        raise lines.error(f"{line[:60]!r} stands where 'ngram 1=...' was expected")
    lines.give_back(line)
    return counts


def _read_entry(lines: _Lines, order: int) -> tuple[tuple[str, ...], float, float]:
    line = lines.next(f"an n-gram of {order}")
    fields = line.split()
    if not order + 1 <= len(fields) <= order + 2:
        raise lines.error(f"{line[:60]!r} is no n-gram of {order} word(s), as its section has")
    try:
        log_p, backoff = float(fields[0]), float(fields[order + 1]) if fields[order + 1 :] else 0.0
    except ValueError:
        raise lines.error(f"{line[:60]!r} has no number where one was expected") from None
    if not (math.isfinite(backoff) and (log_p == -math.inf or math.isfinite(log_p))):
        raise lines.error(f"{line[:60]!r} has a number that is none")
    if log_p > 1e-4:
        raise lines.error(f"{line[:60]!r} has a probability above 1")
    return tuple(fields[1 : order + 1]), max(log_p, _NEVER), backoff
