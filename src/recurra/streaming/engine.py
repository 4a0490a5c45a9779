"""Many keyed streams through one model: their events are gathered into batches and told apart."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.errors import ConfigError, RecurraError, ShapeError, StoreError
from recurra.runs import finite
from recurra.streaming.records import NEVER, Layout, check_key, decode, encode
from recurra.streaming.slab import Rows, Slab
from recurra.streaming.snapshot import read_snapshot, write_snapshot
from recurra.streaming.stepper import States, Stepper
from recurra.streaming.store import Entry, Store

FRESH, REPEATED, DUPLICATE, REFUSED = range(4)
"""What became of an event: stepped; as the last one of its key, whose answer is given again; older
than that; not usable."""
MOST_IDENTITY = 2**62
SWEEPS = 4
"""How many times within the idle time the idle are looked for."""


@dataclass
class Answers:
    """What the events of one batch were answered, in their order.

    values: an array (N, ...) or a list; NaN or None where there is no answer. status (N,) is FRESH,
    REPEATED, DUPLICATE or REFUSED. gap (N,): identities missing between the key's event before and
    this one. errors: why the refused ones were. repeats: of those REPEATED, the place in this batch
    of the event with the same identity, or the stored answer's bytes.
    """

    values: Any
    status: npt.NDArray[np.uint8]
    gap: Rows
    errors: dict[int, RecurraError] = field(default_factory=dict)
    repeats: dict[int, int | bytes] = field(default_factory=dict)


@dataclass
class _Batch:
    """The different keys of a batch, and what stands for them until the batch is done."""

    rows: Rows  # in the slab, below 0 for keys that have none
    keys: list[str]
    states: States
    last: Rows
    answered: Rows  # the place of the last event that was taken, -1 for none
    stored: dict[int, bytes]  # the last answers, as far as they were read with the states


class StreamEngine:
    """Steps many streams, each with a key and a state of its own, through one model.

    Events of different keys are one batched step; several events of one key are as many steps, in
    their order. A key's answers depend on its own events alone, bit for bit: not on what else is in
    the batch, on how the events came in pieces, nor on a restart in between.

    stepper: the model, see `Stepper`. store: where states are kept, see `Store`; without one they
    end with the process. max_keys: how many states lie in memory; those not used for the longest
    time stay in the store alone. idle_s: seconds after which a stream without events is forgotten,
    and begins anew with its next one. clock: seconds since 1970.

    One thread at a time calls `step` and `commit`; `push` may be called by many.
    Raises: ConfigError for settings that do not go together; StoreError when the store is damaged
    or of another model.

    >>> import numpy as np
    >>> from recurra import nn
    >>> from recurra.streaming import StackStepper, StreamEngine
    >>> engine = StreamEngine(StackStepper(nn.Stack(nn.GRU(3, 8), nn.Linear(8, 1))))
    >>> x = np.zeros((3, 3), np.float32)
    >>> answers = engine.push(["pump", "fan", "pump"], x)      # two steps of the pump's stream
    >>> answers.values.shape, len(engine)
    ((3, 1), 2)
    """

    def __init__(
        self,
        stepper: Stepper,
        store: Store | None = None,
        *,
        max_keys: int | None = None,
        idle_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check_settings(store, max_keys, idle_s)
        self.stepper = stepper
        self.layout = Layout.of(stepper)
        self.store = store
        self.max_keys = max_keys
        self.idle_s = idle_s
        self._clock = clock
        self._slab = Slab(stepper.record)
        self._due: tuple[_Batch, int] | None = None
        self._swept = self._now()
        self._alone = threading.Lock()
        if store is not None:
            store.open(self.layout)

    def __len__(self) -> int:
        """How many keys have a state, in memory or in the store."""
        return len(self._slab) if self.store is None else len(self.store)

    @property
    def hot(self) -> int:
        """How many keys have their state in memory."""
        return len(self._slab)

    def push(self, keys: Sequence[str], inputs: Any, seq: npt.ArrayLike | None = None) -> Answers:
        """Step and commit: the answers to N events, with the states and answers safe in the store.

        keys (N,) texts; inputs (N, ...), an array or a list, as the stepper takes them; seq (N,)
        whole numbers that grow along each key and are an event's identity with it; without, events
        are counted and none is known as a duplicate.
        Raises: ConfigError, ShapeError for arguments that do not fit; StoreError when the commit
        fails: `commit` then tries again.
        """
        with self._alone:
            answers = self.step(keys, inputs, seq)
            if self.store is not None:
                self.commit(self._encoded(answers))
            return answers

    def step(self, keys: Sequence[str], inputs: Any, seq: npt.ArrayLike | None = None) -> Answers:
        """As `push`, without the commit, which must come before the next step if there is a store.

        An error leaves all states as they were.
        """
        if self._due is not None:
            raise StoreError("the last step is not committed yet. Call commit() first.")
        keys = list(keys)
        identities = _check_batch(keys, inputs, seq)
        rows = self._slab.find(keys)
        new: dict[str, int] = {}
        for place in np.flatnonzero(rows < 0).tolist():
            key = keys[place]
            if key not in new:
                check_key(key)
                new[key] = -1 - len(new)
            rows[place] = new[key]
        rows, first, local = np.unique(rows, return_index=True, return_inverse=True)
        now = self._now()
        batch = self._gather(rows, [keys[n] for n in first.tolist()], now)
        answers = self._empty_answers(len(keys))
        for chosen in _rounds(local, first):
            self._round(batch, answers, inputs, identities, chosen, local[chosen])
        self._finish(batch, answers, now)
        return answers

    def commit(self, answers: Sequence[bytes | None] = (), output: bytes = b"") -> None:
        """Put what the last step changed into the store, in one transaction.

        answers: of each event of the step, for those that are sent again; none are kept when left
        out. output: bytes that the store hands out again as `last_output`, until the next commit.
        Raises: StoreError; call it again when the reason is gone.
        """
        if self.store is None:
            return
        batch, now = self._due or (None, self._now())
        entries: list[Entry] = []
        if batch is not None and batch.keys:
            told = [
                (answers[place] or b"") if place < len(answers) else b""
                for place in batch.answered.tolist()
            ]
            seen = np.full(len(batch.keys), now)
            records = encode(self.layout, batch.keys, batch.states, batch.last, seen, told)
            entries = [Entry(key, raw, now) for key, raw in zip(batch.keys, records, strict=True)]
        sweep = self._sweep_due(now)
        self.store.commit(entries, output, now - self._idle_ms() if sweep else None)
        self._due = None
        if sweep:
            self._sweep(now)
        self._spill()

    def last_output(self) -> bytes:
        """The output of the last commit, which a program that starts again sends again."""
        return b"" if self.store is None else self.store.last_output()

    def snapshot(self, path: str | Path) -> None:
        """Write the states of all streams to one file, which is there whole or not at all.

        For engines without a store: with one, all is there already.
        Raises: ConfigError with a store; RunError when the file cannot be written.
        """
        self._check_no_store("snapshot")
        write_snapshot(Path(path), self.layout, self._slab)

    def restore(self, path: str | Path) -> None:
        """Go on from a snapshot instead of the states in memory.

        Raises: ConfigError with a store; StoreError when the file is damaged or of another model.
        """
        self._check_no_store("restore")
        self._slab = read_snapshot(Path(path), self.layout)

    def _check_no_store(self, verb: str) -> None:
        if self.store is not None:
            raise ConfigError(
                f"{verb}: this engine keeps its states in {self.store.name}, which has them all. "
                "Copy that file while no engine has it open."
            )

    def close(self) -> None:
        """Close the store."""
        if self.store is not None:
            self.store.close()

    def _gather(self, rows: Rows, keys: list[str], now: int) -> _Batch:
        """Copies of the states of different keys: from the slab, the store, or a fresh start."""
        known = rows >= 0
        if self.idle_s is not None:
            known[known] = self._slab.seen[rows[known]] >= now - self._idle_ms()
        if known.all():
            states, last = self._slab.take(rows), self._slab.last[rows]
        else:
            states, last = np.empty(len(keys), self.stepper.record), np.full(len(keys), NEVER)
            states[known] = self._slab.take(rows[known])
            last[known] = self._slab.last[rows[known]]
        batch = _Batch(rows, keys, states, last, np.full(len(keys), -1), {})
        missing = np.flatnonzero(~known).tolist()
        fresh = self._read_missing(batch, missing, now)
        if fresh:
            states[fresh] = self.stepper.start([keys[n] for n in fresh])
        return batch

    def _read_missing(self, batch: _Batch, missing: list[int], now: int) -> list[int]:
        """Fill in what the store has of the missing keys; the places of those it has not."""
        asked = [batch.keys[n] for n in missing if batch.rows[n] < 0]
        if self.store is None or not asked:
            return missing
        found = self.store.read(asked)
        fresh = []
        for n in missing:
            raw = found.get(batch.keys[n])
            record = None if raw is None else self._decode(batch.keys[n], raw)
            if record is None or (self.idle_s is not None and record.seen < now - self._idle_ms()):
                fresh.append(n)
                continue
            batch.states[n], batch.last[n] = record.state[0], record.last
            batch.stored[n] = record.answer
        return fresh

    def _decode(self, key: str, raw: bytes) -> Any:
        assert self.store is not None
        return decode(self.layout, key, raw, self.store.name)

    def _round(
        self,
        batch: _Batch,
        answers: Answers,
        inputs: Any,
        identities: Rows | None,
        chosen: Rows,
        local: Rows,
    ) -> None:
        """One event each of different keys: their places `chosen`, their keys' numbers `local`."""
        last = batch.last[local]
        if identities is None:
            own = np.where(last == NEVER, 0, last + 1)
        else:
            own = identities[chosen]
            taken = own > last
            if not taken.all():
                for place, n, same in zip(
                    chosen[~taken].tolist(),
                    local[~taken].tolist(),
                    (own == last)[~taken].tolist(),
                    strict=True,
                ):
                    self._repeat(batch, answers, place, n, same)
                chosen, local, last, own = chosen[taken], local[taken], last[taken], own[taken]
                if not len(chosen):
                    return
        whole = len(local) == len(batch.keys)  # then they are numbered in order
        states = batch.states if whole else batch.states[local]
        made, refused = self.stepper.step(states, _take(inputs, chosen))
        kept = np.ones(len(chosen), dtype=bool)
        for place, error in refused.items():
            kept[place] = False
            answers.errors[int(chosen[place])] = error
        answers.status[chosen[~kept]] = REFUSED
        if not whole:
            batch.states[local[kept]] = states[kept]
        _put(answers.values, chosen[kept], made, kept)
        chosen, local, last, own = chosen[kept], local[kept], last[kept], own[kept]
        answers.gap[chosen] = np.where(last == NEVER, 0, own - last - 1)
        batch.last[local], batch.answered[local] = own, chosen

    def _repeat(self, batch: _Batch, answers: Answers, place: int, n: int, same: bool) -> None:
        """An event that is not after the last one of its key: its old answer if it is that one."""
        answers.status[place] = DUPLICATE
        if not same:
            return
        before = int(batch.answered[n])
        if before >= 0:
            answers.status[place], answers.repeats[place] = REPEATED, before
            answers.values[place] = answers.values[before]
            return
        if n not in batch.stored and self.store is not None:
            for key, raw in self.store.read([batch.keys[n]]).items():
                batch.stored[n] = self._decode(key, raw).answer
        stored = batch.stored.get(n, b"")
        if stored:
            answers.status[place], answers.repeats[place] = REPEATED, stored
            answers.values[place] = self._decoded(stored)

    def _finish(self, batch: _Batch, answers: Answers, now: int) -> None:
        """Put the states of the keys that took an event where the next step finds them."""
        kept = batch.answered >= 0
        if not kept.all():
            batch.keys = [key for key, is_kept in zip(batch.keys, kept, strict=True) if is_kept]
            batch.states, batch.last = batch.states[kept], batch.last[kept]
            batch.answered, batch.rows = batch.answered[kept], batch.rows[kept]
        new = {n: batch.keys[n] for n in np.flatnonzero(batch.rows < 0).tolist()}
        self._slab.put(batch.rows, new, batch.states, batch.last, now)
        if self.store is not None:
            self._due = batch, now
        elif self._sweep_due(now):
            self._sweep(now)

    def _sweep_due(self, now: int) -> bool:
        return self.idle_s is not None and now - self._swept >= self._idle_ms() / SWEEPS

    def _sweep(self, now: int) -> None:
        self._slab.drop(self._slab.idle(now - self._idle_ms()))
        self._swept = now

    def _spill(self) -> None:
        """Let go of the states used the longest ago; the store has them. A few more than needed."""
        over = 0 if self.max_keys is None else len(self._slab) - self.max_keys
        if over > 0:
            assert self.max_keys is not None
            self._slab.drop(self._slab.oldest(min(over + self.max_keys // 16, len(self._slab))))

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _idle_ms(self) -> int:
        return 0 if self.idle_s is None else int(self.idle_s * 1000)

    def _empty_answers(self, count: int) -> Answers:
        kind = self.stepper.answer
        values: Any = [None] * count
        if kind is not None:
            values = np.zeros((count, *kind.shape), kind.base)
            if kind.base.kind == "f":
                values.fill(np.nan)
        return Answers(values, np.zeros(count, np.uint8), np.zeros(count, np.int64))

    def _encoded(self, answers: Answers) -> list[bytes | None]:
        """The fresh answers as bytes, which `_decoded` reads."""
        fresh = (answers.status == FRESH).tolist()
        if self.stepper.answer is None:
            return [
                json.dumps(finite(value), ensure_ascii=False, default=str).encode()
                if is_fresh
                else None
                for value, is_fresh in zip(answers.values, fresh, strict=True)
            ]
        return [
            value.tobytes() if is_fresh else None
            for value, is_fresh in zip(answers.values, fresh, strict=True)
        ]

    def _decoded(self, stored: bytes) -> Any:
        kind = self.stepper.answer
        if kind is None:
            return json.loads(stored)
        if len(stored) != kind.itemsize:
            return np.full(kind.shape, np.nan, kind.base)
        return np.frombuffer(stored, kind.base).reshape(kind.shape)


def _rounds(local: Rows, first_places: Rows) -> Iterator[Rows]:
    """The places of the first events of all keys, of the second ones, and so on."""
    if len(local) == len(first_places):
        yield first_places
        return
    order = np.argsort(local, kind="stable")
    ranked = local[order]
    first = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
    sizes = np.diff(np.append(first, len(ranked)))
    rank = np.arange(len(ranked)) - np.repeat(first, sizes)
    by_rank = order[np.argsort(rank, kind="stable")]
    yield from np.split(by_rank, np.cumsum(np.bincount(rank))[:-1])


def _take(inputs: Any, chosen: Rows) -> Any:
    if isinstance(inputs, np.ndarray):
        return inputs[chosen]
    return [inputs[n] for n in chosen.tolist()]


def _put(values: Any, chosen: Rows, made: Any, kept: npt.NDArray[np.bool_]) -> None:
    if isinstance(values, np.ndarray):
        values[chosen] = made[kept]
        return
    places = np.flatnonzero(kept).tolist()
    for place, n in zip(chosen.tolist(), places, strict=True):
        values[place] = made[n]


def _check_settings(store: Any, max_keys: Any, idle_s: Any) -> None:
    if max_keys is not None and store is None:
        raise ConfigError(
            f"max_keys={max_keys} needs a store that the other states are kept in: pass "
            "store=SQLiteStore(path)."
        )
    if max_keys is not None and (
        isinstance(max_keys, bool) or not isinstance(max_keys, int) or max_keys < 1
    ):
        raise ConfigError(f"max_keys is {max_keys!r}, but must be an integer of at least 1.")
    if idle_s is not None and (
        isinstance(idle_s, bool) or not isinstance(idle_s, int | float) or not 0 < idle_s < 1e12
    ):
        raise ConfigError(f"idle_s is {idle_s!r}, but must be a number of seconds above 0.")


def _check_batch(keys: list[str], inputs: Any, seq: Any) -> Rows | None:
    """The identities as an array. Raises: ConfigError, ShapeError."""
    if len(inputs) != len(keys):
        raise ShapeError(
            f"there are {len(keys)} keys and {len(inputs)} inputs; expected one input for each key."
        )
    if seq is None:
        return None
    identities = np.asarray(seq)
    if identities.shape != (len(keys),) or identities.dtype.kind not in "iu":
        if not len(keys):
            return np.zeros(0, np.int64)
        raise ShapeError(
            f"seq has shape {identities.shape} and dtype {identities.dtype}; expected "
            f"{len(keys)} whole numbers, one for each key."
        )
    if len(keys) and (identities.min() < -MOST_IDENTITY or identities.max() > MOST_IDENTITY):
        raise ShapeError(
            f"seq holds numbers from {identities.min()} to {identities.max()}; expected numbers "
            f"between -2^62 and 2^62."
        )
    return identities.astype(np.int64)
