"""Texts in, texts out: tokens, search, words copied, long lines in pieces."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recurra.data.tokenizer import Ids
from recurra.data.words import UNKNOWN
from recurra.decoding.batched import Choose, Found
from recurra.decoding.sampling import Sampler
from recurra.errors import ConfigError, DataError, unknown
from recurra.tasks.translation.batches import Rows
from recurra.tasks.translation.fitted import Fitted
from recurra.tasks.translation.pairs import tidy
from recurra.tasks.translation.searching import Search, search

# A sentence's end, with what closes after it, before a blank; or one of scripts without blanks.
# A row of marks is looked at once, from its first one: the time grows with the length alone.
_END = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)\s*+|(?<![。！？])[。！？]++[」』）]*+\s*+"
)


@dataclass(frozen=True)
class Translation:
    """One translation of one text.

    log_prob        of its tokens and end, in nats
    score           what it was ranked by
    source_pieces, pieces
                    what the tokens of the source, its end included, and of the translation say
    attention       (T + 1, S): what each piece looked at; the last row is the end's
    complete        whether it ended by itself, and not at the greatest length
    """

    text: str
    log_prob: float
    score: float
    source_pieces: tuple[str, ...] = field(repr=False)
    pieces: tuple[str, ...] = field(repr=False)
    attention: npt.NDArray[np.float32] = field(repr=False)
    complete: bool = True


def translate(
    several: Sequence[Fitted],
    texts: Sequence[str],
    how: Search,
    *,
    prefixes: Sequence[str] | None = None,
    sampling: dict[str, Any] | None = None,
    seed: int = 0,
    lines: Sequence[int] | None = None,
) -> tuple[list[list[Translation]], list[str]]:
    """(the best translations of each text, best first; what there is to say about some of them).

    several    models with the same tokens, whose probabilities are averaged
    prefixes   what each translation begins with
    sampling   rules of `Sampler`, to draw translations instead of searching for them
    lines      numbers of the texts in what is said about them; None for 1, 2, 3 …

    An empty text has an empty translation. A text longer than the model has seen is cut at ends of
    sentences, else at blanks, and its pieces are translated one by one.
    Raises: ConfigError for models that differ in their tokens, for as many prefixes as there are
    not texts, and for rules of sampling that are unknown or out of range; DataError for a text that
    is no Unicode.
    """
    first = several[0]
    check_same_tokens(several)
    lines = range(1, len(texts) + 1) if lines is None else lines
    _check_texts(texts, lines)
    if prefixes is not None and len(prefixes) != len(texts):
        raise ConfigError(
            f"{len(prefixes)} prefixes for {len(texts)} texts; expected one for each."
        )
    cut = [split_text(first, tidy(text)) for text in texts]
    notes = [
        f"line {line} has {_size(first, tidy(text))} tokens, and training saw at most "
        f"{first.settings.max_length}: translated in {len(pieces)} pieces"
        for line, text, pieces in zip(lines, texts, cut, strict=True)
        if len(pieces) > 1
    ]
    pieces = [piece for several_pieces in cut for piece in several_pieces]
    begins = [
        tidy(prefix) if k == 0 else ""
        for prefix, own in zip(prefixes or [""] * len(texts), cut, strict=True)
        for k in range(len(own))
    ]
    begun = None if prefixes is None else [first.tokens.begin(prefix) for prefix in begins]
    sources = [first.tokens.read(piece) for piece in pieces]
    choose = None if sampling is None else _Drawing(sampling, seed, pieces)
    networks = [one.network for one in several]
    found = search(
        networks, sources, first.tokens.target.end_id, how, prefixes=begun, choose=choose
    )
    said = iter(
        [_say(first, piece, source, prefix, one) for one in results]
        for piece, source, prefix, results in zip(pieces, sources, begins, found, strict=True)
    )
    return [_join([next(said) for _ in own]) for own in cut], notes


def check_same_tokens(several: Sequence[Fitted]) -> None:
    """Raise ConfigError unless all models read and write the same tokens."""
    first = several[0].tokens
    for one in several[1:]:
        pairs = ((first.source, one.tokens.source), (first.target, one.tokens.target))
        if any(a.kind != b.kind or a.to_json() != b.to_json() for a, b in pairs):
            raise ConfigError(
                "the models of an ensemble have different tokens; expected models trained on the "
                "same pairs with the same tokens, vocab_size and joint, that differ in their seed."
            )


def split_text(fitted: Fitted, text: str) -> list[str]:
    """The text in pieces of at most `max_length` tokens; none of an empty one."""
    longest = fitted.settings.max_length
    if not text:
        return []
    if _size(fitted, text) <= longest:
        return [text]
    pieces = _pack(fitted, _sentences(text))
    return [part for piece in pieces for part in _cut(fitted, piece)]


def _sentences(text: str) -> list[str]:
    ends = [0, *(found.end() for found in _END.finditer(text)), len(text)]
    units = [text[begin:end].strip() for begin, end in itertools.pairwise(ends)]
    return [unit for unit in units if unit]


def _cut(fitted: Fitted, sentence: str) -> list[str]:
    """A sentence that is too long itself, cut at blanks; without any, in the middle."""
    if _size(fitted, sentence) <= fitted.settings.max_length:
        return [sentence]
    words = sentence.split(" ")
    if len(words) > 1:
        pieces = _pack(fitted, words)
        return [part for piece in pieces for part in _cut(fitted, piece)]
    if len(sentence) == 1:
        return [sentence]
    middle = len(sentence) // 2
    return _cut(fitted, sentence[:middle]) + _cut(fitted, sentence[middle:])


def _pack(fitted: Fitted, units: Sequence[str]) -> list[str]:
    """Neighbours put together as long as they are short enough."""
    pieces: list[str] = []
    for unit in units:
        joined = f"{pieces[-1]} {unit}" if pieces else unit
        if pieces and _size(fitted, joined) <= fitted.settings.max_length:
            pieces[-1] = joined
        else:
            pieces.append(unit)
    return pieces


def _size(fitted: Fitted, text: str) -> int:
    return len(fitted.tokens.read(text)) - 1


def _check_texts(texts: Sequence[str], lines: Sequence[int]) -> None:
    for line, text in zip(lines, texts, strict=True):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"line {line} holds half a surrogate pair at character {error.start}, which is no "
                "text. Decode it anew, or leave it out."
            ) from error


def _say(fitted: Fitted, text: str, source: Ids, prefix: str, found: Found) -> Translation:
    """A sentence as text, unknown words copied from the prefix, or from where they looked."""
    tokens, target = fitted.tokens, fitted.tokens.target
    pieces = target.pieces(found.tokens)
    source_pieces = tokens.source.pieces(source[:-1].tolist())
    attention = found.attention.numpy()
    written = target.decode(found.tokens)
    if target.unk_id in found.tokens:
        units = text.split(" ") if target.kind == "word" else list(text)
        # The end of the source is no word to copy.
        looked = attention[:, : len(units)].argmax(1)
        blank = " " if target.kind == "word" else ""
        begun = prefix.split() if target.kind == "word" else list(prefix)
        for k, token in enumerate(found.tokens):
            if token == target.unk_id:
                own = begun[k] if k < len(begun) and begun[k] != UNKNOWN else None
                pieces[k] = (own or units[looked[k]]) + blank
        written = "".join(pieces)
    return Translation(
        tidy(written),
        found.log_prob,
        found.score,
        (*source_pieces, "⏎"),
        tuple(pieces),
        attention,
        found.complete,
    )


def _join(parts: Sequence[Sequence[Translation]]) -> list[Translation]:
    """The translations of a text whose pieces have these."""
    if len(parts) == 1:
        return list(parts[0])
    if not parts:
        return [Translation("", 0.0, 0.0, ("⏎",), (), np.ones((1, 1), np.float32))]
    return [
        _one_after_another([part[rank] for part in parts])
        for rank in range(min(len(part) for part in parts))
    ]


def _one_after_another(parts: Sequence[Translation]) -> Translation:
    shapes = [part.attention.shape for part in parts]
    attention = np.zeros((sum(s[0] for s in shapes), sum(s[1] for s in shapes)), np.float32)
    row = column = 0
    for part, (rows, columns) in zip(parts, shapes, strict=True):
        attention[row : row + rows, column : column + columns] = part.attention
        row, column = row + rows, column + columns
    return Translation(
        " ".join(part.text for part in parts),
        sum(part.log_prob for part in parts),
        sum(part.score for part in parts),
        tuple(piece for part in parts for piece in part.source_pieces),
        tuple(piece for part in parts[:-1] for piece in (*part.pieces, "⏎")) + parts[-1].pieces,
        attention,
        all(part.complete for part in parts),
    )


class _Drawing:
    """Makes what draws the tokens of some sentences, each from a seed of its own."""

    def __init__(self, rules: dict[str, Any], seed: int, texts: Sequence[str]) -> None:
        known = inspect.signature(Sampler).parameters.keys() - {"seed"}
        for name in rules:
            if name not in known:
                raise ConfigError(unknown("rule of sampling", name, sorted(known)))
        Sampler(**rules)  # a wrong value is refused even where there is no text
        self._rules, self._seed, self._texts = rules, seed, texts

    def __call__(self, rows: Rows) -> Choose:
        samplers = [
            Sampler(**self._rules, seed=_seed_of(self._seed, self._texts[k])) for k in rows.tolist()
        ]

        def choose(log_probs: Tensor, numbers: Tensor) -> Tensor:
            drawn = zip(numbers.tolist(), log_probs, strict=True)
            return torch.tensor([samplers[k].draw(row) for k, row in drawn])

        return choose


def _seed_of(seed: int, text: str) -> int:
    """A seed that does not depend on where the text stands."""
    digest = hashlib.blake2b(f"{seed}:{text}".encode("utf-8", "replace"), digest_size=7)
    return int.from_bytes(digest.digest(), "big")
