"""The store in an SQLite file: safe against crashes, and no server to run."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recurra.errors import StoreError
from recurra.streaming.records import ADVICE, VERSION, Layout
from recurra.streaming.store import Entry

APPLICATION = int.from_bytes(b"RCSR", "big")
SCHEMA = (
    "CREATE TABLE about (one INTEGER PRIMARY KEY CHECK (one = 1), description TEXT NOT NULL)",
    "CREATE TABLE output (one INTEGER PRIMARY KEY CHECK (one = 1), content BLOB NOT NULL,"
    " checksum INTEGER NOT NULL)",
    "CREATE TABLE streams (key TEXT PRIMARY KEY NOT NULL, seen INTEGER NOT NULL,"
    " record BLOB NOT NULL)",
)
MAGIC = b"SQLite format 3\x00"
ASKED_AT_ONCE = 500
"""Keys in one query; SQLite allows 999 in its oldest settings."""


class SQLiteStore:
    """A store in one file, in write-ahead mode, which one process at a time has open.

    A commit is on the disk when it returns: a killed process loses nothing of it, nor does a
    machine without power. The file is checked when it is opened: it must be ours, of this version,
    whole, and hold nothing but our tables; every record is checked when it is read.

    >>> import tempfile
    >>> store = SQLiteStore(f"{tempfile.mkdtemp()}/states.db")
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self, layout: Layout) -> None:
        """As `Store.open`; makes the file when there is none."""
        self.close()
        self._check_file()
        with self._explained("open"):
            self._connection = sqlite3.connect(
                self.path, timeout=2.0, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare(layout)
        except BaseException:
            self.close()
            raise

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """As `Store.read`."""
        found: dict[str, bytes] = {}
        with self._explained("read"):
            for start in range(0, len(keys), ASKED_AT_ONCE):
                asked = keys[start : start + ASKED_AT_ONCE]
                marks = ",".join("?" * len(asked))
                found.update(
                    self._run(f"SELECT key, record FROM streams WHERE key IN ({marks})", asked)
                )
        return found

    def commit(
        self, entries: Sequence[Entry], output: bytes = b"", expire_before: int | None = None
    ) -> None:
        """As `Store.commit`."""
        with self._explained("write"), self._transaction():
            assert self._connection is not None
            self._connection.executemany(
                "INSERT INTO streams (key, record, seen) VALUES (?, ?, ?) ON CONFLICT (key) "
                "DO UPDATE SET record = excluded.record, seen = excluded.seen",
                entries,
            )
            if expire_before is not None:
                self._run("DELETE FROM streams WHERE seen < ?", (expire_before,))
            self._run("REPLACE INTO output VALUES (1, ?, ?)", (output, zlib.crc32(output)))

    def last_output(self) -> bytes:
        """As `Store.last_output`."""
        with self._explained("read"):
            rows = self._run("SELECT content, checksum FROM output").fetchall()
        if not rows:
            return b""
        ((content, checksum),) = rows
        if not isinstance(content, bytes) or zlib.crc32(content) != checksum:
            raise StoreError(
                f"{self.path} is damaged: the checksum of the last output is not that of its "
                f"content. {ADVICE}"
            )
        return content

    def __len__(self) -> int:
        with self._explained("read"):
            return int(self._run("SELECT count(*) FROM streams").fetchone()[0])

    def close(self) -> None:
        """As `Store.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _run(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        if self._connection is None:
            raise StoreError(f"{self.path} is not open. Make a StreamEngine with it first.")
        return self._connection.execute(statement, values)

    def _check_file(self) -> None:
        """Refuse what is no SQLite file before SQLite looks at it."""
        try:
            with self.path.open("rb") as file:
                start = file.read(len(MAGIC))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror or error}.") from error
        if start and start != MAGIC:
            raise StoreError(
                f"{self.path} is no store of states: it does not begin as an SQLite file. Choose "
                "another file; a new one is made where there is none."
            )

    def _prepare(self, layout: Layout) -> None:
        with self._explained("open"):
            # Without trust a foreign file's views and triggers run no functions; a lock that is
            # kept lets no second process write states that this one would overwrite.
            self._run("PRAGMA trusted_schema = OFF")
            self._run("PRAGMA cell_size_check = ON")
            self._run("PRAGMA locking_mode = EXCLUSIVE")
            self._check_ours()
            self._run("PRAGMA journal_mode = WAL")
            self._run("PRAGMA synchronous = FULL")
            with self._transaction():
                if not self._objects():
                    self._create(layout)
            rows = self._run("SELECT description FROM about").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], str):
            raise StoreError(f"{self.path} is damaged: it does not say its model. {ADVICE}")
        layout.check(rows[0][0], str(self.path))
        self.last_output()

    def _check_ours(self) -> None:
        """Raise StoreError for a database that holds anything but our tables, in our version."""
        application = self._run("PRAGMA application_id").fetchone()[0]
        version = self._run("PRAGMA user_version").fetchone()[0]
        objects = self._objects()
        if not objects and (application, version) == (0, 0):
            return  # new, or left before its first transaction
        if application != APPLICATION:
            raise StoreError(
                f"{self.path} is a database of another application. Choose another file; a new one "
                "is made where there is none."
            )
        if version != VERSION:
            raise StoreError(
                f"{self.path} has format {version}; this version reads format {VERSION}. Use the "
                "recurra version that wrote it, or begin with a new one."
            )
        if objects != set(SCHEMA):
            raise StoreError(
                f"{self.path} is damaged: its tables are not those of a store. {ADVICE}"
            )

    def _objects(self) -> set[Any]:
        rows = self._run("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_autoindex_%'")
        return {sql for (sql,) in rows}

    def _create(self, layout: Layout) -> None:
        self._run(f"PRAGMA application_id = {APPLICATION}")
        self._run(f"PRAGMA user_version = {VERSION}")
        for statement in SCHEMA:
            self._run(statement)
        self._run("INSERT INTO about VALUES (1, ?)", (layout.description,))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._run("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn SQLite's errors into a StoreError that says what to do."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            text = str(error)
            if "locked" in text:
                advice = "Another process has it open; end that one, or choose another file."
            elif isinstance(error, sqlite3.OperationalError):
                advice = "Check free space and permissions."
            else:
                advice = ADVICE
            raise StoreError(f"cannot {action} {self.path}: {text}. {advice}") from error
