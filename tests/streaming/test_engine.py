"""StreamEngine: a key's answers depend on its own events alone, bit for bit."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra import nn
from recurra.errors import ConfigError, DataError, ShapeError, StoreError
from recurra.kernels import core
from recurra.streaming import MemoryStore, SQLiteStore, StackStepper, StreamEngine
from recurra.streaming.engine import DUPLICATE, FRESH, REFUSED, REPEATED

needs_core = pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")


def model(hidden: int = 8, layers: int = 2) -> nn.Stack:
    torch.manual_seed(0)
    gru = nn.GRU(3, hidden, num_layers=layers, batch_first=True)
    return nn.Stack(gru, nn.Linear(hidden, 2)).eval()


class Summing:
    """A stepper of objects: adds up numbers, refuses negative ones, fails at 1313."""

    record = np.dtype([("total", "<f8"), ("count", "<i8")])
    answer = None

    def __init__(self, model_hash: str = "ab" * 32) -> None:
        self.model_hash = model_hash
        self.batches: list[int] = []

    def start(self, keys: Any) -> Any:
        return np.zeros(len(keys), self.record)

    def step(self, states: Any, inputs: Any) -> Any:
        self.batches.append(len(states))
        if 1313 in inputs:
            raise RuntimeError("thirteen")
        answers, refused = [], {}
        for n, value in enumerate(inputs):
            if value < 0:
                refused[n] = DataError(f"{value} is negative; expected 0 or more.")
                answers.append(None)
                continue
            states["total"][n] += value
            states["count"][n] += 1
            answers.append({"total": float(states["total"][n]), "count": int(states["count"][n])})
        return answers, refused


def totals(answers: Any) -> list[Any]:
    return [value and value["total"] for value in answers.values]


# The law


@needs_core
@torch.no_grad()
def test_answers_have_the_same_bits_in_any_interleaving_pieces_threads_and_restarts(
    tmp_path: Path,
) -> None:
    """10⁵ events of 10³ keys: against whole sequences, and against themselves."""
    keys, events = 1000, 100_000
    rng = np.random.default_rng(0)
    whose = rng.integers(0, keys, events)
    x = rng.standard_normal((events, 3), dtype=np.float32)
    names = [f"key {n}" for n in range(keys)]
    stack = model()

    def run(batch: int, seed: int, threads: int, **more: Any) -> np.ndarray:
        order = np.random.default_rng(seed)
        # Another interleaving, in which each key's events keep their order.
        places = np.empty(events, np.int64)
        mixed = order.permutation(whose)
        places[np.argsort(mixed, kind="stable")] = np.argsort(whose, kind="stable")
        out = np.empty((events, 2), np.float32)
        engine = StreamEngine(StackStepper(stack, threads=threads), **more)
        begin = 0
        while begin < events:
            size = int(order.integers(1, 2 * batch))
            here = places[begin : begin + size]
            out[here] = engine.push([names[n] for n in whose[here]], x[here]).values
            begin += size
        return out

    first = run(1000, 0, 1)
    assert np.array_equal(first, run(4000, 1, 2))
    assert np.array_equal(first, run(300, 2, 1, store=MemoryStore(), max_keys=200))
    for n in (0, 500, 999):
        own = x[whose == n]
        whole, _ = stack(torch.from_numpy(own)[None])
        assert np.array_equal(whole[0].numpy(), first[whose == n])


@needs_core
def test_a_restart_in_between_changes_no_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names = [f"k{n}" for n in rng.integers(0, 40, 1200)]
    x = rng.standard_normal((1200, 3), dtype=np.float32)
    whole = StreamEngine(StackStepper(model())).push(names, x).values
    pieces = []
    for begin in range(0, 1200, 300):
        engine = StreamEngine(StackStepper(model()), SQLiteStore(tmp_path / "s.db"))
        for start in range(begin, begin + 300, 50):
            here = slice(start, start + 50)
            pieces.append(engine.push(names[here], x[here]).values)
        engine.close()
    assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize(
    "kind", [nn.MinGRU, nn.LRU, nn.MLSTM, nn.LSTM, nn.SLSTM], ids=lambda kind: kind.__name__
)
def test_every_kind_of_layer_keeps_the_law(kind: Any) -> None:
    torch.manual_seed(1)
    layer = kind(3, 4, batch_first=True)
    rng = np.random.default_rng(2)
    names = [f"k{n}" for n in rng.integers(0, 9, 60)]
    x = rng.standard_normal((60, 3)).astype(np.float32)
    whole = StreamEngine(StackStepper(layer)).push(names, x).values
    engine = StreamEngine(StackStepper(layer))
    single = [engine.push([name], row[None]).values[0] for name, row in zip(names, x, strict=True)]
    assert np.array_equal(np.stack(single), whole)


# Order, identities, refusals


def test_events_of_one_key_are_steps_in_their_order_and_keys_share_a_batch() -> None:
    stepper = Summing()
    engine = StreamEngine(stepper)
    answers = engine.push(["a", "b", "a", "c", "a", "b"], [1, 10, 2, 100, 4, 20])
    assert totals(answers) == [1, 10, 3, 100, 7, 30]
    assert stepper.batches == [3, 2, 1]
    assert engine.push([], []).values == []


def test_duplicates_are_known_by_their_identity_and_gaps_are_counted() -> None:
    engine = StreamEngine(Summing(), MemoryStore())
    first = engine.push(["a", "a", "b", "a"], [1, 2, 5, 2], [7, 8, -3, 8])
    assert first.status.tolist() == [FRESH, FRESH, FRESH, REPEATED]
    assert totals(first) == [1, 3, 5, 3]
    assert first.repeats == {3: 1}
    again = engine.push(["a", "a", "a", "b"], [9, 9, 4, 9], [8, 7, 12, -3])
    assert again.status.tolist() == [REPEATED, DUPLICATE, FRESH, REPEATED]
    assert totals(again) == [3, None, 7, 5]
    assert again.gap.tolist() == [0, 0, 3, 0]
    assert engine.push(["a"], [1]).values[0]["total"] == 8  # counted on from 12
    assert engine.push(["a"], [1], [13]).status.tolist() == [REPEATED]


def test_without_a_store_no_answer_is_given_again() -> None:
    engine = StreamEngine(Summing())
    engine.push(["a"], [1], [1])
    again = engine.push(["a"], [1], [1])
    assert (again.status.tolist(), totals(again)) == ([DUPLICATE], [None])


def test_arrays_are_answered_again_with_the_same_bits() -> None:
    engine = StreamEngine(StackStepper(model()), MemoryStore())
    x = np.ones((1, 3), np.float32)
    first = engine.push(["a"], x, [5]).values
    again = engine.push(["a", "a"], np.ones((2, 3), np.float32), [5, 4])
    assert np.array_equal(again.values[:1], first)
    assert np.isnan(again.values[1]).all()


def test_a_refused_event_leaves_its_stream_as_it_was() -> None:
    engine = StreamEngine(Summing(), MemoryStore())
    answers = engine.push(["a", "a", "b", "a"], [1, -2, -1, 4], [1, 2, 1, 3])
    assert answers.status.tolist() == [FRESH, REFUSED, REFUSED, FRESH]
    assert totals(answers) == [1, None, None, 5]
    assert str(answers.errors[1]) == "-2 is negative; expected 0 or more."
    assert answers.gap.tolist() == [0, 0, 0, 1]
    assert len(engine) == 1  # b has no state yet
    x = np.array([[1, 2, 3], [1, np.nan, 3], [np.inf, 0, 0]], np.float32)
    nets = StreamEngine(StackStepper(model()))
    clean = StreamEngine(StackStepper(model()))
    made = nets.push(["a", "a", "b"], x)
    assert made.status.tolist() == [FRESH, REFUSED, REFUSED]
    assert str(made.errors[1]) == "the event's number 1 is NaN; expected finite numbers."
    assert "number 0 is inf" in str(made.errors[2])
    clean.push(["a"], x[:1])
    assert np.array_equal(nets.push(["a"], x[:1]).values, clean.push(["a"], x[:1]).values)


def test_a_stepper_that_fails_leaves_all_states_as_they_were() -> None:
    engine = StreamEngine(Summing())
    engine.push(["a"], [1])
    with pytest.raises(RuntimeError, match="thirteen"):
        engine.push(["a", "b", "a"], [1, 1, 1313])
    assert len(engine) == 1
    assert totals(engine.push(["a", "b"], [1, 1])) == [2, 1]


Batches = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.integers(-1, 3), st.integers(0, 9)), max_size=12
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(batches=Batches, kept=st.sampled_from([None, 1, 3]))
def test_the_engine_does_what_one_dict_would_do(batches: Any, kept: int | None) -> None:
    store = MemoryStore()
    total: dict[str, int] = {}
    last: dict[str, int] = {}
    for batch in batches:
        engine = StreamEngine(Summing(), store, max_keys=kept)  # a restart before every batch
        keys, values, seq = ([event[n] for event in batch] for n in range(3))
        answers = engine.push(keys, values, seq)
        for n, (key, value, own) in enumerate(batch):
            before = last.get(key)
            if before is not None and own <= before:
                wanted = (REPEATED, total[key], 0) if own == before else (DUPLICATE, None, 0)
            elif value < 0:
                wanted = (REFUSED, None, 0)
            else:
                gap = 0 if before is None else own - before - 1
                total[key], last[key] = total.get(key, 0) + value, own
                wanted = (FRESH, total[key], gap)
            assert (answers.status[n], totals(answers)[n], answers.gap[n]) == wanted
        assert len(engine) == len(total)


# Bounds


def test_the_longest_unused_states_are_spilled_and_come_back() -> None:
    engine = StreamEngine(Summing(), MemoryStore(), max_keys=4)
    for round_ in range(1, 4):
        for n in range(20):
            answers = engine.push([f"k{n}"], [n])
            assert totals(answers) == [n * round_]
            assert engine.hot <= 4
    assert len(engine) == 20
    batch = engine.push([f"k{n}" for n in range(20)], [0] * 20)  # more keys at once than fit
    assert totals(batch) == [3 * n for n in range(20)]
    assert engine.hot <= 4


def test_idle_streams_are_forgotten_in_memory_and_store_and_begin_anew(tmp_path: Path) -> None:
    now = [1000.0]
    engine = StreamEngine(
        Summing(), SQLiteStore(tmp_path / "s.db"), idle_s=60, max_keys=1, clock=lambda: now[0]
    )
    engine.push(["a", "b", "c"], [1, 2, 3])
    now[0] += 50
    assert totals(engine.push(["a"], [1])) == [2]
    now[0] += 50  # b and c were seen 100 seconds ago
    assert totals(engine.push(["b"], [5], [0])) == [5]
    assert len(engine) == 2
    assert totals(engine.push(["a"], [1])) == [3]
    now[0] += 61
    assert totals(engine.push(["a"], [7])) == [7]
    assert (engine.hot, len(engine)) == (1, 1)


def test_more_new_streams_than_there_are_rows_can_come_at_once() -> None:
    engine = StreamEngine(Summing(), MemoryStore(), idle_s=60, max_keys=10)
    names = [f"k{n}" for n in range(5000)]
    assert totals(engine.push(names, [1] * 5000)) == [1] * 5000
    assert totals(engine.push(names, [2] * 5000)) == [3] * 5000


def test_memory_does_not_grow_with_events() -> None:
    engine = StreamEngine(StackStepper(model()), MemoryStore(), max_keys=50)
    names = [f"k{n}" for n in range(100)]
    x = np.ones((100, 3), np.float32)
    for _ in range(5):
        engine.push(names, x)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(40):
        engine.push(names, x)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000


# What is refused


def test_arguments_that_do_not_fit_are_refused_in_words() -> None:
    engine = StreamEngine(Summing())
    with pytest.raises(ConfigError, match=r"max_keys=5 needs a store"):
        StreamEngine(Summing(), max_keys=5)
    with pytest.raises(ConfigError, match=r"max_keys is 0, but must be"):
        StreamEngine(Summing(), MemoryStore(), max_keys=0)
    with pytest.raises(ConfigError, match=r"idle_s is -1, but must be"):
        StreamEngine(Summing(), idle_s=-1)
    with pytest.raises(ShapeError, match=r"there are 1 keys and 2 inputs"):
        engine.push(["a"], [1, 2])
    with pytest.raises(ConfigError, match=r"the key 3 is a int, but keys are text"):
        engine.push(["a", 3], [1, 2])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="half a surrogate pair"):
        engine.push(["\ud800"], [1])
    with pytest.raises(ShapeError, match=r"seq has shape \(1,\).*expected 2 whole numbers"):
        engine.push(["a", "b"], [1, 2], [1])
    with pytest.raises(ShapeError, match=r"dtype float64; expected 1 whole"):
        engine.push(["a"], [1], [1.5])
    with pytest.raises(ShapeError, match=r"expected numbers between -2\^62 and 2\^62"):
        engine.push(["a"], [1], [2**63 - 1])
    with pytest.raises(ShapeError, match=r"have shape \(1, 2\).*shape \(1, 3\)"):
        StreamEngine(StackStepper(model())).push(["a"], np.zeros((1, 2)))
    with pytest.raises(ConfigError, match="bidirectional and cannot stream"):
        StackStepper(nn.GRU(3, 4, bidirectional=True))
    with pytest.raises(ConfigError, match=r"torch\.bfloat16 on cpu, but must be float32"):
        StackStepper(nn.GRU(3, 4, dtype=torch.bfloat16))


def test_a_step_waits_for_the_commit_and_a_failed_commit_is_tried_again() -> None:
    class Full(MemoryStore):
        full = True

        def commit(self, *arguments: Any) -> None:
            if self.full:
                raise StoreError("no space")
            super().commit(*arguments)

    store = Full()
    engine = StreamEngine(Summing(), store)
    with pytest.raises(StoreError, match="no space"):
        engine.push(["a"], [1])
    with pytest.raises(StoreError, match="not committed yet"):
        engine.step(["a"], [1])
    assert len(store) == 0
    store.full = False
    engine.commit()
    assert totals(engine.push(["a"], [1])) == [2]
    assert len(store) == 1
