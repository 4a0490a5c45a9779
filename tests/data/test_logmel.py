"""Features: equal to the bit in any pieces, and what they are at all."""

from __future__ import annotations

import numpy as np
import pytest

from recurra.data.logmel import LogMel, frames_of, log_mel

pytest.importorskip("kaldi_native_fbank")


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)


@pytest.mark.parametrize("size", [1, 160, 640, 1600, 12_432, 0])
def test_pieces_give_the_same_bits(size: int) -> None:
    sound = noise(30_000 if size != 1 else 2000)
    rng = np.random.default_rng(7)
    stream, pieces, at = LogMel(16000), [], 0
    while at < len(sound):
        step = size or int(rng.integers(0, 3000))  # 0: random, and sometimes nothing at all
        pieces.append(stream.push(sound[at : at + step]))
        at += step
    assert np.array_equal(np.concatenate(pieces), log_mel(sound, 16000))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_number_of_frames_is_known(rate: int) -> None:
    window = round(0.025 * rate)
    for count in (0, window - 1, window, window + rate // 100, rate):
        assert len(log_mel(noise(count), rate, 40)) == frames_of(count, rate), count


def test_a_tone_is_in_the_bin_of_its_pitch() -> None:
    time = np.arange(16000) / 16000
    loudest = [
        int(log_mel(np.sin(2 * np.pi * hertz * time).astype("f4"), 16000).mean(0).argmax())
        for hertz in (200, 1000, 4000)
    ]
    mels = [1127 * np.log(1 + hertz / 700) for hertz in (20, 200, 1000, 4000, 8000)]
    wanted = [(mel - mels[0]) / (mels[-1] - mels[0]) * 81 - 1 for mel in mels[1:4]]
    assert np.abs(np.array(loudest) - wanted).max() < 1


def test_loudness_is_a_constant_added() -> None:
    sound = noise(16000)
    louder = log_mel(sound * np.float32(2), 16000) - log_mel(sound, 16000)
    assert np.allclose(louder, 2 * np.log(2), atol=1e-3)
