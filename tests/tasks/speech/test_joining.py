"""Strings of recordings: of one speaker, whole, in order, with pauses as long as asked."""

from __future__ import annotations

import numpy as np
import pytest

from recurra.errors import DataError
from recurra.tasks.speech.joining import Spoken, join_words

# The k-th recording has k + 1 samples of k + 1, so that a sound says what is in it.
SPOKEN = [Spoken(np.full(k + 1, k + 1.0, np.float32), f"w{k + 1}", "ab"[k % 2]) for k in range(6)]


def test_a_string_holds_whole_recordings_of_one_speaker_and_pauses() -> None:
    strings = join_words(SPOKEN, 50, words=(2, 4), pause_s=(0.002, 0.004), sample_rate=1000, seed=7)
    assert {len(text.split()) for _, text in strings} == {2, 3, 4}
    for samples, text in strings:
        numbers = [int(word[1:]) for word in text.split()]
        assert len({number % 2 for number in numbers}) == 1
        runs = np.split(samples, np.flatnonzero(np.diff(samples)) + 1)
        assert [float(run[0]) for run in runs[::2]] == numbers
        assert [len(run) for run in runs[::2]] == numbers
        assert all(2 <= len(run) <= 4 and not run.any() for run in runs[1::2])


def test_the_seed_decides() -> None:
    def texts(seed: int) -> list[str]:
        options = {"words": (3, 3), "pause_s": (0.0, 0.0), "sample_rate": 1000}
        return [text for _, text in join_words(SPOKEN, 5, seed=seed, **options)]  # type: ignore[arg-type]

    assert texts(1) == texts(1) != texts(2)


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(DataError, match="no recordings to join"):
        join_words([], 1, words=(1, 1), pause_s=(0, 0), sample_rate=1000, seed=0)
