"""A sound without end, transcribed as it comes: partial texts, and final ones at every pause."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recurra.data.audio import Resampler, Samples
from recurra.data.logmel import LogMel
from recurra.errors import ConfigError, DataError
from recurra.tasks.speech.fitted import Fitted
from recurra.tasks.speech.network import NetworkStream
from recurra.tasks.speech.transcripts import Transcript, make_transcript

PAUSE_S = 1.0


@dataclass(frozen=True)
class Heard:
    """What is known of one stretch of speech, in times of the whole stream.

    final       it will not change any more; else it is what was heard of it so far
    continues   the pause before it lies inside a word, so it is joined to the text before without a
                blank
    """

    final: bool
    transcript: Transcript
    continues: bool = False

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        joined = {"continues": True} if self.continues else {}
        return {"final": self.final, **self.transcript.as_json(), **joined}


def join_final(heard: Iterable[Heard]) -> str:
    """The final texts as one: what `predict` says of the whole sound."""
    text = ""
    for one in heard:
        if one.final:
            text += ("" if one.continues or not text else " ") + one.transcript.text
    return text


class SpeechStream:
    """Where a transcriber stands in one sound, made by `Transcriber.stream()`.

    The final texts are the same whatever pieces the sound comes in, and joined together they are
    what `predict` says of the whole. Memory is constant but for the text since the last pause.

    sample_rate   of the samples that are pushed; None for the model's
    pause_s       seconds without a character after which what was heard is final

    Raises: ConfigError for a bidirectional model, which has to hear the end first.
    """

    def __init__(
        self, fitted: Fitted, *, sample_rate: int | None = None, pause_s: float = PAUSE_S
    ) -> None:
        design = fitted.design
        if not design.streaming:
            raise ConfigError(
                "this model is bidirectional, and has to hear the end of a recording before its "
                "beginning is transcribed. Train one with streaming=True (--streaming)."
            )
        if not pause_s > 0:
            raise ConfigError(f"pause_s={pause_s}; expected seconds above 0.")
        if sample_rate is not None and not 1000 <= sample_rate <= 768_000:
            raise ConfigError(f"sample_rate={sample_rate}; expected 1000 to 768000 Hz.")
        self._fitted = fitted
        self._resampler = Resampler(sample_rate or design.sample_rate, design.sample_rate)
        self._features = LogMel(design.sample_rate, design.bins)
        self._network: NetworkStream | None = fitted.network.stream()
        self._decoder = fitted.make_decoder()
        self._pause = max(1, round(pause_s / design.step_s))  # steps
        self._shown = ""
        self._is_open = False  # what was made final ended inside a word, as far as is known

    def push(self, samples: Samples) -> list[Heard]:
        """Hear further samples (N,), floats of full scale 1: what became final, and what is new.

        Raises: DataError for what is no sound, ConfigError after `finish`.
        """
        if self._network is None:
            raise ConfigError("this stream has finished; make another with stream().")
        return self._hear(self._resampler.push(_checked(samples)), ending=False)

    def finish(self) -> list[Heard]:
        """The sound is over: what was still open is final."""
        if self._network is None:
            return []
        rest = self._resampler.push(np.zeros(0, np.float32), last=True)
        found = self._hear(rest, ending=True)
        self._network = None
        return found

    def _hear(self, samples: Samples, *, ending: bool) -> list[Heard]:
        assert self._network is not None
        features = self._fitted.normalise(self._features.push(samples))
        scores = self._fitted.scores(self._network.push(features))
        if not len(scores) and not ending:  # most often, where pieces are short
            return []
        found = self._read(scores)
        if ending:
            found += self._read(self._fitted.scores(self._network.finish()))
            found += self._close()
            return found
        partial = make_transcript(self._decoder.emissions, self._fitted.design)
        if partial.text and partial.text != self._shown:
            self._shown = partial.text
            found.append(Heard(False, partial, self._continues()))
        return found

    def _read(self, scores: Any) -> list[Heard]:
        """Decode step by step, so that pauses are found at the same steps in any pieces."""
        found = []
        for row in scores:
            self._decoder.push(row[None])
            if self._decoder.blanks >= self._pause:
                found += self._close()
        return found

    def _close(self) -> list[Heard]:
        continues = self._continues()
        emissions = self._decoder.take()
        self._shown = ""
        if not emissions:
            return []
        design = self._fitted.design
        self._is_open = not design.decode([emissions[-1].token]).endswith(" ")
        transcript = make_transcript(emissions, design)
        return [Heard(True, transcript, continues)] if transcript.text else []

    def _continues(self) -> bool:
        emissions = self._decoder.emissions
        if not self._is_open or not emissions:
            return False
        return not self._fitted.design.decode([emissions[0].token]).startswith(" ")


def _checked(samples: Any) -> Samples:
    values = np.asarray(samples)
    if values.ndim != 1 or values.dtype.kind != "f" or not np.isfinite(values).all():
        raise DataError(
            f"the stream was given samples of shape {values.shape} and dtype {values.dtype}; "
            "expected one axis of finite floating-point numbers, full scale 1."
        )
    return values.astype(np.float32)
