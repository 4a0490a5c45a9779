"""The order of visits and the rounds that count, with participants that time nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.bench.fakes import FakeWorker

from recurra.bench.cases import Case
from recurra.bench.protocol import Measured, Settings, measure, read_pressure, steady

CASE = Case("train", "gru", (2, 3, 4, 5, 1), 1)


def go(
    workers: list[FakeWorker], rounds: int = 3, best: float = float("inf")
) -> tuple[Measured, list[float]]:
    slept: list[float] = []
    measured = measure(
        CASE,
        Path("case.safetensors"),
        {worker.name: worker for worker in workers},
        Settings(rounds=rounds),
        best,
        slept.append,
    )
    return measured, slept


def test_every_other_round_goes_backwards_with_a_pause_before_each_visit() -> None:
    log: list[str] = []
    workers = [FakeWorker(name, log) for name in ("product", "torch", "recurra")]
    _, slept = go(workers)
    assert log == [
        *("product", "torch", "recurra"),
        *("recurra", "torch", "product"),
        *("product", "torch", "recurra"),
    ]
    assert slept == [0.03] * 9
    assert [worker.directions for worker in workers] == [[False, True, False]] * 3


def test_a_disturbed_round_is_made_up_for() -> None:
    log: list[str] = []
    product = FakeWorker("product", log, [1.0, 1.3, 1.24, 1.0])
    measured, _ = go([product, FakeWorker("torch", log)])
    assert measured.product_s() == [1.0, 1.3, 1.24, 1.0]
    assert steady(measured, 1.0) == [True, False, True, True]


def test_the_best_of_cases_before_counts_too() -> None:
    log: list[str] = []
    measured, _ = go([FakeWorker("product", log, [1.0])], best=0.5)
    assert len(measured.rounds) == 6  # as many extra ones as were asked for, and no more
    assert steady(measured, 0.5) == [False] * 6


def test_a_better_product_later_discards_the_rounds_before_it() -> None:
    measured, _ = go([FakeWorker("product", [], [2.0, 1.0])])
    assert steady(measured, 1.0) == [False, True, True, True]


def test_a_participant_that_cannot_is_named_and_not_visited() -> None:
    log: list[str] = []
    refusing = FakeWorker("jax", log, prepare={"failed": "ImportError: no jaxlib"})
    measured, _ = go([FakeWorker("product", log), refusing])
    assert measured.failed == {"jax": "ImportError: no jaxlib"}
    assert "jax" not in log


def test_a_participant_that_dies_is_not_visited_again() -> None:
    log: list[str] = []

    class Dying(FakeWorker):
        def ask(self, **request: object) -> dict[str, object]:
            reply = super().ask(**request)
            return {"failed": "killed"} if self.log.count(self.name) == 2 else reply

    measured, _ = go([FakeWorker("product", log), Dying("jax", log)])
    assert measured.failed == {"jax": "killed"}
    assert log.count("jax") == 2
    assert ["jax" in visits for visits in measured.rounds] == [True, False, False]


def test_pressure_is_read_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "cpu"
    path.write_text("some avg10=0.52 avg60=0.46 total=2500000\nfull avg10=0.00 total=0\n")
    assert read_pressure(path) == pytest.approx(2.5)
    assert read_pressure(tmp_path / "absent") is None
