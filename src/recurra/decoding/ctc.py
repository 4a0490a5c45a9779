"""Connectionist temporal classification: from probabilities at every frame to a sequence.

A path names one label at every frame, `blank_id` among them; merging repeats and then leaving out
blanks makes a sequence of it. The probability of a sequence is the sum over all its paths.

Source: Graves, Fernández, Gomez and Schmidhuber 2006, "Connectionist temporal classification".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recurra.errors import ConfigError, ShapeError

LogProbs = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Emission:
    """A token, the frames [start, end) that say it, and its mean probability there."""

    token: int
    start: int
    end: int
    confidence: float


def frames_needed(tokens: Sequence[int]) -> int:
    """Fewest frames that can say a sequence: one for each token, one blank between two equal ones.

    >>> frames_needed([3, 3, 1])
    4
    """
    return len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))


class GreedyDecoder:
    """The likeliest label of every frame, repeats merged, blanks left out; frames in any pieces.

    >>> decoder = GreedyDecoder(blank_id=0)
    >>> decoder.push(np.log([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]))
    >>> [(one.token, one.start, one.end) for one in decoder.emissions]
    [(1, 0, 2), (1, 3, 4)]
    """

    def __init__(self, blank_id: int = 0) -> None:
        self.blank_id = blank_id
        self.frames = 0
        """Frames seen."""
        self.blanks = 0
        """Frames since the last one that was no blank."""
        self._last = blank_id
        self._runs: list[list[float]] = []  # token, start, end, sum of probabilities

    def push(self, log_probs: LogProbs) -> None:
        """Read further frames (T, vocab_size)."""
        labels = log_probs.argmax(-1)
        best = np.exp(log_probs[np.arange(len(labels)), labels].astype(np.float64))
        for label, probability in zip(labels.tolist(), best.tolist(), strict=True):
            if label == self.blank_id:
                self.blanks += 1
            else:
                self.blanks = 0
                if label != self._last:
                    self._runs.append([label, self.frames, self.frames, 0.0])
                self._runs[-1][2] = self.frames + 1
                self._runs[-1][3] += probability
            self._last = label
            self.frames += 1

    @property
    def emissions(self) -> list[Emission]:
        """What has been said since the beginning, or the last `take`."""
        return [
            Emission(int(token), int(start), int(end), total / (end - start))
            for token, start, end, total in self._runs
        ]

    def take(self) -> list[Emission]:
        """`emissions`, which are forgotten here; frames go on being counted."""
        found, self._runs = self.emissions, []
        return found


class PrefixBeam:
    """The likeliest sequences, each summed over its paths, keeping `beam_size` at every frame.

    Of each prefix two numbers are kept: log p of its paths that end in a blank, and of those that
    end in its last token. Frames may come in any pieces.

    Source: Hannun, Maas, Jurafsky and Ng 2014, "First-pass large vocabulary continuous speech
    recognition using bi-directional recurrent DNNs", algorithm 1, without a language model.

    >>> beam = PrefixBeam(beam_size=4)
    >>> beam.push(np.log([[0.6, 0.4], [0.6, 0.4]]))
    >>> tokens, log_p = beam.best()[0]  # 'a' by three paths beats the one path of blanks
    >>> tokens, round(float(np.exp(log_p)), 2)
    ((1,), 0.64)
    """

    def __init__(self, beam_size: int, blank_id: int = 0, narrowest: float = -14.0) -> None:
        if beam_size < 1:
            raise ConfigError(f"beam_size={beam_size}; expected at least 1.")
        self.beam_size = beam_size
        self.blank_id = blank_id
        self._narrowest = narrowest
        self._beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}

    def push(self, log_probs: LogProbs) -> None:
        """Read further frames (T, vocab_size).

        At each, labels of log p below `narrowest` extend no prefix.
        """
        for frame in np.asarray(log_probs, np.float64):
            likely = np.flatnonzero(frame >= self._narrowest).tolist()
            self._step(frame.tolist(), [label for label in likely if label != self.blank_id])

    def _step(self, frame: list[float], likely: list[int]) -> None:
        after: dict[tuple[int, ...], tuple[float, float]] = {}
        for prefix, (blank, token) in self._beam.items():
            both = _add(blank, token)
            last = prefix[-1] if prefix else None
            stays = -math.inf if last is None else token + frame[last]
            _merge(after, prefix, both + frame[self.blank_id], stays)
            for label in likely:
                # A repeat is a new token only after a blank.
                _merge(
                    after,
                    (*prefix, label),
                    -math.inf,
                    (blank if label == last else both) + frame[label],
                )
        ranked = sorted(after.items(), key=lambda item: (-_add(*item[1]), item[0]))
        self._beam = dict(ranked[: self.beam_size])

    def best(self) -> list[tuple[tuple[int, ...], float]]:
        """The sequences kept and log p of each, likeliest first; ties in order of their tokens."""
        return [(prefix, _add(*parts)) for prefix, parts in self._beam.items()]


def align(log_probs: LogProbs, tokens: Sequence[int], blank_id: int = 0) -> list[Emission]:
    """When each token of a sequence is said, by its likeliest path (Viterbi).

    Raises: ShapeError when there are too few frames for the sequence.
    """
    frames = np.asarray(log_probs, np.float64)
    needed = frames_needed(tokens)
    if len(frames) < needed:
        raise ShapeError(
            f"align: {len(tokens)} tokens need {needed} frames, and there are {len(frames)}."
        )
    if not tokens:
        return []
    labels = np.full(2 * len(tokens) + 1, blank_id)
    labels[1::2] = tokens
    # A blank may be passed over between two different tokens.
    skips = np.zeros(len(labels), bool)
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    scores = np.full(len(labels), -np.inf)
    scores[:2] = frames[0, labels[:2]]
    came = np.zeros((len(frames), len(labels)), np.int8)
    for t in range(1, len(frames)):
        choices = np.full((3, len(labels)), -np.inf)
        choices[0] = scores
        choices[1, 1:] = scores[:-1]
        choices[2, 2:] = np.where(skips[2:], scores[:-2], -np.inf)
        came[t] = choices.argmax(0)
        scores = choices.max(0) + frames[t, labels]
    state = len(labels) - 1 if scores[-1] >= scores[-2] else len(labels) - 2
    states = [state]
    for t in range(len(frames) - 1, 0, -1):
        state -= int(came[t, state])
        states.append(state)
    path = np.array(states[::-1])
    found = []
    for number, token in enumerate(tokens):
        at = np.flatnonzero(path == 2 * number + 1)
        confidence = float(np.exp(frames[at, token]).mean())
        found.append(Emission(int(token), int(at[0]), int(at[-1]) + 1, confidence))
    return found


def _merge(
    beam: dict[tuple[int, ...], tuple[float, float]],
    prefix: tuple[int, ...],
    blank: float,
    token: float,
) -> None:
    before = beam.get(prefix)
    if blank == token == -math.inf:  # a repeat with no blank before it
        return
    if before is None:
        beam[prefix] = (blank, token)
    else:
        beam[prefix] = (_add(before[0], blank), _add(before[1], token))


def _add(a: float, b: float) -> float:
    """log(eᵃ + eᵇ)."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
