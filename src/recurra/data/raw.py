"""Text, or anything else, as bytes: each byte is a token, and nothing is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from recurra.data.tokenizer import Ids
from recurra.errors import ConfigError


class ByteTokenizer:
    """The 256 bytes of UTF-8, in their own order.

    >>> ByteTokenizer().encode("é").tolist()
    [195, 169]
    """

    kind: ClassVar[Literal["byte"]] = "byte"
    vocab_size = 256
    unk_id = None
    end_id = 10

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        if vocab_size not in (None, 256):
            raise ConfigError(f"vocab_size={vocab_size}: there are 256 bytes. Leave it out.")
        return cls()

    def encode(self, text: str) -> Ids:
        raw = text.encode("utf-8", "surrogatepass")
        return np.frombuffer(raw, dtype=np.uint8).astype(np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(int(i) for i in ids).decode("utf-8", "replace")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [chr(i) if i < 128 else f"\\x{int(i):02x}" for i in ids]

    def to_json(self) -> Any:
        return None

    @classmethod
    def from_json(cls, value: Any) -> Self:
        if value is not None:
            raise ValueError("bytes need no vocabulary, and it has one")
        return cls()
