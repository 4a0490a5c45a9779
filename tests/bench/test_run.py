"""The whole run with participants that compute nothing: who is asked what, and the outcome."""

from __future__ import annotations

import json

import pytest
from tests.bench.fakes import FakeWorker

from recurra.bench.cases import Case, make_cases
from recurra.bench.participants import PARTICIPANTS, Participant
from recurra.bench.protocol import Settings
from recurra.bench.run import run
from recurra.runs import finite

SECONDS = {"product": 0.02, "recurra": 0.1, "torch": 0.3}
QUICK = Settings(rounds=2, visit_s=0.0, pause_s=0.0)


def test_the_outcome_holds_every_case_and_every_process_is_ended() -> None:
    started: list[tuple[FakeWorker, int]] = []
    said: list[str] = []

    def start(participant: Participant, threads: int) -> FakeWorker:
        worker = FakeWorker(participant.name, [], [SECONDS[participant.name]])
        started.append((worker, threads))
        return worker

    shape = (2, 3, 4, 5, 1)
    cases = [*make_cases(["train"], ["gru"], [shape], [1, 2]), Case("memory", "gru", shape, 2)]
    outcome = run(
        cases,
        [PARTICIPANTS["recurra"], PARTICIPANTS["torch"]],
        {"jax": "pip install jax"},
        QUICK,
        command="recurra bench",
        say=said.append,
        start=start,
    )
    rows = [(r["mode"], r["threads"], r["participant"]) for r in outcome["rows"]]
    assert rows == [
        ("train", 1, "recurra"),
        ("train", 1, "torch"),
        ("train", 2, "recurra"),
        ("train", 2, "torch"),
        ("memory", 2, "recurra"),
        ("memory", 2, "torch"),
    ]
    assert outcome["rows"][0]["ratio_median"] == pytest.approx(3.0)
    assert outcome["summary"][0]["ratio_median"] == pytest.approx(3.0)
    assert outcome["product_gflops"] == {"1": 107.4, "2": 107.4}
    assert outcome["disturbed"]["rounds"] == 4
    assert outcome["absent"] == {"jax": "pip install jax"}
    assert outcome["settings"]["rounds"] == 2
    assert json.dumps(finite(outcome), allow_nan=False)
    names = [(worker.name, threads) for worker, threads in started]
    timed = ("product", "recurra", "torch")
    assert [one for one in names if one[1] == 1] == [(name, 1) for name in timed]
    assert len([one for one in names if one == ("recurra", 2)]) == 1 + 2  # memory: one each process
    assert all(worker.closed for worker, _ in started)
    assert "[1/1] train gru 2,3,4,5,1, 1 thread: recurra 100 ms, torch 300 ms" in said


def test_processes_are_ended_when_the_run_is_interrupted() -> None:
    started: list[FakeWorker] = []

    class Interrupted(FakeWorker):
        def ask(self, **request: object) -> dict[str, object]:
            raise KeyboardInterrupt

    def start(participant: Participant, threads: int) -> FakeWorker:
        started.append(Interrupted(participant.name, []))
        return started[-1]

    with pytest.raises(KeyboardInterrupt):
        run(
            make_cases(["train"], ["gru"], [(2, 3, 4, 5, 1)], [1]),
            [PARTICIPANTS["torch"]],
            {},
            QUICK,
            command="",
            say=print,
            start=start,
        )
    assert [worker.closed for worker in started] == [True, True]


def test_failures_are_in_the_outcome() -> None:
    def start(participant: Participant, threads: int) -> FakeWorker:
        why = {"failed": "RuntimeError: no such operator"}
        is_torch = participant.name == "torch"
        return FakeWorker(
            participant.name,
            [],
            prepare=why if is_torch else None,
            memory=why if is_torch else None,
        )

    shape = (2, 3, 4, 5, 1)
    outcome = run(
        [Case("train", "gru", shape, 1), Case("memory", "rnn", shape, 1)],
        [PARTICIPANTS["recurra"], PARTICIPANTS["torch"]],
        {},
        QUICK,
        command="",
        say=lambda line: None,
        start=start,
    )
    assert [(one["case"], one["participant"], one["why"]) for one in outcome["failed"]] == [
        ("memory rnn 2,3,4,5,1, 1 thread", "torch", "RuntimeError: no such operator"),
        ("train gru 2,3,4,5,1, 1 thread", "torch", "RuntimeError: no such operator"),
    ]
    assert [row["participant"] for row in outcome["rows"]] == ["recurra", "recurra"]
