"""Scoring a transcriber on recordings that it has not heard, beside what needs no network."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recurra.data.audio import Samples
from recurra.data.logmel import log_mel
from recurra.data.recordings import Recording
from recurra.errors import ConfigError, DataError
from recurra.report.results import make_result
from recurra.tasks.speech.examples import LISTED, load
from recurra.tasks.speech.fitted import Fitted
from recurra.tasks.speech.learning import Source
from recurra.tasks.speech.search import Search
from recurra.tasks.speech.stream import SpeechStream, join_final
from recurra.tasks.speech.wer import Errors, count_errors

OURS = "recurra"
NAIVE = "commonest transcript"
SHOWN = 10
"""Worst recordings, and commonest confusions, that a report lists."""
_PICTURED_S = 8.0


@dataclass(frozen=True)
class Row:
    """One recording: what was said in it, what was heard, words wrong."""

    name: str
    said: str
    heard: str
    errors: int


@dataclass(frozen=True)
class Evaluation:
    """The errors of the model and of the naive answer.

    rtf       real-time factor: seconds of work for a second of sound, features and all
    rows      every recording, in the order of the table
    picture   features and probabilities of one recording, for the report
    """

    ours: Errors
    naive: Errors
    seconds: float
    rtf: float
    rows: tuple[Row, ...]
    picture: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def wer(self) -> float:
        """Word error rate, a fraction."""
        return self.ours.wer

    @property
    def cer(self) -> float:
        """Character error rate, a fraction."""
        return self.ours.cer

    def worst(self) -> list[Row]:
        """The recordings with most words wrong, by falling share of their words."""
        wrong = [row for row in self.rows if row.errors]
        return sorted(wrong, key=lambda row: -row.errors / len(row.said.split()))

    def results(self) -> list[dict[str, Any]]:
        """A row for each model."""
        ours = {"wer": self.ours.wer, "cer": self.ours.cer, "rtf": round(self.rtf, 5)}
        naive = {"wer": self.naive.wer, "cer": self.naive.cer}
        return [make_result(OURS, ours), make_result(NAIVE, naive)]

    def details(self) -> dict[str, Any]:
        """What the report shows besides."""
        return {
            "worst": [[row.name, row.said, row.heard, row.errors] for row in self.worst()[:SHOWN]],
            "confusions": [list(one) for one in self.ours.confusions[:SHOWN]],
            "edits": [self.ours.substitutions, self.ours.deletions, self.ours.insertions],
            "picture": self.picture,
        }


def evaluate(
    fitted: Fitted,
    source: Source,
    search: Search,
    *,
    skip_bad: bool = False,
    piece_s: float | None = None,
) -> Evaluation:
    """Transcribe all recordings and count the errors; one is in memory at a time.

    piece_s   hear each recording as a stream, in pieces of so many seconds; None hears it whole

    Raises: DataError listing the recordings that cannot be read or have no transcript; ConfigError
    for a search that does not fit the model, and for a stream with a beam.
    """
    scorer = search.scorer(fitted.design)
    if piece_s is not None and search.width is not None:
        raise ConfigError("a stream has no beam; leave out piece_s, or the options of the search.")
    rows: list[Recording] = []
    heard: list[str] = []
    refused: list[str] = []
    worked_s = seconds = 0.0
    pictured = (0, np.zeros(0, np.float32))  # the longest that is not too long to be drawn
    for recording in source.recordings:
        try:
            samples = _read(recording, source, fitted.design.sample_rate)
        except DataError as error:
            refused.append(f"row {recording.row}, {recording.name}: {str(error).rstrip('.')}")
            continue
        if refused and not skip_bad:  # nothing will come of it; only find what else is wrong
            continue
        began = clock.process_time()
        if piece_s is None:
            heard.append(fitted.transcribe(samples, search.width, scorer).text)
        else:
            heard.append(_hear_in_pieces(fitted, samples, piece_s))
        worked_s += clock.process_time() - began
        duration_s = len(samples) / fitted.design.sample_rate
        seconds += duration_s
        if len(pictured[1]) < len(samples) and duration_s <= _PICTURED_S:
            pictured = len(rows), samples
        rows.append(recording)
    if refused and not (skip_bad and rows):
        raise _unusable(refused, source)
    said = [recording.text for recording in rows]
    ours = count_errors(said, heard)
    found = tuple(
        Row(recording.name, recording.text, text, errors)
        for recording, text, errors in zip(rows, heard, ours.by_row, strict=True)
    )
    return Evaluation(
        ours,
        count_errors(said, [fitted.commonest] * len(said)),
        seconds,
        worked_s / seconds,
        found,
        _picture(fitted, found[pictured[0]], pictured[1]),
        _notes(ours, found, refused, fitted, search),
    )


def _unusable(refused: Sequence[str], source: Source) -> DataError:
    more = f"; and {len(refused) - LISTED} more" if len(refused) > LISTED else ""
    return DataError(
        f"{len(refused)} of {len(source.recordings)} recordings of {source.name} cannot be used: "
        f"{'; '.join(refused[:LISTED])}{more}. Correct them, or leave them out with skip_bad=True "
        "(--skip-bad)."
    )


def _hear_in_pieces(fitted: Fitted, samples: Samples, piece_s: float) -> str:
    size = max(1, round(piece_s * fitted.design.sample_rate))
    stream = SpeechStream(fitted)
    heard = [
        one
        for begin in range(0, len(samples), size)
        for one in stream.push(samples[begin : begin + size])
    ]
    return join_final([*heard, *stream.finish()])


def _read(recording: Recording, source: Source, sample_rate: int) -> Samples:
    if not recording.text:
        raise DataError("has no transcript.")
    return load(recording, source.files, sample_rate).samples


def _notes(
    ours: Errors,
    rows: Sequence[Row],
    refused: Sequence[str],
    fitted: Fitted,
    search: Search,
) -> tuple[str, ...]:
    notes = [
        f"{ours.words} words, {ours.characters} characters with blanks; {search.words}; "
        f"{ours.substitutions} words substituted, {ours.deletions} deleted, "
        f"{ours.insertions} inserted",
        "rtf counts the processor's time of all threads together",
    ]
    strange = {c for row in rows for c in row.said} - set("".join(fitted.design.alphabet))
    if strange:
        listed = "".join(sorted(strange))
        notes.append(f"characters that the model cannot write count as errors: {listed!r}")
    if refused:
        notes.append(f"{len(refused)} recordings were left out: {'; '.join(refused[:LISTED])}")
    silent = sum(not row.heard for row in rows)
    if silent > len(rows) / 2:
        notes.append(
            f"{silent} of {len(rows)} transcripts are empty: the network says nothing but blanks, "
            "as every such network does at first. Train longer"
        )
    return tuple(notes)


def _picture(fitted: Fitted, row: Row, samples: Samples) -> dict[str, Any]:
    """What the network hears and says of one recording, and when."""
    probabilities = np.exp(fitted.log_probs(samples))
    if not len(probabilities):
        return {}
    used = np.flatnonzero(probabilities[:, 1:].max(0) >= 0.1) + 1
    rate = fitted.design.sample_rate
    return {
        "title": f"{row.name}: {row.heard}",
        "step_s": fitted.design.step_s,
        "features": np.round(log_mel(samples, rate, fitted.design.bins), 1).tolist(),
        "labels": [fitted.design.decode([label]) for label in used],
        "probabilities": np.round(probabilities[:, used], 3).tolist(),
        "blank": np.round(probabilities[:, 0], 3).tolist(),
    }
