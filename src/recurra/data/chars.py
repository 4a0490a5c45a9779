"""Text as characters: each code point is a token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from recurra.data.tokenizer import Ids
from recurra.errors import ConfigError, DataError

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_MOST = 20_000  # characters of a vocabulary of no given size; Chinese texts use some thousands
_CODES = 0x110000


class CharTokenizer:
    """Characters by falling frequency after id 0, the unknown one.

    >>> tokenizer = CharTokenizer.train(["to be\\n"], None)
    >>> tokenizer.vocab_size, tokenizer.decode(tokenizer.encode("to be"))
    (7, 'to be')
    """

    kind: ClassVar[Literal["char"]] = "char"

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = "".join(characters)
        codes = _codes(self.characters)
        self._id = np.zeros(_CODES, dtype=np.int32)
        self._id[codes] = np.arange(1, len(codes) + 1)
        self.vocab_size = len(codes) + 1
        self.unk_id = 0
        self.end_id = int(self._id[ord("\n")])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        if vocab_size is not None and vocab_size < 2:
            raise ConfigError(
                f"vocab_size={vocab_size}: characters need at least 2, one of them unknown."
            )
        counts = np.zeros(_CODES, dtype=np.int64)
        for text in texts:
            counts += np.bincount(_codes(text), minlength=_CODES)
        order = np.argsort(-counts, kind="stable")[: int(np.count_nonzero(counts))]
        return cls([chr(code) for code in order[: (vocab_size or _MOST) - 1]])

    def encode(self, text: str) -> Ids:
        ids: Ids = self._id[_codes(text)]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.characters[int(i) - 1] if i else UNKNOWN for i in ids]

    def to_json(self) -> Any:
        return list(self.characters)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        is_list = isinstance(value, list) and 0 < len(value) < _CODES
        if not is_list or not all(isinstance(c, str) and len(c) == 1 for c in value):
            raise ValueError("its vocabulary is no list of characters")
        if len(set(value)) < len(value):
            raise ValueError("its vocabulary has a character twice")
        return cls(value)


def _codes(text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text holds half a surrogate pair at character {error.start}, which is no text."
        ) from error
