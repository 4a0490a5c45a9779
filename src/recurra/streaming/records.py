"""State records: what is kept of one stream, as flat bytes that are checked before use.

    offset  bytes
    0       4     magic, "RCSR"
    4       2     version of this format, 1
    6       2     0
    8       8     mark of model and layout: the first bytes of SHA-256 over `Layout.description`
    16      8     identity of the last event, signed; −2⁶³ before the first
    24      8     when it came, milliseconds since 1970
    32      4     length S of the state
    36      4     length A of the last answer
    40      4     CRC-32 of the key (UTF-8), the 40 bytes above, the state and the answer
    44      S     the state, fields of the stepper's record one after the other
    44 + S  A     the last answer; 0 bytes when none is kept

All numbers are little-endian. Reading runs no code; a record of another key, model, version or
length, or with a changed byte, is refused.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recurra.errors import ConfigError, StoreError
from recurra.streaming.stepper import States, Stepper, check_record

MAGIC = b"RCSR"
VERSION = 1
NEVER = -(2**63)
"""The identity before a stream's first event."""
HEAD = np.dtype(
    [
        ("magic", "S4"),
        ("version", "<u2"),
        ("zero", "<u2"),
        ("mark", "S8"),
        ("last", "<i8"),
        ("seen", "<i8"),
        ("state_bytes", "<u4"),
        ("answer_bytes", "<u4"),
    ]
)
HEAD_BYTES = HEAD.itemsize + 4
ADVICE = "Restore the store from a copy, or begin with a new one."

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """What records are of: a model, by its hash, and the fields of its state."""

    model_hash: str
    record: np.dtype[Any]

    @classmethod
    def of(cls, stepper: Stepper) -> Layout:
        check_record(stepper.record)
        return cls(stepper.model_hash, stepper.record)

    @cached_property
    def description(self) -> str:
        """JSON that a store keeps, and that must be the same when it is opened again."""
        rows = [[name, base.str, list(shape)] for name, base, shape in self._fields()]
        return json.dumps({"format": VERSION, "model": self.model_hash, "record": rows})

    @cached_property
    def mark(self) -> bytes:
        """Eight bytes, none of them 0, that stand for the description in every record."""
        digest = hashlib.sha256(self.description.encode()).digest()[:8]
        return bytes(byte or 1 for byte in digest)

    @cached_property
    def stored(self) -> np.dtype[Any]:
        """The record's dtype as it is written: packed and little-endian."""
        return np.dtype(self._fields())

    def _fields(self) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
        """(name, little-endian dtype, shape) of every field."""
        fields: Mapping[str, Any] = self.record.fields or {}
        pairs = [(name, fields[name][0]) for name in self.record.names or ()]
        return [(name, dtype.base.newbyteorder("<"), dtype.shape) for name, dtype in pairs]

    def check(self, description: str, where: str) -> None:
        """Raises: StoreError when `where` was made with another description."""
        if description == self.description:
            return
        try:
            told = json.loads(description)
            theirs, version = str(told["model"]), told["format"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StoreError(f"{where} is damaged: it does not say its model. {ADVICE}") from None
        if version != VERSION:
            raise StoreError(
                f"{where} has format {version!r}; this version reads format {VERSION}. Use the "
                "recurra version that wrote it, or begin with a new one."
            )
        if theirs != self.model_hash:
            raise StoreError(
                f"{where} holds states made by other weights: model {theirs[:12]}, and this one is "
                f"{self.model_hash[:12]}. Use the run that made it, or begin with a new one."
            )
        raise StoreError(
            f"{where} holds states of another layout, though of the same model. {ADVICE}"
        )


class Record(NamedTuple):
    """What is kept of one stream."""

    state: States
    last: int
    seen: int
    answer: bytes


def encode(
    layout: Layout,
    keys: Sequence[str],
    states: States,
    last: Numbers,
    seen: Numbers,
    answers: Sequence[bytes],
) -> list[bytes]:
    """One record for each key; states (N,), last (N,), seen (N,)."""
    size = layout.stored.itemsize
    heads = np.zeros(len(keys), HEAD)
    heads["magic"], heads["version"], heads["mark"] = MAGIC, VERSION, layout.mark
    heads["last"], heads["seen"], heads["state_bytes"] = last, seen, size
    heads["answer_bytes"] = [len(answer) for answer in answers]
    head, body, width = heads.tobytes(), states.astype(layout.stored).tobytes(), HEAD.itemsize
    made = []
    for n, (key, answer) in enumerate(zip(keys, answers, strict=True)):
        above = head[n * width : (n + 1) * width]
        state = body[n * size : (n + 1) * size]
        checksum = _checksum(key, above, state, answer).to_bytes(4, "little")
        made.append(b"".join((above, checksum, state, answer)))
    return made


def decode(layout: Layout, key: str, raw: bytes, where: str) -> Record:
    """The record of `key`. Raises: StoreError, naming `where` and the key, when it is not one."""
    told = f"{where}: the state of {key!r} is damaged"
    if not isinstance(raw, bytes) or len(raw) < HEAD_BYTES:
        seen = f"{len(raw)} bytes" if isinstance(raw, bytes) else f"a {type(raw).__name__}"
        raise StoreError(f"{told}: it is {seen}, expected {HEAD_BYTES} or more. {ADVICE}")
    head: Any = np.frombuffer(raw, HEAD, count=1)[0]
    if head["magic"] != MAGIC:
        raise StoreError(f"{told}: it is no state record. {ADVICE}")
    if head["version"] != VERSION:
        raise StoreError(
            f"{where}: the state of {key!r} has version {head['version']}; this version reads "
            f"{VERSION}. Use the recurra version that wrote it, or begin with a new store."
        )
    size, rest = int(head["state_bytes"]), int(head["answer_bytes"])
    if len(raw) != HEAD_BYTES + size + rest:
        raise StoreError(
            f"{told}: it has {len(raw)} bytes, expected {HEAD_BYTES + size + rest}. {ADVICE}"
        )
    state, answer = raw[HEAD_BYTES : HEAD_BYTES + size], raw[HEAD_BYTES + size :]
    checksum = int.from_bytes(raw[HEAD.itemsize : HEAD_BYTES], "little")
    if checksum != _checksum(key, raw[: HEAD.itemsize], state, answer):
        raise StoreError(f"{told}: its checksum is not that of its content. {ADVICE}")
    if head["mark"] != layout.mark or size != layout.stored.itemsize:
        raise StoreError(
            f"{where}: the state of {key!r} was made by other weights or has another layout. "
            f"{ADVICE}"
        )
    states = np.frombuffer(state, layout.stored).astype(layout.record)
    return Record(states, int(head["last"]), int(head["seen"]), answer)


def check_key(key: Any) -> None:
    """Raises: ConfigError for a key that is no text, or text that UTF-8 cannot hold."""
    if not isinstance(key, str):
        raise ConfigError(
            f"the key {key!r} is a {type(key).__name__}, but keys are text. Use str(key)."
        )
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the key {key!r} holds half a surrogate pair, which is no text."
        ) from error


def _checksum(key: str, head: bytes, state: bytes, answer: bytes) -> int:
    return zlib.crc32(answer, zlib.crc32(state, zlib.crc32(head, zlib.crc32(key.encode()))))
