"""Recordings of single words joined into strings of them, as connected speech to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recurra.data.audio import Samples
from recurra.errors import DataError


@dataclass(frozen=True)
class Spoken:
    """A sound, what is said in it, and who says it."""

    samples: Samples
    text: str
    speaker: str


def join_words(
    spoken: Sequence[Spoken],
    count: int,
    *,
    words: tuple[int, int],
    pause_s: tuple[float, float],
    sample_rate: int,
    seed: int,
) -> list[tuple[Samples, str]]:
    """`count` strings, each of recordings drawn from those of one speaker, with pauses between.

    words     fewest and most recordings of a string
    pause_s   shortest and longest silence between two of them, in seconds

    Raises: DataError when there are no recordings.

    >>> one = Spoken(np.ones(80, np.float32), "one", "a")
    >>> samples, text = join_words([one], 1, words=(3, 3), pause_s=(0.01, 0.01),
    ...                            sample_rate=8000, seed=0)[0]
    >>> len(samples), text
    (400, 'one one one')
    """
    if not spoken:
        raise DataError("there are no recordings to join.")
    rng = np.random.default_rng(seed)
    of_speaker: dict[str, list[Spoken]] = {}
    for one in spoken:
        of_speaker.setdefault(one.speaker, []).append(one)
    speakers = sorted(of_speaker)
    joined = []
    for _ in range(count):
        some = of_speaker[speakers[rng.integers(len(speakers))]]
        chosen = [
            some[rng.integers(len(some))] for _ in range(rng.integers(words[0], words[1] + 1))
        ]
        parts = [chosen[0].samples]
        for one in chosen[1:]:
            pause = round(float(rng.uniform(*pause_s)) * sample_rate)
            parts += [np.zeros(pause, np.float32), one.samples]
        joined.append((np.concatenate(parts), " ".join(one.text for one in chosen)))
    return joined
