"""Recurrent transducers: from what was heard at every step, and what was said, to a sequence.

At a step the model says labels, each of which changes what it expects next, until it says the
blank, which goes on to the next step. The probability of a sequence is the sum over all ways to
spread its labels over the steps.

Source: Graves 2012, "Sequence transduction with recurrent neural networks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from recurra.decoding.ctc import Emission, LogProbs, Scorer, Worth
from recurra.errors import ConfigError

MOST = 5
"""Labels at one step at most; training puts more there almost never, and a loop must end."""


class TransducerModel(Protocol):
    """What has been said, as values, and what comes next."""

    def begin(self) -> Any:
        """Nothing has been said."""
        ...

    def extend(self, said: Any, token: int) -> Any:
        """What has been said, and another token."""
        ...

    def log_probs(self, heard: Any, said: Sequence[Any]) -> LogProbs:
        """log p (n, vocab_size) of what comes next at a step, after each of n things said."""
        ...


class TransducerGreedy:
    """The likeliest label again and again, until it is the blank; steps in any pieces.

    Its members are those of `ctc.GreedyDecoder`. most: labels at one step, after which it goes on.
    """

    def __init__(self, model: TransducerModel, blank_id: int = 0, most: int = MOST) -> None:
        self.blank_id = blank_id
        self.frames = 0
        """Steps seen."""
        self.blanks = 0
        """Steps since the last one at which something was said."""
        self._model, self._most = model, most
        self._said = model.begin()
        self._emissions: list[Emission] = []

    def push(self, heard: Sequence[Any]) -> list[LogProbs]:
        """Read further steps; log p (vocab_size,) of what comes first at each."""
        return [self._step(one) for one in heard]

    def _step(self, heard: Any) -> LogProbs:
        self.blanks += 1
        first: LogProbs = self._model.log_probs(heard, [self._said])[0]
        log_probs = first
        for _ in range(self._most):
            label = int(log_probs.argmax())
            if label == self.blank_id:
                break
            confidence = math.exp(float(log_probs[label]))
            self._emissions.append(Emission(label, self.frames, self.frames + 1, confidence))
            self.blanks = 0
            self._said = self._model.extend(self._said, label)
            log_probs = self._model.log_probs(heard, [self._said])[0]
        self.frames += 1
        return first

    @property
    def emissions(self) -> list[Emission]:
        """What has been said since the beginning, or the last `take`."""
        return list(self._emissions)

    def take(self) -> list[Emission]:
        """`emissions`, which are forgotten here; the model still knows what it said."""
        found, self._emissions = self._emissions, []
        return found


class _Said:
    """A sequence: what the model and the scorer know of it, and its continuations so far."""

    __slots__ = ("_longer", "state", "tokens", "worth")

    def __init__(self, tokens: tuple[int, ...], state: Any, worth: Worth) -> None:
        self.tokens, self.state, self.worth = tokens, state, worth
        self._longer: dict[int, _Said] = {}

    def then(self, token: int, model: TransducerModel, worth: Worth) -> _Said:
        found = self._longer.get(token)
        if found is None:
            state = model.extend(self.state, token)
            found = self._longer[token] = _Said((*self.tokens, token), state, worth)
        return found


class _Way:
    """A sequence in the beam, log p of its ways together, and the likeliest one's emissions."""

    __slots__ = ("best", "emissions", "log_p", "said")

    def __init__(self, said: _Said, log_p: float, emissions: tuple[Emission, ...]) -> None:
        self.said, self.log_p, self.emissions = said, log_p, emissions
        self.best = log_p

    @property
    def score(self) -> float:
        return self.log_p + self.said.worth.nats


