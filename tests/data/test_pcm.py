from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from recurra.data.pcm import read_sound
from recurra.errors import DataError

soundfile = pytest.importorskip("soundfile")
SOUND = (np.random.default_rng(0).normal(0, 3000, 30_001)).astype("<i2")


class Drops:
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(content), most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def hear(content: bytes, rate: int = 16000, most: int = 1 << 20) -> tuple[int, np.ndarray]:
    found, pieces = read_sound(Drops(content, most), rate)
    return found, np.concatenate([np.zeros(0, "f4"), *pieces])


def wav(samples: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("most", [1, 7, 4096])
def test_raw_sound_is_the_same_in_any_pieces(most: int) -> None:
    raw = SOUND[:3001].tobytes()
    rate, samples = hear(raw, 11025, most)
    assert rate == 11025
    assert np.array_equal(samples, SOUND[:3001].astype("f4") / 32768)


@pytest.mark.parametrize("most", [1, 7, 4096])
def test_wav_is_read_as_soundfile_reads_it(most: int) -> None:
    both = np.stack([SOUND[:2000], SOUND[2000:4000]], 1)
    rate, samples = hear(wav(both) + b"LIST and what follows the sound", most=most)
    assert rate == 8000
    assert np.array_equal(samples, both.astype("f4").sum(1) / 32768 / 2)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_of_unknown_length_goes_to_the_end(size: int) -> None:
    content = bytearray(wav(SOUND[:500]))
    content[40:44] = struct.pack("<I", size)
    assert np.array_equal(hear(bytes(content))[1], SOUND[:500].astype("f4") / 32768)


def test_nothing_and_little_are_sound_too() -> None:
    assert len(hear(b"")[1]) == 0
    assert len(hear(b"\x00\x01" * 3)[1]) == 3


def test_what_cannot_be_heard_is_refused() -> None:
    with pytest.raises(DataError, match=r"ends with 1 byte\(s\) of a sample of 2"):
        hear(b"\x00" * 33)
    with pytest.raises(DataError, match="format 3, 32 bits and 1 channels; expected 16-bit PCM"):
        hear(wav(SOUND / np.float32(32768), subtype="FLOAT"))
    with pytest.raises(DataError, match="ends before its sound begins"):
        hear(wav(SOUND)[:38])
    with pytest.raises(DataError, match="has its sound before its format"):
        hear(b"RIFF\x00\x00\x00\x00WAVEdata\x04\x00\x00\x00\x00\x00\x00\x00")
    with pytest.raises(DataError, match="no sound in its first"):
        hear(b"RIFF\x00\x00\x00\x00WAVEjunk\xff\xff\xff\x0f" + bytes(100))
