"""SentimentClassifier: fit, evaluate, predict, explain, stream, save, load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from recurra.errors import ConfigError, not_fitted
from recurra.runs import RunFolder
from recurra.tasks.sentiment.attribution import Explanation, Method, explain
from recurra.tasks.sentiment.evaluation import Evaluation, evaluate
from recurra.tasks.sentiment.examples import read_examples
from recurra.tasks.sentiment.fitted import TASK, Fitted
from recurra.tasks.sentiment.learning import (
    learn,
    plan,
    trained_on,
    training_settings,
)
from recurra.tasks.sentiment.pretrained import read_pretrained
from recurra.tasks.sentiment.settings import Pooling, SentimentSettings
from recurra.tasks.sentiment.stream import OpinionStream
from recurra.training.loop import TrainingResult
from recurra.training.same_fit import begin_run, free_folder


class SentimentClassifier:
    """A recurrent network that gives texts one of two or more labels, and says how sure it is.

    text, label       columns of the table
    cell              any cell of the package, with hidden_size and num_layers
    bidirectional     also read backwards, within chunks
    embedding_size    features of a word
    vocab_size, min_count
                      most words with a vector of their own, and how often such a word must occur
    buckets           vectors that character n-grams share by a hash; 0 for none
    pooling           how outputs become one vector: any of "max", "mean", "last", "attention"
    lexical_features  words and pairs that naive Bayes counts; 0 for no such shortcut
    word_dropout, input_dropout, hidden_dropout, output_dropout, weight_drop, recurrent_dropout,
    zoneout, label_smoothing
                      against overfitting; the first leaves out whole words
    chunk             words that the reverse direction reads at once, see `network.py`
    train_words       words of a text that training sees, half from its beginning, half its end
    batch_size        texts in an update
    minutes, steps    length of training, on the clock or in updates; 10 minutes when both are None
    validation        share of the texts kept to find the best weights and the temperature, unless
                      `fit` is given a table for that
    patience          validations without a better one after which training ends; None for all
    seed, device      seed of all chance; "auto", "cpu" or "cuda" to train on
    training          further settings of the training loop, as {"learning_rate": 1e-3}
    progress          show a bar, or lines, on stderr

    Raises: ConfigError for a setting that is unknown or out of range.

    Example:
        >>> import polars
        >>> table = polars.DataFrame({
        ...     "text": ["a good film", "a bad film", "good actors", "bad actors"] * 5,
        ...     "label": ["pos", "neg", "pos", "neg"] * 5,
        ... })
        >>> model = SentimentClassifier(steps=30, hidden_size=8, progress=False).fit(table)
        >>> model.predict(["good", "a bad one"])
        ['pos', 'neg']
        >>> model.explain("a bad one").label
        'neg'

    Source: the network is described in `network.py`, its shortcut in `naive_bayes.py`.
    """

    def __init__(
        self,
        *,
        text: str = "text",
        label: str = "label",
        cell: str = "gru",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = True,
        embedding_size: int = 100,
        vocab_size: int = 30_000,
        min_count: int = 2,
        buckets: int = 16_384,
        pooling: Sequence[Pooling] = ("max", "mean"),
        lexical_features: int = 100_000,
        word_dropout: float = 0.1,
        input_dropout: float = 0.3,
        hidden_dropout: float = 0.3,
        output_dropout: float = 0.5,
        weight_drop: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        label_smoothing: float = 0.0,
        chunk: int = 128,
        train_words: int = 400,
        batch_size: int = 32,
        minutes: float | None = None,
        steps: int | None = None,
        validation: float = 0.1,
        patience: int | None = 10,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        training: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        given = {**locals(), "training": dict(training or {})}
        self.settings = SentimentSettings.out_of(given)
        self.progress = progress
        self.result: TrainingResult | None = None
        self._fitted: Fitted | None = None
        training_settings(self.settings)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], *, progress: bool = True) -> Self:
        """A classifier from settings by name, as a file holds them.

        Raises: ConfigError naming every one that is unknown (and the nearest), or out of range.
        """
        checked = SentimentSettings(**settings)
        return cls(**checked.model_dump(), progress=progress)

    def __repr__(self) -> str:
        words = self.settings.written()
        return f"SentimentClassifier({words}), {'fitted' if self._fitted else 'not fitted'}"

    @property
    def fitted(self) -> Fitted:
        """The trained part: words, network, temperature.

        Raises: NotFittedError before `fit` or `load`.
        """
        if self._fitted is None:
            raise not_fitted(self, "fit(table)")
        return self._fitted

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of `predict_proba`'s columns."""
        return self.fitted.labels

    def fit(
        self,
        table: Any,
        *,
        valid: Any = None,
        pretrain: str | Path | None = None,
        out: str | Path | None = None,
        force: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train on a table with a text and a label column: a file, or a pandas or polars frame.

        valid                a table to find the best weights and the temperature by; None for a
                             share of the first one
        pretrain             run folder of a `LanguageModel` to begin with, see `pretrained.py`; its
                             cell and sizes replace those given, and it reads forwards only
        out, force, resume   run folder to write; replace the run in it; go on with it

        Raises: DataError for a table that cannot be used, RunError for a folder, ConfigError for a
        language model that does not suit.
        """
        run = free_folder(out, force=force, resume=resume)
        names = self.settings.text, self.settings.label
        given = read_examples(table, *names)
        chosen = plan(
            given,
            None if valid is None else read_examples(valid, *names),
            self.settings,
            None if pretrain is None else read_pretrained(pretrain),
        )
        run = begin_run(run, chosen.settings, trained_on(chosen), force=force, resume=resume)
        self._fitted, self.result = learn(chosen, run, resume=resume, progress=self.progress)
        if run is not None:
            self.fitted.save(run)
        return self

    def evaluate(self, table: Any, *, min_confidence: float | None = None) -> Evaluation:
        """Accuracy, macro F1, calibration error and nll over a table with labels.

        min_confidence   also score only the texts whose likeliest label has this probability
        Raises: DataError for rows without text, and labels that were not trained.
        """
        if min_confidence is not None:
            check_confidence(min_confidence)
        examples = read_examples(table, self.settings.text, self.settings.label)
        return evaluate(self.fitted, examples, min_confidence)

    def predict(self, texts: Sequence[str], *, min_confidence: float = 0.0) -> list[str | None]:
        """The likeliest label of each text; None where its probability is below the least."""
        check_confidence(min_confidence)
        probabilities = self.predict_proba(texts)
        best = probabilities.argmax(axis=1)
        return [
            self.labels[k] if row[k] >= min_confidence else None
            for k, row in zip(best, probabilities, strict=True)
        ]

    def predict_proba(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (N, C) of the labels, in the order of `labels`.

        Raises: ConfigError for a single text instead of a list of them.
        """
        if isinstance(texts, str):
            raise ConfigError("texts is one text; expected a list of them: predict([text]).")
        return self.fitted.probabilities(list(texts))

    def explain(self, text: str, *, method: Method = "integrated") -> Explanation:
        """What each word adds to the likeliest label: integrated gradients, or "gradient" × input.

        Raises: ConfigError for an unknown method.
        """
        return explain(self.fitted, text, method)

    def stream(self) -> OpinionStream:
        """A text that comes word by word, and the opinion about it so far."""
        return OpinionStream(self.fitted)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the run folder: config.json, tokenizer.json, model and state as safetensors.

        Raises: RunError when the folder already holds files and `force` is not given.
        """
        fitted = self.fitted
        fitted.save(RunFolder.create(path, force=force))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a run folder. No code is run. Raises: RunError when it is damaged."""
        fitted = Fitted.load(RunFolder.open(path, TASK))
        model = cls.from_settings(fitted.network.settings.model_dump())
        model._fitted = fitted
        return model


def check_confidence(value: float) -> None:
    """Raise ConfigError for a least confidence that is no probability."""
    if not 0 <= value <= 1:
        raise ConfigError(f"min_confidence={value}: expected a probability, 0 to 1.")
