"""The order of visits, and which rounds count.

All workers are started first, and only one is active at a time. A round visits every participant
once, the matrix product among them; every other round goes backwards, the ragged and the padded
calls of one visit too, so nobody always comes after the same neighbour. A round in which the
product runs below 80 % of its best is a round in which something else was running: it is discarded,
and made up for while there are extra rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recurra.bench.cases import Case
from recurra.bench.participants import PRODUCT
from recurra.bench.process import Worker

STEADY = 0.8
PRESSURE = Path("/proc/pressure/cpu")


@dataclass(frozen=True)
class Settings:
    """How often and how long: rounds, seconds of a visit, warm-ups, pause between two visits."""

    rounds: int = 5
    visit_s: float = 0.1
    warmups: int = 3
    pause_s: float = 0.03


Times = dict[str, dict[str, Any]]
"""Of one visit: {"run": {"median", "low", "p99", "calls", "cpus"}}."""


@dataclass
class Measured:
    """Everything measured of one case.

    rounds      for each round {participant: its visit}
    errors      {participant: {"output": ..., "gradient": ...}}
    failed      {participant: why}
    runs_on     {participant: what it says runs it}
    waited      share of the time in which some process of the machine waited for a CPU, or None
    """

    case: Case
    rounds: list[dict[str, Times]] = field(default_factory=list)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    runs_on: dict[str, str] = field(default_factory=dict)
    waited: float | None = None

    def product_s(self) -> list[float]:
        """Seconds of the matrix product in each round, infinite where there is none."""
        return [
            visits[PRODUCT.name]["run"]["median"] if PRODUCT.name in visits else float("inf")
            for visits in self.rounds
        ]


def measure(
    case: Case,
    file: Path,
    workers: Mapping[str, Worker],
    settings: Settings,
    best_product_s: float = float("inf"),
    sleep: Callable[[float], None] = time.sleep,
) -> Measured:
    """Prepare the case everywhere, then go round; at most as many extra rounds as asked for.

    `best_product_s` is the product's best time so far with this number of threads.
    """
    measured = Measured(case)
    for name, worker in workers.items():
        reply = worker.ask(do="prepare", case=asdict(case), file=str(file))
        if "failed" in reply:
            measured.failed[name] = reply["failed"]
            continue
        measured.errors[name] = reply["errors"]
        measured.runs_on[name] = reply["runs_on"]
    waited, begun = read_pressure(), time.monotonic()
    for number in range(2 * settings.rounds):
        best = min([best_product_s, *measured.product_s()])
        if sum(steady(measured, best)) >= settings.rounds:
            break
        order = [name for name in workers if name not in measured.failed]
        visits = {}
        backwards = number % 2 == 1
        for name in reversed(order) if backwards else order:
            sleep(settings.pause_s)  # thread pools of the one before stop spinning
            reply = workers[name].ask(
                do="visit",
                seconds=settings.visit_s,
                warmups=settings.warmups,
                backwards=backwards,
            )
            if "failed" in reply:
                measured.failed[name] = reply["failed"]
            else:
                visits[name] = reply
        measured.rounds.append(visits)
    if waited is not None and (after := read_pressure()) is not None:
        measured.waited = (after - waited) / (time.monotonic() - begun)
    return measured


def steady(measured: Measured, best_product_s: float) -> list[bool]:
    """For each round, whether the matrix product reached 80 % of its best."""
    return [STEADY * seconds <= best_product_s for seconds in measured.product_s()]


def read_pressure(path: Path = PRESSURE) -> float | None:
    """Seconds since start-up in which some process waited for a CPU; None where nobody counts."""
    try:
        words = path.read_text().split()
    except OSError:
        return None
    totals = [word.removeprefix("total=") for word in words if word.startswith("total=")]
    return int(totals[0]) / 1e6 if totals else None
