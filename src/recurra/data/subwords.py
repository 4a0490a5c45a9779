"""Text as subwords: byte-pair encoding by the package tokenizers (extra `language`).

Source: Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword
units", over bytes as in Radford et al. 2019, so that nothing is unknown. The package learns unigram
subwords too, but with other ones each time, as its hash tables are ordered by chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from recurra.data.tokenizer import Ids
from recurra.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import tokenizers

_SIZE = 8000
_LEAST = 257


class SubwordTokenizer:
    """Byte-pair encoding of each line with its end; ids 0 to 255 are the bytes.

    >>> tokenizer = SubwordTokenizer.train(["low lower lowest\\n" * 9], 300)
    >>> tokenizer.decode(tokenizer.encode("a lower é\\n"))
    'a lower é\\n'
    """

    kind: ClassVar[Literal["subword"]] = "subword"
    unk_id = None

    def __init__(self, model: tokenizers.Tokenizer) -> None:
        self._model = model
        self.vocab_size = int(model.get_vocab_size())
        ids = self.encode("\n")
        self.end_id = int(ids[-1])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        size = _SIZE if vocab_size is None else vocab_size
        if size < _LEAST:
            raise ConfigError(
                f"vocab_size={size}: subwords need at least {_LEAST}, the 256 bytes and one pair."
            )
        package = _package()
        alphabet = package.pre_tokenizers.ByteLevel.alphabet()
        model = package.Tokenizer(package.models.BPE())
        model.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=alphabet, show_progress=False
        )
        model.train_from_iterator(_lines(texts), trainer)
        return cls(model)

    def encode(self, text: str) -> Ids:
        encoded = self._model.encode_batch(list(_lines([text])))
        parts = [np.array(line.ids, dtype=np.int32) for line in encoded]
        return np.concatenate([np.empty(0, np.int32), *parts])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._model.decode([int(i) for i in ids], skip_special_tokens=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.decode([i]) for i in ids]

    def to_json(self) -> Any:
        return self._model.to_str()

    @classmethod
    def from_json(cls, value: Any) -> Self:
        if not isinstance(value, str):
            raise ValueError("its vocabulary is no text")
        _check_ours(value)
        try:
            return cls(_package().Tokenizer.from_str(value))
        except MissingExtraError:
            raise
        except Exception as error:  # the package raises bare ones
            raise ValueError(str(error)) from error


def _check_ours(text: str) -> None:
    """Raise ValueError unless this is what `train` makes: the package could do much more.

    A foreign one might drop pieces at random, cut texts, or fill them up until memory ends.
    """
    try:
        whole = json.loads(text)
        model, cut = whole["model"], whole["pre_tokenizer"]
        found = [
            *(whole[name] for name in ("truncation", "padding", "normalizer", "post_processor")),
            *(model[name] for name in ("dropout", "unk_token", "end_of_word_suffix")),
            model["continuing_subword_prefix"],
        ]
        kinds = [model["type"], cut["type"], whole["decoder"]["type"]]
        ids = sorted(model["vocab"].values())
        more = whole["added_tokens"] or cut["add_prefix_space"] or not cut["use_regex"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("its vocabulary is no byte-pair encoding") from error
    if kinds != ["BPE", "ByteLevel", "ByteLevel"] or more or any(one is not None for one in found):
        raise ValueError("its vocabulary is no plain byte-pair encoding of bytes")
    if ids != list(range(len(ids))) or len(ids) < _LEAST:
        raise ValueError(f"its ids are not those of {_LEAST} subwords or more, each once")


def _package() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "language", "Reading subwords") from error
    return tokenizers


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Each line with its end; only "\\n" ends one."""
    for text in texts:
        begin = 0
        while begin < len(text):
            end = text.find("\n", begin) + 1 or len(text)
            yield text[begin:end]
            begin = end
