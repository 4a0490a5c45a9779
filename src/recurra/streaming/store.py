"""Where states are kept: the contract of a store, and the one that keeps them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from recurra.streaming.records import Layout


class Entry(NamedTuple):
    """A record on its way into a store; seen as in the record, for stores that forget by it."""

    key: str
    record: bytes
    seen: int


class Store(Protocol):
    """Keeps one record for each key, and the output of the last commit.

    `commit` is one transaction: after a crash at any moment either all of it is there or none.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    def open(self, layout: Layout) -> None:
        """Make it ready for records of this layout.

        Raises: StoreError when it is damaged, in use, or holds records of another model.
        """

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The records of those keys that have one. Raises: StoreError."""

    def commit(
        self, entries: Sequence[Entry], output: bytes = b"", expire_before: int | None = None
    ) -> None:
        """Put all entries and the output, and drop the records seen before `expire_before`.

        Raises: StoreError; nothing has then changed.
        """

    def last_output(self) -> bytes:
        """The output of the last commit; empty before the first."""

    def __len__(self) -> int:
        """How many keys have a record."""

    def close(self) -> None:
        """Let go of files and connections."""


class MemoryStore:
    """A store in a dict: keeps nothing when the process ends."""

    name = "the store in memory"

    def __init__(self) -> None:
        self._records: dict[str, tuple[bytes, int]] = {}
        self._output = b""
        self._description: str | None = None

    def open(self, layout: Layout) -> None:
        """As `Store.open`."""
        if self._description is not None:
            layout.check(self._description, self.name)
        self._description = layout.description

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """As `Store.read`."""
        records = self._records
        return {key: records[key][0] for key in keys if key in records}

    def commit(
        self, entries: Sequence[Entry], output: bytes = b"", expire_before: int | None = None
    ) -> None:
        """As `Store.commit`."""
        self._records.update({entry.key: (entry.record, entry.seen) for entry in entries})
        self._output = output
        if expire_before is not None:
            old = [key for key, (_, seen) in self._records.items() if seen < expire_before]
            for key in old:
                del self._records[key]

    def last_output(self) -> bytes:
        """As `Store.last_output`."""
        return self._output

    def __len__(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """As `Store.close`."""