class TransducerBeam:
    """The likeliest sequences, keeping `beam_size` at every step; steps in any pieces.

    Ways to the same sequence are added up where they meet. With a scorer, a sequence has the score

        log Σ p(way | sound) + worth(sequence)

    Source: as "default beam search" by Graves 2012, section 2.6, but bounded to `most` labels at a
    step, all sequences going on together.
    """

    def __init__(
        self,
        model: TransducerModel,
        beam_size: int,
        blank_id: int = 0,
        narrowest: float = -14.0,
        scorer: Scorer | None = None,
        most: int = MOST,
    ) -> None:
        if beam_size < 1:
            raise ConfigError(f"beam_size={beam_size}; expected at least 1.")
        self.beam_size, self.blank_id = beam_size, blank_id
        self._model, self._scorer = model, scorer
        self._narrowest, self._most = narrowest, most
        worth = Worth(0.0) if scorer is None else scorer.begin()
        self._beam = [_Way(_Said((), model.begin(), worth), 0.0, ())]
        self._frames = 0

    def push(self, heard: Sequence[Any]) -> None:
        """Read further steps. At each, labels of log p below `narrowest` are not said."""
        for one in heard:
            self._step(one)
            self._frames += 1

    def _step(self, heard: Any) -> None:
        ended: dict[tuple[int, ...], _Way] = {}
        going = self._beam
        for count in range(self._most + 1):
            rows = self._model.log_probs(heard, [one.said.state for one in going])
            for one, row in zip(going, rows, strict=True):
                _merge(ended, one, one.log_p + float(row[self.blank_id]))
            if count == self._most:
                break
            going = self._longer(going, rows, self._worst(ended))
            if not going:
                break
        self._beam = _best(list(ended.values()), self.beam_size)

    def _worst(self, ended: dict[tuple[int, ...], _Way]) -> float:
        """The score below which nothing can get into the beam any more."""
        if len(ended) < self.beam_size:
            return -math.inf
        return _best(list(ended.values()), self.beam_size)[-1].score

    def _longer(self, going: Sequence[_Way], rows: LogProbs, worst: float) -> list[_Way]:
        """The best of the sequences that say another label at this step."""
        found = []
        for one, row in zip(going, rows, strict=True):
            for label in np.flatnonzero(row >= self._narrowest).tolist():
                if label == self.blank_id:
                    continue
                log_p = one.log_p + float(row[label])
                worth = self._worth(one.said.worth, label)
                if log_p + worth.nats >= worst:
                    found.append((log_p + worth.nats, log_p, worth, one, label, float(row[label])))
        found.sort(key=lambda item: -item[0])  # stable
        longer = []
        for _, log_p, worth, one, label, gained in found[: self.beam_size]:
            emission = Emission(label, self._frames, self._frames + 1, math.exp(gained))
            said = one.said.then(label, self._model, worth)
            longer.append(_Way(said, log_p, (*one.emissions, emission)))
        return longer

    def _worth(self, before: Worth, token: int) -> Worth:
        return before if self._scorer is None else self._scorer.extend(before, token)

    def best(self) -> list[tuple[tuple[int, ...], float]]:
        """The sequences kept and the score of each, best first; ties in order of their tokens."""
        found = [(one.said.tokens, one.log_p + self._finished(one)) for one in self._beam]
        return sorted(found, key=lambda item: (-item[1], item[0]))

    @property
    def emissions(self) -> list[Emission]:
        """When each token of the best sequence is said, by its likeliest way."""
        tokens = self.best()[0][0]
        return list(next(one for one in self._beam if one.said.tokens == tokens).emissions)

    def _finished(self, way: _Way) -> float:
        return 0.0 if self._scorer is None else self._scorer.finish(way.said.worth)


def _merge(ended: dict[tuple[int, ...], _Way], one: _Way, log_p: float) -> None:
    found = ended.get(one.said.tokens)
    if found is None:
        ended[one.said.tokens] = _Way(one.said, log_p, one.emissions)
        return
    if log_p > found.best:
        found.best, found.emissions = log_p, one.emissions
    found.log_p = float(np.logaddexp(found.log_p, log_p))


def _best(ways: list[_Way], count: int) -> list[_Way]:
    return sorted(ways, key=lambda one: -one.score)[:count]
