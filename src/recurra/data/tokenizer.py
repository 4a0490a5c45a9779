"""From text to token ids and back: what every tokenizer keeps to, and how one is made and kept.

The contract, which language models, translation and sentiment rest on:

* ids are 0 … vocab_size − 1, in falling order of frequency where the kind allows it
* a text is the sequence of its lines: encode(a + b) = encode(a) + encode(b) wherever a ends with a
  line end, so a file can be read in pieces
* decode(encode(text)) = text for "char", "byte" and "subword"; for "word" up to the blanks between
  words. Only characters and words that training did not see become `unk_id`
* nothing depends on the machine, the locale or the order of a hash table

Kinds: "char" (`chars.py`), "byte" (`raw.py`), "word" (`words.py`), "subword" (`subwords.py`).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from recurra.data.textfiles import read_bytes, read_line_pieces
from recurra.errors import ConfigError, RunError, unknown
from recurra.runs import read_json, write_bytes

Ids = npt.NDArray[np.int32]
Kind = Literal["char", "byte", "word", "subword"]
# Where each kind is defined; a name in a file only chooses among these.
_KINDS = {
    "char": ("recurra.data.chars", "CharTokenizer"),
    "byte": ("recurra.data.raw", "ByteTokenizer"),
    "word": ("recurra.data.words", "WordTokenizer"),
    "subword": ("recurra.data.subwords", "SubwordTokenizer"),
}
KINDS = tuple(_KINDS)
FORMAT = 1


class Tokenizer(Protocol):
    """Text to ids and back, see the contract above.

    vocab_size   number of ids
    unk_id       what an unknown character or word becomes; None where everything is known
    end_id       the end of a line: what a text is thought to follow
    """

    kind: ClassVar[Kind]

    @property
    def vocab_size(self) -> int: ...

    @property
    def unk_id(self) -> int | None: ...

    @property
    def end_id(self) -> int: ...

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        """Learn the vocabulary of texts, pieces that end where lines end; None: the kind's size."""
        ...

    def encode(self, text: str) -> Ids:
        """The ids of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become the replacement character."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself, to be shown."""
        ...

    def to_json(self) -> Any:
        """The vocabulary as a JSON value."""
        ...

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The tokenizer of a JSON value. Raises: ValueError when it is none."""
        ...


def find_kind(kind: str) -> type[Tokenizer]:
    """The class of that kind.

    Raises: ConfigError for an unknown one, with the nearest.
    """
    if kind not in _KINDS:
        raise ConfigError(unknown("kind of tokens", kind, KINDS))
    module, name = _KINDS[kind]
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def train_tokenizer(kind: str, paths: Sequence[Path], vocab_size: int | None = None) -> Tokenizer:
    """A tokenizer for the text of these files.

    vocab_size   most ids that it may have; None for what the kind takes

    Raises: DataError for a file that cannot be read, ConfigError for a vocabulary that does not
    fit, MissingExtraError for subwords without the package tokenizers.
    """
    made = find_kind(kind)
    texts = (text for path in paths for text in read_line_pieces(path))
    return made.train(() if kind == "byte" else texts, vocab_size)


def encode_file(tokenizer: Tokenizer, path: Path) -> Iterator[tuple[Ids, int, int]]:
    """The ids of a file piece by piece, each with its number of characters and of bytes.

    Raises: DataError for a file that cannot be read.
    """
    if tokenizer.kind == "byte":
        for piece in read_bytes(path):
            raw = np.frombuffer(piece, dtype=np.uint8)
            # A byte that goes on with a character begins with the bits 10.
            yield raw.astype(np.int32), int(np.count_nonzero(raw & 0xC0 != 0x80)), len(raw)
        return
    for text in read_line_pieces(path):
        yield tokenizer.encode(text), len(text), len(text.encode())


def write_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer as JSON: {"format", "kind", "vocabulary"}."""
    value = {"format": FORMAT, "kind": tokenizer.kind, "vocabulary": tokenizer.to_json()}
    write_bytes(path, json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n")


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer; no code is run.

    Raises: RunError when the file is missing, damaged or of another version.
    """
    value = read_json(path)
    try:
        if not isinstance(value, dict) or value.keys() != {"format", "kind", "vocabulary"}:
            raise ValueError("expected the keys format, kind, vocabulary")
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r}, and this version reads {FORMAT}")
        return find_kind(str(value["kind"])).from_json(value["vocabulary"])
    except ValueError as error:
        raise RunError(
            f"{path} holds no tokenizer of ours: {error}. Restore it from a copy or train again."
        ) from error
