"""All states of an engine in one flat file.

    8 bytes   magic, "RCSRSNAP"
    4         length H of the header
    H         header, JSON: {"layout": `Layout.description`, "streams": N, "key_bytes": K}
    8 N       where each key ends in the keys
    K         the keys, UTF-8, one after the other
    8 N       identity of each stream's last event
    8 N       when it came, milliseconds since 1970
    S N       the states, one after the other, as in `records`
    4         CRC-32 of everything above

All numbers are little-endian. The length of the file is checked before anything of it is used, the
checksum before it is believed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from recurra.errors import StoreError
from recurra.runs import write_pieces
from recurra.streaming.records import ADVICE, Layout
from recurra.streaming.slab import Slab

MAGIC = b"RCSRSNAP"
HEADER_LIMIT = 1 << 20
ROWS = 1 << 14
"""States in one piece of writing."""


def write_snapshot(path: Path, layout: Layout, slab: Slab) -> None:
    """Write all states of a slab. Raises: RunError when the file cannot be written."""
    write_pieces(path, _with_checksum(_pieces(layout, slab)))


def _pieces(layout: Layout, slab: Slab) -> Iterator[bytes]:
    rows = np.fromiter(slab.row.values(), np.int64, len(slab.row))
    keys = "".join(slab.row).encode()
    lengths = map(
        len, slab.row if len(keys) == sum(map(len, slab.row)) else map(str.encode, slab.row)
    )
    ends = np.cumsum(np.fromiter(lengths, np.int64, len(rows)))
    told = {"layout": layout.description, "streams": len(rows), "key_bytes": len(keys)}
    header = json.dumps(told).encode()
    yield MAGIC + len(header).to_bytes(4, "little") + header
    yield ends.astype("<i8").tobytes()
    yield keys
    yield slab.last[rows].astype("<i8").tobytes()
    yield slab.seen[rows].astype("<i8").tobytes()
    for begin in range(0, len(rows), ROWS):
        yield slab.take(rows[begin : begin + ROWS]).astype(layout.stored, copy=False).tobytes()


def _with_checksum(pieces: Iterator[bytes]) -> Iterator[bytes]:
    checksum = 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
        yield piece
    yield checksum.to_bytes(4, "little")


def read_snapshot(path: Path, layout: Layout) -> Slab:
    """The slab of a snapshot. Raises: StoreError when it is damaged or of another model."""
    try:
        with path.open("rb") as file:
            return _Reading(path, file).slab(layout)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"cannot read {path}: {error.strerror or error}.") from error


class _Reading:
    """A file with a running checksum."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file, self._checksum = path, file, 0

    def slab(self, layout: Layout) -> Slab:
        count, key_bytes = self._header(layout)
        ends = np.frombuffer(self._take(8 * count), "<i8").astype(np.int64)
        keys = self._keys(self._take(key_bytes), ends)
        last = np.frombuffer(self._take(8 * count), "<i8").astype(np.int64)
        seen = np.frombuffer(self._take(8 * count), "<i8").astype(np.int64)
        slab = Slab(layout.record, max(count, 1024))
        for begin in range(0, count, ROWS):
            some = slice(begin, min(begin + ROWS, count))
            raw = self._take((some.stop - begin) * layout.stored.itemsize)
            states = np.frombuffer(raw, layout.stored).astype(layout.record, copy=False)
            new = dict(enumerate(keys[some]))
            slab.put(np.full(len(new), -1), new, states, last[some], seen[some])
        wanted = self._checksum
        if int.from_bytes(self._take(4), "little") != wanted:
            raise self._damaged("its checksum is not that of its content")
        return slab

    def _header(self, layout: Layout) -> tuple[int, int]:
        """(streams, bytes of their keys), after the file is seen to be as long as they say."""
        if self._take(8) != MAGIC:
            raise StoreError(f"{self._path} is no snapshot of states. Choose another file.")
        size = int.from_bytes(self._take(4), "little")
        if size > HEADER_LIMIT:
            raise self._damaged(f"its header of {size} bytes is too long")
        try:
            told: Any = json.loads(self._take(size))
            description, count, key_bytes = told["layout"], told["streams"], told["key_bytes"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._damaged("its header cannot be read") from None
        if not all(type(n) is int and 0 <= n < 2**48 for n in (count, key_bytes)):
            raise self._damaged(f"it says that it holds {str(count)[:40]} streams")
        layout.check(str(description), str(self._path))
        wanted = 12 + size + count * (24 + layout.stored.itemsize) + key_bytes + 4
        found = os.fstat(self._file.fileno()).st_size
        if found != wanted:
            raise self._damaged(f"it has {found} bytes, expected {wanted}")
        return count, key_bytes

    def _keys(self, raw: bytes, ends: npt.NDArray[np.int64]) -> list[str]:
        begins = np.concatenate(([0], ends[:-1])) if len(ends) else ends
        if (ends < begins).any() or (len(ends) and ends[-1] != len(raw)):
            raise self._damaged("its keys overlap")
        try:
            keys = [
                raw[begin:end].decode()
                for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
            ]
        except UnicodeDecodeError:
            raise self._damaged("a key is no text") from None
        if len(set(keys)) < len(keys):
            raise self._damaged("a key is there twice")
        return keys

    def _take(self, size: int) -> bytes:
        piece = self._file.read(size)
        if len(piece) < size:
            raise self._damaged("it is cut short")
        self._checksum = zlib.crc32(piece, self._checksum)
        return piece

    def _damaged(self, reason: str) -> StoreError:
        return StoreError(f"{self._path} is damaged: {reason}. {ADVICE}")
