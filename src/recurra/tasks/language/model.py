"""LanguageModel: fit, evaluate, write, stream, save, load."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from recurra.data.tokenizer import Kind
from recurra.errors import ConfigError, not_fitted
from recurra.runs import RunFolder
from recurra.tasks.language.adaptation import CacheSettings, DynamicSettings
from recurra.tasks.language.evaluation import Evaluation, evaluate
from recurra.tasks.language.fitted import TASK, Fitted
from recurra.tasks.language.learning import (
    learn,
    plan,
    trained_on,
    training_settings,
)
from recurra.tasks.language.settings import CellName, LanguageSettings, decide
from recurra.tasks.language.text_stream import TextStream, check_length
from recurra.training.loop import TrainingResult
from recurra.training.restore import config_explained
from recurra.training.same_fit import begin_run, free_folder

Paths = str | Path | Sequence[str | Path]


class LanguageModel:
    """A recurrent network that predicts text one token after another.

    tokens            "char", "byte", "word" (what stands between blanks) or "subword"
    vocab_size        most tokens of the vocabulary; by the kind of tokens when None
    preset            a published architecture: "zaremba-small", "zaremba-medium", "zaremba-large",
                      "awd-lstm"
    cell              any cell of the package, with hidden_size, num_layers and embedding_size
    tied              the output's weight is the embedding's
    norm, residual    RMS norms before layers; each layer's input added to its output
    cutoffs           bands of an adaptive soft-max; by the vocabulary when None, () for none
    embedding_dropout, input_dropout, hidden_dropout, output_dropout, locked, weight_drop,
    recurrent_dropout, zoneout, activation_penalty, change_penalty
                      against overfitting, see `settings.py`
    batch_size, k1, k2
                      streams that the text is cut into, tokens between updates, and tokens that a
                      gradient goes back
    minutes, steps    length of training, on the clock or in updates; 10 minutes when both are None
    validation        share of the end of the text, 200,000 tokens at most, that is kept to find the
                      best weights, unless `fit` is given text for that; 0 for none
    validation_parts  equal parts of the text from whose ends that share is kept; several, where
                      the end of the text does not stand for all of it
    patience          validations without a better one after which training ends; None for all
    seed, device      seed of all chance; "auto", "cpu" or "cuda" to train on
    training          further settings of the training loop, as {"learning_rate": 1e-3}
    progress          show a bar, or lines, on stderr

    What is None is chosen by the kind of tokens, or by the preset.

    Raises: ConfigError for a setting that is unknown or out of range.

    Example:
        >>> model = LanguageModel(steps=20, hidden_size=32, progress=False)
        >>> model = model.fit_text("the cat sat on the mat\\n" * 200)
        >>> model.score("the cat").nats.shape
        torch.Size([7])
        >>> len(model.write("the ", length=10))
        14

    Source: Mikolov et al. 2010, "Recurrent neural network based language model"; the network is
    described in `recurra.nn.language`.
    """

    def __init__(
        self,
        *,
        tokens: Kind = "char",
        vocab_size: int | None = None,
        preset: str | None = None,
        cell: CellName | None = None,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        embedding_size: int | None = None,
        tied: bool | None = None,
        norm: bool | None = None,
        residual: bool | None = None,
        cutoffs: Sequence[int] | None = None,
        embedding_dropout: float | None = None,
        input_dropout: float | None = None,
        hidden_dropout: float | None = None,
        output_dropout: float | None = None,
        locked: bool | None = None,
        weight_drop: float | None = None,
        recurrent_dropout: float | None = None,
        zoneout: float | None = None,
        activation_penalty: float | None = None,
        change_penalty: float | None = None,
        batch_size: int | None = None,
        k1: int | None = None,
        k2: int | None = None,
        minutes: float | None = None,
        steps: int | None = None,
        validation: float = 0.05,
        validation_parts: int = 1,
        patience: int | None = None,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        training: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        given = {**locals(), "training": dict(training or {})}
        self.settings = LanguageSettings.out_of(given)
        self.progress = progress
        self.result: TrainingResult | None = None
        self._fitted: Fitted | None = None
        decide(self.settings)
        training_settings(self.settings)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], *, progress: bool = True) -> Self:
        """A model from settings by name, as a file holds them.

        Raises: ConfigError naming every one that is unknown (and the nearest), or out of range.
        """
        checked = LanguageSettings(**settings)
        return cls(**checked.model_dump(), progress=progress)

    def __repr__(self) -> str:
        words = self.settings.written()
        return f"LanguageModel({words}), {'fitted' if self._fitted else 'not fitted'}"

    @property
    def fitted(self) -> Fitted:
        """The trained part: tokenizer and network.

        Raises: NotFittedError before `fit` or `load`.
        """
        if self._fitted is None:
            raise not_fitted(self, "fit(paths)")
        return self._fitted

    def fit(
        self,
        paths: Paths,
        *,
        valid: Paths = (),
        out: str | Path | None = None,
        force: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train on text files: UTF-8, also .gz or .xz; each file is a text of its own.

        valid                text to find the best weights by; () for the end of the training text
        out, force, resume   run folder to write; replace the run in it; go on with it

        Raises: DataError for text that cannot be used, RunError for the folder.
        """
        run = free_folder(out, force=force, resume=resume)
        # The ids lie beside the run, where there is room for it too; the folder may not exist yet.
        folder = run.path.parent if run is not None and run.path.parent.is_dir() else None
        chosen = plan(_paths(paths), _paths(valid), self.settings, folder)
        run = begin_run(run, self.settings, trained_on(chosen), force=force, resume=resume)
        self._fitted, self.result = learn(chosen, run, resume=resume, progress=self.progress)
        if run is not None:
            self.fitted.save(run, self.settings.model_dump(mode="json"))
        return self

    def fit_text(self, text: str) -> Self:
        """Train on a text in memory. Raises: DataError when it is too short."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "text.txt"
            path.write_text(text, encoding="utf-8", newline="")
            return self.fit(path)

    def evaluate(
        self,
        paths: Paths,
        *,
        dynamic: Mapping[str, Any] | bool = False,
        cache: Mapping[str, Any] | bool = False,
        window: int | None = None,
        batch_size: int = 32,
    ) -> Evaluation:
        """Perplexity and bits over files, the state carried over each; every token counts.

        dynamic      also adapt the weights to the text as it goes, as a row of its own: True, or
                     settings of `adaptation.DynamicSettings`
        cache        also mix in what followed similar states, as a row of its own: True, or
                     settings of `adaptation.CacheSettings`
        window       also read windows of so many tokens, each from the initial state
        batch_size   files read side by side; changes the time only

        Raises: DataError for files that cannot be read, ConfigError for settings.
        """
        return evaluate(
            self.fitted,
            _paths(paths),
            dynamic=_settings(DynamicSettings, dynamic),
            cache=_settings(CacheSettings, cache),
            window=window,
            batch_size=batch_size,
        )

    def score(self, text: str) -> Any:
        """The tokens of a text and the surprise at each, in nats: a `text_stream.Reading`."""
        return self.stream().read(text)

    def write(
        self, prompt: str = "", *, length: int = 200, beam_size: int | None = None, **rules: Any
    ) -> str:
        """The prompt and `length` more tokens.

        rules       those of `decoding.sampling.Sampler`; the same seed gives the same text
        beam_size   draw nothing, and take the likeliest text that a beam of so many finds

        Raises: ConfigError for rules out of range, and for rules with a beam.
        """
        check_length(length)
        sampler = self.fitted.sampler(**rules)
        stream = self.stream()
        if beam_size is not None:
            if rules:
                raise ConfigError(
                    f"beam_size={beam_size} draws nothing, so {', '.join(sorted(rules))} would do "
                    "nothing. Give one or the other."
                )
            stream.read(prompt)
            return prompt + stream.write_likeliest(length, beam_size)
        for token in stream.read(prompt).ids.tolist():
            sampler.note(token)
        return prompt + "".join(stream.write(length, sampler))

    def stream(self) -> TextStream:
        """A text to read and to write on and on, at a constant cost per token."""
        return TextStream(self.fitted)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the run folder: config.json, tokenizer.json, model and state as safetensors.

        Raises: RunError when the folder already holds files and `force` is not given.
        """
        fitted = self.fitted
        fitted.save(RunFolder.create(path, force=force), self.settings.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a run folder. No code is run. Raises: RunError when it is damaged."""
        run = RunFolder.open(path, TASK)
        fitted, settings = Fitted.load(run)
        with config_explained(run):
            model = cls.from_settings(settings)
        model._fitted = fitted
        return model


def _paths(paths: Paths) -> list[Path]:
    several = [paths] if isinstance(paths, (str, Path)) else paths
    return [Path(path) for path in several]


def _settings(kind: Any, given: Mapping[str, Any] | bool) -> Any:
    if given is False:
        return None
    return kind() if given is True else kind(**given)
