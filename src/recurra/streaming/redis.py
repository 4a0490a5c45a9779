"""The store in a Redis or Valkey server: states that outlive the machine that steps them.

    {NAME}:about     version and description of the layout
    {NAME}:owner     token of the process that opened it last
    {NAME}:records   hash, key -> record         {NAME}:seen   sorted set, key by when it was seen
    {NAME}:output    CRC-32 and content of the last output

A commit is one MULTI ... EXEC that watches the owner. Whoever opens the store owns it: a process
that had it open before is refused at its next commit, so no state counts an event twice, and a
second machine can take over from one that hangs. The braces keep all in one slot of a cluster.
What a commit survives is what the server is set to: `appendonly yes` and `appendfsync always` for
a loss of power.

Source: Redis documentation, "Transactions", optimistic locking using check-and-set.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from recurra.errors import ConfigError, MissingExtraError, StoreError
from recurra.streaming.records import ADVICE, VERSION, Layout
from recurra.streaming.store import Entry

SCHEMES = ("redis", "rediss")
PASSWORD = "RECURRA_REDIS_PASSWORD"
PATIENCE = 10.0
MAGIC = b"RCSR %d\n" % VERSION
_FORM = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][#NAME], or rediss:// with TLS"


def is_redis(text: str) -> bool:
    """Whether this is an address of Redis, not a path."""
    return text.partition("://")[0] in SCHEMES


class RedisStore:
    """A store in a Redis server, of the last process that opened it.

    url    redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][#NAME], or rediss:// with TLS. NAME
           keeps several stores of one database apart, "recurra" by default; a password that the
           address does not have is that of the environment, RECURRA_REDIS_PASSWORD.

    Raises: ConfigError for another address, MissingExtraError without the package redis.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        try:
            good = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        database = parts.path.strip("/")
        if not good or parts.query or not (database == "" or database.isdecimal()):
            raise ConfigError(f"{shown!r} is no address of a store; expected {_FORM}.")
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError("redis", "redis", "A store in Redis") from error
        self._redis = redis
        self._shown, self._prefix = shown, f"{{{parts.fragment or 'recurra'}}}:"
        self._url = parts._replace(fragment="").geturl()
        self._password = None if parts.password else os.environ.get(PASSWORD)
        self._client: Any = None
        self._token = b""

    @property
    def name(self) -> str:
        return self._shown

    def open(self, layout: Layout) -> None:
        """As `Store.open`; from now on this process owns the store."""
        self.close()
        given = {} if self._password is None else {"password": self._password}
        with self._explained("open"):
            self._client = self._redis.Redis.from_url(
                self._url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, **given
            )
        try:
            self._prepare(layout)
        except BaseException:
            self.close()
            raise

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """As `Store.read`."""
        if not keys:
            return {}
        with self._explained("read"):
            found = self._opened().hmget(self._prefix + "records", keys)
        return {key: raw for key, raw in zip(keys, found, strict=True) if raw is not None}

    def commit(
        self, entries: Sequence[Entry], output: bytes = b"", expire_before: int | None = None
    ) -> None:
        """As `Store.commit`. Raises: StoreError, too, when another process has opened it since."""
        seen = {entry.key: entry.seen for entry in entries}
        with self._explained("write"), self._opened().pipeline() as pipe:
            pipe.watch(self._prefix + "owner")
            self._check_owner(pipe.get(self._prefix + "owner"))
            old = [] if expire_before is None else self._before(pipe, expire_before, seen)
            pipe.multi()
            if entries:
                records = {entry.key: entry.record for entry in entries}
                pipe.hset(self._prefix + "records", mapping=records)
                pipe.zadd(self._prefix + "seen", seen)
            if old:
                pipe.hdel(self._prefix + "records", *old)
                pipe.zrem(self._prefix + "seen", *old)
            checksum = zlib.crc32(output).to_bytes(4, "little")
            pipe.set(self._prefix + "output", checksum + output)
            pipe.execute()

    def last_output(self) -> bytes:
        """As `Store.last_output`."""
        with self._explained("read"):
            content = self._opened().get(self._prefix + "output")
        if content is None:
            return b""
        output = bytes(content[4:])
        if zlib.crc32(output).to_bytes(4, "little") != content[:4]:
            raise StoreError(
                f"{self.name} is damaged: the checksum of the last output is not that of its "
                f"content. {ADVICE}"
            )
        return output

    def __len__(self) -> int:
        with self._explained("read"):
            return int(self._opened().hlen(self._prefix + "records"))

    def close(self) -> None:
        """As `Store.close`."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(self._redis.RedisError, OSError):
                client.close()

    def _opened(self) -> Any:
        if self._client is None:
            raise StoreError(f"{self.name} is not open. Make a StreamEngine with it first.")
        return self._client

    def _prepare(self, layout: Layout) -> None:
        about = self._prefix + "about"
        with self._explained("open"), self._opened().pipeline() as pipe:
            pipe.watch(about)
            found = pipe.get(about)
            if found is not None:
                layout.check(self._description(found), self.name)
            self._token = secrets.token_hex(16).encode()
            pipe.multi()
            pipe.set(about, MAGIC + layout.description.encode())
            pipe.set(self._prefix + "owner", self._token)
            pipe.execute()
        self.last_output()

    def _description(self, found: bytes) -> str:
        if not found.startswith(b"RCSR "):
            raise StoreError(
                f"{self.name} is no store of states: its entry {self._prefix}about is of something "
                "else. Choose another #NAME."
            )
        if not found.startswith(MAGIC):
            raise StoreError(
                f"{self.name} has another format; this version reads format {VERSION}. Use the "
                "recurra version that wrote it, or begin with a new #NAME."
            )
        return found[len(MAGIC) :].decode()

    def _check_owner(self, found: bytes | None) -> None:
        if found != self._token:
            raise StoreError(
                f"cannot write {self.name}: another process has opened it since. Nothing was "
                "written; end one of the two, or choose another #NAME."
            )

    def _before(self, pipe: Any, expire_before: int, new: dict[str, int]) -> list[bytes]:
        """The keys that were seen before then, with `new` as seen now."""
        old = pipe.zrangebyscore(self._prefix + "seen", "-inf", f"({expire_before}")
        kept = {key.encode() for key, seen in new.items() if seen >= expire_before}
        gone = {key.encode() for key, seen in new.items() if seen < expire_before}
        return sorted((set(old) | gone) - kept)

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn the client's errors into a StoreError that says what to do."""
        try:
            yield
        except self._redis.WatchError:
            self._check_owner(None)
        except (self._redis.RedisError, OSError, UnicodeError) as error:
            advice = "Check address and password, and that the server is running."
            if "WRONGTYPE" in str(error) or isinstance(error, UnicodeError):
                advice = ADVICE
            raise StoreError(f"cannot {action} {self.name}: {error}. {advice}") from error
