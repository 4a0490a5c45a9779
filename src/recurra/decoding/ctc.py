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
from typing import Any, NamedTuple, Protocol

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
                if label != self._last or not self._runs:
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


class Worth(NamedTuple):
    """What a sequence is worth beside its sound, in nats, and what its scorer knows about it."""

    nats: float
    state: Any = None


class Scorer(Protocol):
    """Knows which sequences are likely, or wanted, before any sound; see `fusion.py`."""

    def begin(self) -> Worth:
        """The worth of the empty sequence."""
        ...

    def extend(self, before: Worth, token: int) -> Worth:
        """The worth of a sequence with another token at its end."""
        ...

    def finish(self, worth: Worth) -> float:
        """Nats of a whole sequence, after which nothing comes."""
        ...


_NOTHING = Worth(0.0)


# Keys are polynomials in the tokens modulo a prime of 127 bits: that two sequences which a beam
# ever meets have the same one is less likely than 1e-25.
_BASE, _PRIME = 0x9E3779B97F4A7C15F39CC0605CEDC835, (1 << 127) - 1


class _Prefix:
    """A sequence in the beam, as its last token and the sequence before it.

    key           names the sequence, whichever objects it is made of: one that has left the beam
                  and comes back is another object
    blank, said   log p of the paths that end in a blank, and of those that end in the last token
    """

    __slots__ = ("before", "blank", "key", "said", "token", "worth")

    def __init__(self, before: _Prefix | None, token: int, worth: Worth) -> None:
        self.before, self.token, self.worth = before, token, worth
        self.key = 0 if before is None else before.key_after(token)
        self.blank = self.said = -math.inf

    @property
    def log_p(self) -> float:
        return _add(self.blank, self.said)

    def key_after(self, token: int) -> int:
        """The key of this sequence with another token at its end."""
        return (self.key * _BASE + token + 1) % _PRIME

    def tokens(self) -> tuple[int, ...]:
        found, at = [], self
        while at.before is not None:
            found.append(at.token)
            at = at.before
        return tuple(found[::-1])


class PrefixBeam:
    """The likeliest sequences, each summed over its paths, keeping `beam_size` at every frame.

    Of each prefix two numbers are kept: log p of its paths that end in a blank, and of those that
    end in its last token. Frames may come in any pieces. With a scorer, a sequence has the score

        log Σ p(path | sound) + worth(sequence)

    Source: Hannun, Maas, Jurafsky and Ng 2014, "First-pass large vocabulary continuous speech
    recognition using bi-directional recurrent DNNs", algorithm 1.

    >>> beam = PrefixBeam(beam_size=4)
    >>> beam.push(np.log([[0.6, 0.4], [0.6, 0.4]]))
    >>> tokens, log_p = beam.best()[0]  # 'a' by three paths beats the one path of blanks
    >>> tokens, round(float(np.exp(log_p)), 2)
    ((1,), 0.64)
    """

    def __init__(
        self,
        beam_size: int,
        blank_id: int = 0,
        narrowest: float = -14.0,
        scorer: Scorer | None = None,
    ) -> None:
        if beam_size < 1:
            raise ConfigError(f"beam_size={beam_size}; expected at least 1.")
        self.beam_size = beam_size
        self.blank_id = blank_id
        self._narrowest = narrowest
        self._scorer = scorer
        empty = _Prefix(None, -1, _NOTHING if scorer is None else scorer.begin())
        empty.blank = 0.0
        self._beam = [empty]

    def push(self, log_probs: LogProbs) -> None:
        """Read further frames (T, vocab_size).

        At each, labels of log p below `narrowest` extend no prefix.
        """
        for frame in np.asarray(log_probs, np.float64):
            likely = np.flatnonzero(frame >= self._narrowest).tolist()
            self._step(frame.tolist(), [label for label in likely if label != self.blank_id])

    def _step(self, frame: list[float], likely: list[int]) -> None:
        before = [(one, one.blank, one.said) for one in self._beam]
        # A prefix that is longer by a token may be in the beam already.
        after = {one.key: one for one in self._beam}
        for one, blank, said in before:
            one.blank = _add(blank, said) + frame[self.blank_id]
            one.said = said + frame[one.token] if one.before is not None else -math.inf
        for one, blank, said in before:
            both = _add(blank, said)
            for label in likely:
                # A repeat is a new token only after a blank.
                log_p = (blank if label == one.token else both) + frame[label]
                if log_p == -math.inf:
                    continue
                key = one.key_after(label)
                longer = after.get(key)
                if longer is None:
                    longer = after[key] = _Prefix(one, label, self._worth(one, label))
                longer.said = _add(longer.said, log_p)
        ranked = sorted(after.values(), key=lambda one: -one.log_p - one.worth.nats)  # stable
        self._beam = ranked[: self.beam_size]

    def _worth(self, before: _Prefix, token: int) -> Worth:
        return _NOTHING if self._scorer is None else self._scorer.extend(before.worth, token)

    def best(self) -> list[tuple[tuple[int, ...], float]]:
        """The sequences kept and the score of each, best first; ties in order of their tokens."""
        found = [(one.tokens(), one.log_p + self._finished(one.worth)) for one in self._beam]
        return sorted(found, key=lambda item: (-item[1], item[0]))

    def _finished(self, worth: Worth) -> float:
        return 0.0 if self._scorer is None else self._scorer.finish(worth)


def align(log_probs: LogProbs, tokens: Sequence[int], blank_id: int = 0) -> list[Emission]:
    """When each token of a sequence is said, by its likeliest path (Viterbi).

    Raises: ShapeError when there are too few frames for the sequence, or no path of it is possible.
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
    if not np.isfinite(scores[-2:].max()):
        raise ShapeError(
            "align: every path of the sequence has a token of probability 0, or NaN, at some frame."
        )
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


def _add(a: float, b: float) -> float:
    """log(eᵃ + eᵇ)."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
