"""The whole benchmark: workers, cases, rounds, and the outcome as one JSON value.

    {"task": "bench", "command", "seconds", "machine", "commit", "versions": {package: version},
     "settings": {"rounds", "visit_s", "warmups", "pause_s"}, "absent": {rival: how to install it},
     "failed": [{"case", "participant", "why"}], "product_gflops": {threads: best}, "disturbed":
     {"rounds", "discarded", "waited"}, "summary": [...], "rows": [...]}

`rows` and `summary` are those of `recurra.bench.figures`.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from recurra.bench.cases import Case
from recurra.bench.figures import Row, make_rows, memory_rows, summarise
from recurra.bench.participants import PRODUCT, Participant, version
from recurra.bench.process import Worker, WorkerProcess
from recurra.bench.protocol import Measured, Settings, measure, steady
from recurra.bench.rivals.product import GFLOP
from recurra.bench.truth import write_case
from recurra.report.results import describe_commit, describe_machine

MEMORY_PROCESSES = 3
Say = Callable[[str], None]
Start = Callable[[Participant, int], Worker]


def run(
    cases: Sequence[Case],
    participants: Sequence[Participant],
    absent: Mapping[str, str],
    settings: Settings,
    *,
    command: str,
    say: Say,
    start: Start = WorkerProcess,
) -> dict[str, Any]:
    """Measure every case with every participant that has its mode; `say` gets the progress."""
    begun = time.monotonic()
    found: list[Measured] = []
    memory: list[Row] = []
    failed: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="recurra-bench-") as folder:
        place = Path(folder)
        processes = min(MEMORY_PROCESSES, settings.rounds)
        for threads, group in groupby(cases, lambda case: case.threads):
            timed = []
            for case in group:
                if case.mode == "memory":
                    memory += _memory(case, participants, place, processes, failed, say, start)
                else:
                    timed.append(case)
            if timed:
                with _workers([PRODUCT, *participants], threads, start) as workers:
                    found += _measure_all(timed, participants, workers, place, settings, say)
    best = _best_products(found)
    rows = [row for one in found for row in make_rows(one, best[one.case.threads])]
    rows += memory
    failed += [
        {"case": str(one.case), "participant": name, "why": why}
        for one in found
        for name, why in one.failed.items()
    ]
    packages = {package for one in participants for package in one.packages}
    return {
        "task": "bench",
        "command": command,
        "seconds": round(time.monotonic() - begun, 1),
        "machine": describe_machine(),
        "commit": describe_commit(),
        "versions": {package: version(package) for package in sorted(packages)},
        "settings": asdict(settings),
        "absent": dict(absent),
        "failed": failed,
        "product_gflops": {
            str(threads): round(GFLOP / seconds, 1) for threads, seconds in best.items()
        },
        "disturbed": _disturbed(found, best),
        "summary": summarise(rows),
        "rows": rows,
    }


@contextlib.contextmanager
def _workers(
    participants: Sequence[Participant], threads: int, start: Start
) -> Iterator[dict[str, Worker]]:
    """All workers, running; ended however the run ends."""
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for participant in participants:
            worker = start(participant, threads)
            stack.callback(worker.close)
            workers[participant.name] = worker
        yield workers


def _measure_all(
    cases: Sequence[Case],
    participants: Sequence[Participant],
    workers: Mapping[str, Worker],
    folder: Path,
    settings: Settings,
    say: Say,
) -> list[Measured]:
    modes = {one.name: one.modes for one in [PRODUCT, *participants]}
    found: list[Measured] = []
    best = float("inf")
    for number, case in enumerate(cases, start=1):
        taking_part = {name: one for name, one in workers.items() if case.mode in modes[name]}
        one = measure(case, write_case(case, folder), taking_part, settings, best)
        best = min([best, *one.product_s()])
        found.append(one)
        say(f"[{number}/{len(cases)}] {case}: {_progress(one, best)}")
    return found


def _progress(measured: Measured, best_product_s: float) -> str:
    rows = make_rows(measured, best_product_s)
    parts = [f"{row['participant']} {row['median_ms']:.3g} ms" for row in rows]
    return ", ".join([*parts, *(f"{name} failed: {why}" for name, why in measured.failed.items())])


def _disturbed(found: Sequence[Measured], best: Mapping[int, float]) -> dict[str, Any]:
    """Rounds there were, rounds that do not count, and the most that was waited for a CPU."""
    waited = [one.waited for one in found if one.waited is not None]
    return {
        "rounds": sum(len(one.rounds) for one in found),
        "discarded": sum(steady(one, best[one.case.threads]).count(False) for one in found),
        "waited": max(waited, default=None),
    }


def _best_products(found: Sequence[Measured]) -> dict[int, float]:
    """Seconds of the best matrix product with each number of threads."""
    best: dict[int, float] = {}
    for one in found:
        best[one.case.threads] = min([best.get(one.case.threads, float("inf")), *one.product_s()])
    return best


def _memory(
    case: Case,
    participants: Sequence[Participant],
    folder: Path,
    processes: int,
    failed: list[dict[str, str]],
    say: Say,
    start: Start,
) -> list[Row]:
    """One training step of each participant in fresh processes."""
    file = write_case(case, folder)
    found: dict[str, list[int]] = {}
    for participant in participants:
        if case.mode not in participant.modes:
            continue
        for _ in range(processes):
            with contextlib.closing(start(participant, case.threads)) as worker:
                reply = worker.ask(do="memory", case=asdict(case), file=str(file))
            if "failed" in reply:
                failed.append(
                    {"case": str(case), "participant": participant.name, "why": reply["failed"]}
                )
                break
            found.setdefault(participant.name, []).append(reply["bytes"])
    rows = memory_rows(case, found)
    say(f"{case}: " + ", ".join(f"{row['participant']} {row['mib']:.1f} MiB" for row in rows))
    return rows
