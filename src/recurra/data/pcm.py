"""Sound from a pipe as it comes: raw 16-bit samples, or WAV, which says what it holds."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from recurra.data.audio import Samples, mix
from recurra.errors import DataError

_PIECE = 1 << 14  # bytes read at most at a time; less where less has come
_HEADER = 1 << 20  # bytes before a WAV's sound at most
_PCM, _EXTENSIBLE = 1, 0xFFFE


class Pipe(Protocol):
    """Where bytes come from: a binary file, such as stdin's buffer."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, b"" at the end."""
        ...


def read_sound(file: Pipe, rate: int) -> tuple[int, Iterator[Samples]]:
    """(sample rate, pieces of samples) of raw sound at `rate` Hz, or of WAV, by its first bytes.

    Raw sound is signed 16 bits, little-endian, one channel. A WAV's sound goes to the end of the
    pipe, or for as long as its header says.

    Raises: DataError for a WAV of another form, and, from the pieces, for half a sample at the end.

    >>> import io
    >>> rate, pieces = read_sound(io.BytesIO(b"\\x00\\x40\\x00\\xc0"), 16000)
    >>> rate, next(pieces)
    (16000, array([ 0.5, -0.5], dtype=float32))
    """
    first = _exactly(file, 12)
    if first[:4] != b"RIFF" or first[8:12] != b"WAVE":
        return rate, _pieces(file, first, 1, None)
    channels, found_rate, size = _read_header(file)
    return found_rate, _pieces(file, b"", channels, size)


def _read_header(file: Pipe) -> tuple[int, int, int | None]:
    """(channels, sample rate, bytes of sound or None for all there are), up to the sound."""
    form: tuple[int, int] | None = None
    seen = 0
    while seen < _HEADER:
        head = _exactly(file, 8)
        if len(head) < 8:
            raise DataError("the WAV on stdin ends before its sound begins.")
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            if form is None:
                raise DataError("the WAV on stdin has its sound before its format.")
            # Writers into pipes do not know the size, and leave 0 or the largest there is.
            return (*form, None if size in (0, 0xFFFFFFFF) or size > 0x7FFFFF00 else size)
        if size > _HEADER:
            break
        body = _exactly(file, size + size % 2)
        seen += 8 + len(body)
        if name == b"fmt ":
            form = _read_format(body)
    raise DataError(f"the WAV on stdin has no sound in its first {_HEADER} bytes.")


def _read_format(body: bytes) -> tuple[int, int]:
    if len(body) < 16:
        raise DataError(f"the WAV on stdin has a format of {len(body)} bytes; expected 16 or more.")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if kind not in (_PCM, _EXTENSIBLE) or bits != 16 or not 1 <= channels <= 64:
        raise DataError(
            f"the WAV on stdin has format {kind}, {bits} bits and {channels} channels; expected "
            "16-bit PCM. Convert it: ffmpeg -i FILE -f s16le -ac 1 -ar 16000 -"
        )
    if not 1000 <= rate <= 768_000:
        raise DataError(f"the WAV on stdin says {rate} Hz; expected 1000 to 768000.")
    return channels, rate


def _pieces(file: Pipe, rest: bytes, channels: int, size: int | None) -> Iterator[Samples]:
    width, left = 2 * channels, size
    while True:
        whole = len(rest) // width * width
        if whole:
            values = np.frombuffer(rest[:whole], "<i2").astype(np.float32) / np.float32(1 << 15)
            yield mix(values.reshape(-1, channels))
            rest = rest[whole:]
        if left == 0:
            return
        more = _some(file, _PIECE if left is None else min(_PIECE, left))
        if not more:
            break
        rest += more
        left = None if left is None else left - len(more)
    if rest:
        raise DataError(
            f"the sound on stdin ends with {len(rest)} byte(s) of a sample of {width}; expected "
            "signed 16-bit samples. Check its format and its end."
        )


def _some(file: Pipe, most: int) -> bytes:
    """What has come, at least a byte, b"" at the end."""
    read = getattr(file, "read1", file.read)
    piece: bytes = read(most)
    return piece


def _exactly(file: Pipe, count: int) -> bytes:
    """So many bytes, fewer at the end of the pipe."""
    parts, left = [], count
    while left and (piece := file.read(left)):
        parts.append(piece)
        left -= len(piece)
    return b"".join(parts)
