"""How a text is searched for: greedily, or by a beam, with a language model and hot words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recurra.data.ngram import read_arpa
from recurra.data.tokenizer import Tokenizer
from recurra.errors import ConfigError, unknown
from recurra.tasks.speech.settings import Design

if TYPE_CHECKING:
    from recurra.decoding.ctc import Scorer

BEAM_SIZE = 16
"""Sequences kept where a language model or hot words are given without a size."""
_NEEDED = {"language_model": ("language_weight", "word_bonus"), "hot_words": ("hot_boost",)}
"""Options that others only say more of."""


class FittedText(Protocol):
    """The trained part of a language model: what it reads, and the network."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def network(self) -> Any: ...


class TextModel(Protocol):
    """A trained `LanguageModel`."""

    @property
    def fitted(self) -> FittedText: ...


@dataclass(frozen=True)
class Search:
    """The options of `Transcriber.predict` and `evaluate` that say how a text is searched for.

    beam_size         None: the likeliest character at every step, or BEAM_SIZE where what follows
                      needs a beam
    language_model    an ARPA file of words, or a trained LanguageModel; None for none
    language_weight   what its log p counts beside that of the sound
    word_bonus        nats for each word, against a language model's liking of few
    hot_words         phrases that are likelier than the model knows
    hot_boost         nats for each of their characters

    Raises: ConfigError for a number out of range.
    """

    beam_size: int | None = None
    language_model: str | Path | TextModel | None = None
    language_weight: float = 0.5
    word_bonus: float = 1.0
    hot_words: Sequence[str] = ()
    hot_boost: float = 1.0

    def __post_init__(self) -> None:
        if self.beam_size is not None and self.beam_size < 1:
            raise ConfigError(f"beam_size={self.beam_size}; expected at least 1.")
        for name in ("language_weight", "word_bonus", "hot_boost"):
            value = getattr(self, name)
            if not 0 <= value <= 100:
                raise ConfigError(f"{name}={value}; expected 0 to 100.")
        if isinstance(self.hot_words, str):
            raise ConfigError(f"hot_words is a list of phrases; pass [{self.hot_words!r}].")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Search:
        """A search from options by name.

        Raises: ConfigError for an unknown one, with the nearest; for one that changes nothing
        without another that is not given.

        >>> Search.of({"beam_size": 8}).words
        'prefix beam of 8, no language model'
        """
        names = cls.__dataclass_fields__
        for name in options:
            if name not in names:
                raise ConfigError(unknown("option of a search", name, names))
        search = cls(**options)
        for needed, dependents in _NEEDED.items():
            for name in dependents:
                if name in options and not getattr(search, needed):
                    flag = needed.rstrip("s").replace("_", "-")
                    raise ConfigError(
                        f"{name}={options[name]} changes nothing without {needed} (--{flag}). Give "
                        "that, or leave it out."
                    )
        return search

    @property
    def width(self) -> int | None:
        """The beam's size; None for a greedy search."""
        if self.beam_size is None and (self.language_model is not None or self.hot_words):
            return BEAM_SIZE
        return self.beam_size

    @property
    def words(self) -> str:
        """How it searches, in a few words."""
        if self.width is None:
            return "greedy, no language model"
        model = "no language model" if self.language_model is None else self._model_words
        plural = "s" if len(self.hot_words) > 1 else ""
        hot = f", {len(self.hot_words)} hot word{plural}" if self.hot_words else ""
        return f"prefix beam of {self.width}, {model}{hot}"

    @property
    def _model_words(self) -> str:
        given = self.language_model
        is_file = isinstance(given, str | Path)
        name = Path(given).name if is_file else "a recurrent language model"  # type: ignore[arg-type]
        return f"{name} of weight {self.language_weight:g}, {self.word_bonus:g} nats a word"

    def scorer(self, design: Design) -> Scorer | None:
        """What the beam adds to the sound; None for nothing.

        Raises: DataError for a file that is no ARPA file; ConfigError for a language model, or hot
        words, of other characters than the transcriber writes.
        """
        from recurra.decoding.fusion import HotWords, Together

        scorers: list[Scorer] = []
        if self.language_model is not None:
            scorers.append(self._language_scorer(design))
        if self.hot_words:
            scorers.append(HotWords(design.alphabet, self.hot_words, boost=self.hot_boost))
        return Together(scorers) if len(scorers) > 1 else next(iter(scorers), None)

    def _language_scorer(self, design: Design) -> Scorer:
        from recurra.decoding.fusion import RecurrentWords, TextScorer, WordScorer

        rates = {"weight": self.language_weight, "word_bonus": self.word_bonus}
        given = self.language_model
        assert given is not None
        if isinstance(given, str | Path):
            ngram = read_arpa(Path(given))
            if not any(set(word) <= set("".join(design.alphabet)) for word in ngram.words):
                raise ConfigError(
                    f"{given} has no word that the transcriber can write, as {design.alphabet!r}. "
                    "Make it of texts like the training's, in the same case."
                )
            return WordScorer(design.alphabet, ngram, **rates)
        tokenizer, network = given.fitted.tokenizer, given.fitted.network
        if tokenizer.kind == "word":
            id_of = _id_of(tokenizer)
            return WordScorer(
                design.alphabet, RecurrentWords(network, id_of, tokenizer.end_id), **rates
            )
        if tokenizer.kind == "subword":
            raise ConfigError(
                "this language model reads subwords, which do not end where the transcriber's "
                "pieces end. Train one with tokens='char', 'byte' or 'word'."
            )
        tokens_of = [[int(one) for one in tokenizer.encode(piece)] for piece in design.alphabet]
        unknown = [
            piece
            for piece, tokens in zip(design.alphabet, tokens_of, strict=True)
            if tokenizer.unk_id is not None and tokenizer.unk_id in tokens
        ]
        if len(unknown) > len(design.alphabet) / 2:
            raise ConfigError(
                f"this language model does not know {''.join(unknown)!r}, which the transcriber "
                "writes. Train it on texts like the transcripts, in the same case."
            )
        return TextScorer(design.alphabet, network, tokens_of, tokenizer.end_id, **rates)


def _id_of(tokenizer: Tokenizer) -> Callable[[str], int]:
    return lambda word: int(tokenizer.encode(word)[0])
