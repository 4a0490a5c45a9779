"""Translator: fit, evaluate, translate, score, stream, save, load."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from recurra.errors import ConfigError, not_fitted
from recurra.runs import RunFolder
from recurra.tasks.translation.evaluation import Evaluation, evaluate
from recurra.tasks.translation.fitted import TASK, Fitted
from recurra.tasks.translation.fitting import all_log_probs
from recurra.tasks.translation.learning import (
    encode,
    learn,
    plan,
    trained_on,
    training_settings,
)
from recurra.tasks.translation.pairs import Pairs, read_pairs
from recurra.tasks.translation.searching import Search
from recurra.tasks.translation.settings import Tokens, TranslationSettings
from recurra.tasks.translation.stream import TranslationStream
from recurra.tasks.translation.translate import Translation, check_same_tokens, translate
from recurra.training.loop import TrainingResult
from recurra.training.same_fit import begin_run, free_folder


class Translator:
    """A recurrent network that reads sentences and writes their translations.

    tokens            "subword" (bytes, nothing is unknown), "word" (between blanks) or "char"
    vocab_size        most subwords or words
    joint             both languages have the same tokens, and embeddings
    cell              any cell of the package
    embedding_size    features of a token, in and out
    hidden_size       units of a layer, in each direction of the encoder
    encoder_layers, decoder_layers
                      recurrent layers; the decoder attends after its first one and after its last
    attention         "multiplicative" or "additive"
    input_feeding     the decoder reads its last output too; training is then step by step
    subword_dropout, word_dropout, input_dropout, hidden_dropout, output_dropout, weight_drop,
    recurrent_dropout, zoneout, label_smoothing
                      against overfitting; the first splits subwords of the source, the second
                      leaves out whole tokens
    batch_tokens      tokens of the longer side in an update
    max_length        tokens of a sentence that training sees at most; longer texts are translated
                      in pieces
    max_ratio         pairs whose sides differ more in length are left out
    minutes, steps    length of training, on the clock or in updates; 10 minutes when both are None
    validation        share of the pairs kept to find the best weights by, unless `fit` gets some
    patience          validations without a better one after which training ends; None for all
    seed, device      seed of all chance; "auto", "cpu" or "cuda" to train on
    training          further settings of the training loop, as {"learning_rate": 1e-3}
    progress          show a bar, or lines, on stderr

    Raises: ConfigError for a setting that is unknown or out of range.

    Example:
        >>> english = ["a cat", "a dog", "one cat", "one dog"] * 3
        >>> german = ["eine katze", "ein hund", "eine katze", "ein hund"] * 3
        >>> model = Translator(
        ...     tokens="word", hidden_size=16, steps=150, subword_dropout=0, progress=False,
        ...     training={"learning_rate": 0.01})
        >>> model.fit(english, german).translate(["one dog"])
        ['ein hund']

    Source: the network is described in `network.py`, the search in `decoding/batched.py`.
    """

    def __init__(
        self,
        *,
        tokens: Tokens = "subword",
        vocab_size: int = 4000,
        joint: bool = True,
        cell: str = "gru",
        embedding_size: int = 128,
        hidden_size: int = 256,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        attention: Literal["multiplicative", "additive"] = "multiplicative",
        input_feeding: bool = False,
        subword_dropout: float = 0.1,
        word_dropout: float = 0.1,
        input_dropout: float = 0.2,
        hidden_dropout: float = 0.3,
        output_dropout: float = 0.3,
        weight_drop: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        label_smoothing: float = 0.1,
        batch_tokens: int = 1500,
        max_length: int = 100,
        max_ratio: float = 5.0,
        minutes: float | None = None,
        steps: int | None = None,
        validation: float = 0.02,
        patience: int | None = 10,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        training: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        given = {**locals(), "training": dict(training or {})}
        self.settings = TranslationSettings.out_of(given)
        self.progress = progress
        self.result: TrainingResult | None = None
        self._fitted: Fitted | None = None
        training_settings(self.settings)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], *, progress: bool = True) -> Self:
        """A translator from settings by name, as a file holds them.

        Raises: ConfigError naming every one that is unknown (and the nearest), or out of range.
        """
        checked = TranslationSettings(**settings)
        return cls(**checked.model_dump(), progress=progress)

    def __repr__(self) -> str:
        words = self.settings.written()
        return f"Translator({words}), {'fitted' if self._fitted else 'not fitted'}"

    @property
    def fitted(self) -> Fitted:
        """The trained part: tokens and network.

        Raises: NotFittedError before `fit` or `load`.
        """
        if self._fitted is None:
            raise not_fitted(self, "fit(source, target)")
        return self._fitted

    def fit(
        self,
        source: Any,
        target: Any = None,
        *,
        valid: tuple[Any, Any] | Pairs | None = None,
        out: str | Path | None = None,
        force: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train on sentences and their translations: two files, two lists of texts, or `Pairs`.

        valid                as (source, target), to find the best weights by; None for a share
        out, force, resume   run folder to write; replace the run in it; go on with it

        Raises: DataError for sentences that cannot be used, RunError for the folder.
        """
        run = free_folder(out, force=force, resume=resume)
        kept = valid if valid is None or isinstance(valid, Pairs) else read_pairs(*valid)
        chosen = plan(_pairs(source, target), kept, self.settings)
        run = begin_run(run, chosen.settings, trained_on(chosen), force=force, resume=resume)
        self._fitted, self.result = learn(chosen, run, resume=resume, progress=self.progress)
        if run is not None:
            self.fitted.save(run)
        return self

    def translate(
        self,
        texts: Sequence[str],
        *,
        beam_size: int = 5,
        prefixes: Sequence[str] | None = None,
        ensemble: Sequence[Translator] = (),
        sampling: Mapping[str, Any] | None = None,
        seed: int = 0,
        **search: Any,
    ) -> list[str]:
        """The best translation of each text; see `translate_all` for the arguments.

        Warns of texts that were translated in pieces.
        """
        several, notes = self.translate_all(
            texts,
            beam_size=beam_size,
            prefixes=prefixes,
            ensemble=ensemble,
            sampling=sampling,
            seed=seed,
            **search,
        )
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return [best[0].text for best in several]

    def translate_all(
        self,
        texts: Sequence[str],
        *,
        beam_size: int = 5,
        prefixes: Sequence[str] | None = None,
        ensemble: Sequence[Translator] = (),
        sampling: Mapping[str, Any] | None = None,
        seed: int = 0,
        **search: Any,
    ) -> tuple[list[list[Translation]], list[str]]:
        """(translations of each text, best first, with scores and attention; notes on long texts).

        beam_size   1 is greedy
        prefixes    what each translation begins with
        ensemble    further translators with the same tokens; probabilities are averaged
        sampling    rules of `decoding.sampling.Sampler`, as {"temperature": 0.8}, to draw instead
        seed        of the draws, which do not depend on the other texts
        search      count, length_penalty, coverage, max_ratio, extra, rows: see `searching.Search`

        The same text has the same translation whatever stands beside it.
        Raises: ConfigError for settings that are unknown or out of range.
        """
        if isinstance(texts, str):
            raise ConfigError("texts is one text; expected a list of them: translate([text]).")
        several = [self.fitted, *(one.fitted for one in ensemble)]
        rules = None if sampling is None else dict(sampling)
        if rules is not None and search.get("count", 1) != 1:
            raise ConfigError(
                f"count={search['count']} with sampling, which draws one translation of each text; "
                "leave one out, or give the text as often as wanted with seeds of their own."
            )
        how = make_search(beam_size if rules is None else 1, **search)
        return translate(several, texts, how, prefixes=prefixes, sampling=rules, seed=seed)

    def score(self, source: Any, target: Any = None) -> npt.NDArray[np.float64]:
        """log p (N,) of each target, its end included, given its source, in nats.

        Raises: DataError for sentences that cannot be used.
        """
        corpus = encode(_pairs(source, target), self.fitted.tokens)
        return np.asarray(all_log_probs(self.fitted.network, corpus).numpy())

    def evaluate(
        self,
        source: Any,
        target: Any = None,
        *,
        beam_size: int = 5,
        tokenize: str | None = None,
        ensemble: Sequence[Translator] = (),
        **search: Any,
    ) -> Evaluation:
        """BLEU and chrF by sacrebleu over sentences with their translations.

        tokenize   sacrebleu's tokenizer; None for its own choice
        Raises: DataError for sentences that cannot be used, MissingExtraError without sacrebleu.
        """
        several = [self.fitted, *(one.fitted for one in ensemble)]
        check_same_tokens(several)
        how = make_search(beam_size, **search)
        return evaluate(several, _pairs(source, target), how, tokenize)

    def stream(self, *, beam_size: int = 5, **search: Any) -> TranslationStream:
        """Line by line: a text in, its translation out, token by token where wanted."""
        return TranslationStream(self.fitted, make_search(beam_size, **search))

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the run folder: config.json, tokenizer.json, model.safetensors.

        Raises: RunError when the folder already holds files and `force` is not given.
        """
        fitted = self.fitted
        fitted.save(RunFolder.create(path, force=force))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a run folder. No code is run. Raises: RunError when it is damaged."""
        fitted = Fitted.load(RunFolder.open(path, TASK))
        model = cls.from_settings(fitted.settings.model_dump())
        model._fitted = fitted
        return model


def make_search(beam_size: int, **values: Any) -> Search:
    """A `Search` from arguments by name. Raises: ConfigError for an unknown one."""
    from recurra.errors import unknown

    known = Search.__dataclass_fields__
    for name in values:
        if name not in known:
            raise ConfigError(unknown("setting of the search", name, known))
    return Search(beam_size=beam_size, **values)


def _pairs(source: Any, target: Any) -> Pairs:
    if isinstance(source, Pairs):
        return source
    if target is None:
        raise ConfigError("the translations are missing; pass the source and the target.")
    return read_pairs(source, target)
