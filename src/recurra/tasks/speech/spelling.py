"""Texts as the labels that a network says: characters, or subwords learned from the transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from recurra.data.recordings import Recording
from recurra.errors import ConfigError, MissingExtraError
from recurra.tasks.speech.settings import SpeechSettings

_BLANK = "▁"  # what the package tokenizers writes for a blank


class Spelling(Protocol):
    """A way to write texts by labels from 1, label k for the piece `pieces[k - 1]`."""

    @property
    def pieces(self) -> str | tuple[str, ...]: ...

    def encode(self, text: str) -> tuple[int, ...]:
        """The labels of a text that has no `strange` characters."""
        ...

    def strange(self, text: str) -> str:
        """The characters of a text that it cannot write."""
        ...


class Characters:
    """One label for each character.

    >>> Characters("AB ").encode("A B"), Characters("AB ").strange("A C")
    ((1, 3, 2), 'C')
    """

    def __init__(self, alphabet: str) -> None:
        self.pieces = alphabet
        self._labels = {character: number for number, character in enumerate(alphabet, start=1)}

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._labels[character] for character in text)

    def strange(self, text: str) -> str:
        return _others(text, self.pieces)


class Subwords:
    """One label for each of `count` pieces, the characters and what stands together most often.

    Pieces are found by byte-pair encoding of characters, by the package tokenizers, within words:
    one that begins a word after another has the blank in it.
    Source: Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword
    units".

    Raises: ConfigError for fewer pieces than there are characters; MissingExtraError.

    >>> spelling = Subwords(["GO HOME", "GO NOW", "GO"], 12)
    >>> [spelling.pieces[label - 1] for label in spelling.encode("GO HOME")]
    ['GO', ' ', 'HO', 'ME']
    """

    def __init__(self, texts: Sequence[str], count: int) -> None:
        self._characters = "".join(sorted(set("".join(texts))))
        if count < len(self._characters):
            raise ConfigError(
                f"subwords={count}; expected at least as many as the transcripts have characters, "
                f"{len(self._characters)}."
            )
        package = _package()
        self._model = package.Tokenizer(package.models.BPE())
        self._model.pre_tokenizer = package.pre_tokenizers.Metaspace(prepend_scheme="never")
        trainer = package.trainers.BpeTrainer(vocab_size=count, show_progress=False)
        self._model.train_from_iterator(texts, trainer)
        ids = self._model.get_vocab()
        self.pieces = tuple(
            piece.replace(_BLANK, " ") for piece in sorted(ids, key=ids.__getitem__)
        )

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(one + 1 for one in self._model.encode(text).ids)

    def strange(self, text: str) -> str:
        return _others(text, self._characters)


def find_spelling(recordings: Sequence[Recording], settings: SpeechSettings) -> Spelling | None:
    """How to write the transcripts, as the settings say; None when there are none."""
    texts = [recording.text for recording in recordings if recording.text]
    if settings.alphabet is not None:
        return Characters(settings.alphabet)
    if not texts:
        return None
    if settings.subwords is not None:
        return Subwords(texts, settings.subwords)
    return Characters(find_alphabet(texts))


def unit_of(settings: SpeechSettings) -> str:
    """What a label stands for, in the plural."""
    return "characters" if settings.subwords is None else "subwords"


def find_alphabet(texts: Sequence[str]) -> str:
    """Every character of texts, the commonest first."""
    counts: dict[str, int] = {}
    for text in texts:
        for character in text:
            counts[character] = counts.get(character, 0) + 1
    return "".join(sorted(counts, key=lambda character: (-counts[character], character)))


def _others(text: str, known: str) -> str:
    return "".join(dict.fromkeys(character for character in text if character not in known))


def _package() -> Any:
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "language", "Learning subwords") from error
    return tokenizers
