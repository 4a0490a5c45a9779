"""Transcriber: fit, evaluate, predict, stream, save, load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from recurra.data.audio import AudioFiles, decode
from recurra.data.recordings import given_recordings, read_recordings
from recurra.errors import DataError, not_fitted
from recurra.runs import RunFolder
from recurra.tasks.speech.evaluation import Evaluation, evaluate
from recurra.tasks.speech.examples import Finding
from recurra.tasks.speech.fitted import TASK, Fitted
from recurra.tasks.speech.learning import (
    Source,
    learn,
    plan,
    trained_on,
    training_settings,
)
from recurra.tasks.speech.search import Search
from recurra.tasks.speech.settings import CellName, Criterion, SpeechSettings
from recurra.tasks.speech.stream import PAUSE_S, SpeechStream
from recurra.tasks.speech.transcripts import Transcript
from recurra.training.loop import TrainingResult
from recurra.training.restore import config_explained
from recurra.training.same_fit import begin_run, free_folder

Table = str | Path | Sequence[tuple[Any, str]]
"""A .csv, .tsv or .jsonl file, or pairs (audio, text): a path, or samples at the model's rate."""


class Transcriber:
    """A recurrent network that writes down what is said, trained on recordings of your own.

    streaming         layers of one direction, which transcribe a sound while it goes on; otherwise
                      bidirectional ones, which make fewer errors and need whole recordings
    look_ahead_ms     streaming: how much of the future is waited for, at most
    sample_rate       Hz that the model hears at; recordings of other rates are resampled
    bins, stacked     log-mel features of a frame of 10 ms, and frames in a step of the network
    cell, hidden_size, num_layers, dropout
                      the network; see `network.py`. hidden_size None: 256, streaming 384
    criterion         "ctc", which says each character from the sound alone, or "transducer", which
                      also reads what it has written; slower to train, see `transducer.py`
    alphabet          the characters it may write; None for those of the training transcripts
    subwords          write pieces of words instead of characters: so many, found in the training
                      transcripts; for longer steps (stacked) and larger data
    batch_size        recordings in an update
    speeds            further speeds that recordings are heard at in training
    gain_db           training makes recordings up to so much louder or softer
    noise_db, noise_share
                      training mixes noise into so large a share of the recordings, the sound from
                      noise_db[0] to noise_db[1] dB above it; noise_db None for none
    frequency_masks, frequency_width, time_masks, time_width
                      SpecAugment: how many masks, and how many bins and frames each has at most
    minutes, steps    length of training, on the clock or in updates; 10 minutes when both are None
    validation        share of the last rows kept to find the best weights, unless `fit` is given
                      recordings for that; 0 for none
    patience          validations without a better one after which training ends; None for all
    seed, device      seed of all chance; "auto", "cpu" or "cuda" to train on
    training          further settings of the training loop, as {"learning_rate": 1e-3}
    progress          show a bar, or lines, on stderr

    Raises: ConfigError for a setting that is unknown or out of range.

    Example, with two tones for words:
        >>> time = np.arange(8000) / 16000
        >>> low, high = (np.sin(2 * np.pi * f * time).astype("float32") for f in (300, 2000))
        >>> pairs = [(low, "LOW"), (high, "HIGH")] * 8
        >>> rates = {"learning_rate": 1e-2, "warmup_steps": 10, "ema_decay": 0.9}
        >>> model = Transcriber(hidden_size=32, num_layers=1, steps=120, validation=0,
        ...                     training=rates, progress=False).fit(pairs)
        >>> model.predict([high, low])[0].text
        'HIGH'

    Source: Graves and Jaitly 2014, "Towards end-to-end speech recognition with recurrent neural
    networks"; the network is described in `network.py`.
    """

    def __init__(
        self,
        *,
        streaming: bool = False,
        look_ahead_ms: int = 300,
        sample_rate: int = 16_000,
        bins: int = 80,
        stacked: int = 3,
        cell: CellName = "lstm",
        hidden_size: int | None = None,
        num_layers: int = 3,
        dropout: float = 0.3,
        criterion: Criterion = "ctc",
        alphabet: str | None = None,
        subwords: int | None = None,
        batch_size: int = 16,
        speeds: Sequence[float] = (0.9, 1.0, 1.1),
        gain_db: float = 6.0,
        noise_db: tuple[float, float] | None = None,
        noise_share: float = 0.5,
        frequency_masks: int = 2,
        frequency_width: int = 15,
        time_masks: int = 2,
        time_width: int = 25,
        minutes: float | None = None,
        steps: int | None = None,
        validation: float = 0.05,
        patience: int | None = None,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        training: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        given = {**locals(), "training": dict(training or {})}
        self.settings = SpeechSettings.out_of(given)
        self.progress = progress
        self.result: TrainingResult | None = None
        self.findings: tuple[Finding, ...] = ()
        """What was wrong with the recordings of the last `fit`; the fatal ones were left out."""
        self._fitted: Fitted | None = None
        training_settings(self.settings)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], *, progress: bool = True) -> Self:
        """A model from settings by name, as a file holds them.

        Raises: ConfigError naming every one that is unknown (and the nearest), or out of range.
        """
        checked = SpeechSettings(**settings)
        return cls(**checked.model_dump(), progress=progress)

    def __repr__(self) -> str:
        words = self.settings.written()
        return f"Transcriber({words}), {'fitted' if self._fitted else 'not fitted'}"

    @property
    def fitted(self) -> Fitted:
        """The trained part: alphabet, normalisation and network.

        Raises: NotFittedError before `fit` or `load`.
        """
        if self._fitted is None:
            raise not_fitted(self, "fit(table)")
        return self._fitted

    def fit(
        self,
        table: Table,
        *,
        audio: str = "audio",
        text: str = "text",
        audio_root: str | Path | None = None,
        valid: Table | None = None,
        valid_audio_root: str | Path | None = None,
        noise: Sequence[Any] = (),
        skip_bad: bool = False,
        out: str | Path | None = None,
        force: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train on recordings and their transcripts.

        audio, text          the table's columns of file names and of transcripts
        audio_root           folder, or .tar file, that the names are relative to; None: the folder
                             of the table
        valid                recordings to find the best weights by, with the same columns; None for
                             the last rows of `table`. valid_audio_root None: audio_root
        noise                recordings of noise to mix in as `noise_db` says, paths or samples;
                             without any, steady noise is made
        skip_bad             leave out recordings that cannot be used; they are in `findings`
        out, force, resume   run folder to write; replace the run in it; go on with it

        Raises: DataError for recordings that cannot be used, all of them listed; RunError for the
        folder.
        """
        run = free_folder(out, force=force, resume=resume)
        source = _source(table, audio, text, audio_root)
        valid_source = None
        if valid is not None:
            root = audio_root if valid_audio_root is None else valid_audio_root
            valid_source = _source(valid, audio, text, root)
        # The features lie beside the run, where there is room for it too.
        folder = run.path.parent if run is not None and run.path.parent.is_dir() else None
        chosen = plan(
            source, valid_source, self.settings, noise=noise, skip_bad=skip_bad, folder=folder
        )
        self.findings = chosen.findings
        run = begin_run(run, self.settings, trained_on(chosen), force=force, resume=resume)
        self._fitted, self.result = learn(
            chosen, self.settings, run, resume=resume, progress=self.progress
        )
        if run is not None:
            self.fitted.save(run, self.settings.model_dump(mode="json"))
        return self

    def evaluate(
        self,
        table: Table,
        *,
        audio: str = "audio",
        text: str = "text",
        audio_root: str | Path | None = None,
        skip_bad: bool = False,
        piece_s: float | None = None,
        **search: Any,
    ) -> Evaluation:
        """Word and character error rates over recordings, all of them together.

        Columns and roots as in `fit`; search as in `predict`. piece_s: hear each recording as a
        stream, in pieces of so many seconds, which gives the same texts and tells what that costs.
        Raises: DataError for recordings that cannot be read or have no transcript, all of them
        listed.
        """
        source = _source(table, audio, text, audio_root)
        return evaluate(self.fitted, source, Search.of(search), skip_bad=skip_bad, piece_s=piece_s)

    def predict(self, audio: Sequence[Any], **search: Any) -> list[Transcript]:
        """What is said in each recording: paths, or arrays of samples at the model's rate.

        search   options of `Search`. beam_size: the likeliest text that a prefix beam of so many
                 finds, its paths summed; None takes the likeliest character at every step, which
                 is faster. language_model (an ARPA file of words, or a trained LanguageModel) with
                 language_weight and word_bonus; hot_words with hot_boost

        Raises: DataError for a file that cannot be read; ConfigError for an option that is unknown,
        out of range or does not fit the model.
        """
        return list(self.transcripts(audio, **search))

    def transcripts(self, audio: Sequence[Any], **search: Any) -> Iterator[Transcript]:
        """As `predict`, one after another, as they are made."""
        if isinstance(audio, str | Path):
            raise DataError(f"predict takes a list of recordings; pass [{str(audio)!r}].")
        fitted, chosen = self.fitted, Search.of(search)
        scorer = chosen.scorer(fitted.design)
        for one in audio:
            yield fitted.transcribe(self._samples(one), chosen.width, scorer)

    def stream(self, *, sample_rate: int | None = None, pause_s: float = PAUSE_S) -> SpeechStream:
        """One sound that is transcribed as it comes, see `SpeechStream`."""
        return SpeechStream(self.fitted, sample_rate=sample_rate, pause_s=pause_s)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the run folder: config.json, weights and statistics as safetensors.

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

    def _samples(self, audio: Any) -> Any:
        rate = self.fitted.design.sample_rate
        if isinstance(audio, str | Path):
            return decode(Path(audio), rate, name=str(audio)).samples
        values = np.asarray(audio)
        if values.ndim != 1 or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise DataError(
                f"a recording has shape {values.shape} and dtype {values.dtype}; expected a path, "
                "or one axis of finite floating-point numbers, full scale 1."
            )
        return values.astype(np.float32)


def _source(table: Table, audio: str, text: str, root: str | Path | None) -> Source:
    if isinstance(table, str | Path):
        path = Path(table)
        files = AudioFiles(path.parent if root is None else Path(root))
        return Source(read_recordings(path, audio, text), files, str(path))
    files = AudioFiles(None if root is None else Path(root))
    return Source(given_recordings(table), files, "the recordings given")
