"""What was measured, as figures: rows for every case, and geometric means over the shapes.

A row of train, infer and step, one for each participant:

    median_ms, min_ms       median over rounds of the visits' medians; smallest single call
    p99_ms                  median over rounds of the visits' 99th percentiles
    ratio_median, ratio_min time of the reference ÷ this time: above 1 is faster than torch
    product_percent         GFLOP/s of min_ms in % of the case's best matrix product (not for step)
    output_error, gradient_error   see `inputs.largest_errors`
    rounds, kept, calls     rounds measured, rounds that count, calls timed in these
    cpus                    CPUs that the process kept busy: more than `threads` would be unfair

A ragged row also has padded_ms, and of_padded = ragged ÷ padded time, of medians and of minima.
A memory row has mib, and of_torch = mib ÷ torch's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recurra.bench.cases import Case
from recurra.bench.participants import PRODUCT, reference
from recurra.bench.protocol import Measured, Times, steady
from recurra.bench.rivals.product import GFLOP

Row = dict[str, Any]


def make_rows(measured: Measured, best_product_s: float) -> list[Row]:
    """The rows of one case; `best_product_s` is the best of all cases with as many threads.

    Rounds that were disturbed are left out. Without one that was not, all count: `kept` is 0.
    """
    case = measured.case
    good = steady(measured, best_product_s)
    rounds = [r for r, is_good in zip(measured.rounds, good, strict=True) if is_good]
    kept = len(rounds)
    rounds = rounds or measured.rounds
    times = {
        name: _times([visits[name] for visits in rounds if name in visits])
        for name in measured.errors
        if any(name in visits for visits in rounds)
    }
    product = times.pop(PRODUCT.name, None)
    base = times.get(reference(case.mode))
    rows = []
    for name, found in times.items():
        row = {
            **_head(case),
            "participant": name,
            "rounds": len(measured.rounds),
            "kept": kept,
            "runs_on": measured.runs_on[name] or None,
            **found,
            "ratio_median": base["median_ms"] / found["median_ms"] if base else None,
            "ratio_min": base["min_ms"] / found["min_ms"] if base else None,
            "output_error": measured.errors[name].get("output"),
            "gradient_error": measured.errors[name].get("gradient"),
        }
        if case.mode in ("train", "infer") and product:
            speed = case.gflop / found["min_ms"]
            row["product_percent"] = 100 * speed / (GFLOP / product["min_ms"])
        rows.append(row)
    return rows


def _head(case: Case) -> Row:
    return {
        "mode": case.mode,
        "cell": case.cell,
        "shape": list(case.shape),
        "threads": case.threads,
        "gflop": round(case.gflop, 6),
    }


def _times(visits: Sequence[Times]) -> Row:
    """Milliseconds of one participant over its rounds."""
    calls = {
        name: (
            1e3 * statistics.median(visit[name]["median"] for visit in visits),
            1e3 * min(visit[name]["low"] for visit in visits),
        )
        for name in visits[0]
    }
    first = next(iter(calls))
    median, low = calls[first]
    found = {
        "median_ms": median,
        "min_ms": low,
        "p99_ms": 1e3 * statistics.median(visit[first]["p99"] for visit in visits),
        "calls": sum(visit[first]["calls"] for visit in visits),
        "cpus": round(statistics.median(visit[first]["cpus"] for visit in visits), 2),
    }
    if "padded" in calls:
        found["padded_ms"] = calls["padded"][0]
        found["of_padded_median"] = median / calls["padded"][0]
        found["of_padded_min"] = low / calls["padded"][1]
    return found


def memory_rows(case: Case, found: Mapping[str, Sequence[int]]) -> list[Row]:
    """One row for each participant's peaks, in bytes, of several fresh processes."""
    mib = {name: statistics.median(peaks) / 2**20 for name, peaks in found.items()}
    return [
        {
            **_head(case),
            "participant": name,
            "processes": len(found[name]),
            "mib": value,
            "of_torch": value / mib["torch"] if mib.get("torch") else None,
        }
        for name, value in mib.items()
    ]


def summarise(rows: Iterable[Row]) -> list[Row]:
    """Geometric means over the shapes of each mode, cell, number of threads and participant.

    Of the ratios to the reference and, as `tuned_...`, to torch with the malloc setting where that
    took part; with the lowest ratio, be it of medians or of minima, and the largest errors. Only
    shapes that the participant ran count: `shapes` says how many.
    """
    rows = list(rows)
    tuned = {_key(row): row for row in rows if row["participant"] == "torch-tuned"}
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["mode"], row["cell"], row["threads"], row["participant"])
        groups.setdefault(key, []).append(row)
    summary = []
    for (mode, cell, threads, participant), group in groups.items():
        found: Row = {
            "mode": mode,
            "cell": cell,
            "threads": threads,
            "participant": participant,
            "shapes": len(group),
        }
        for name in ("ratio_median", "ratio_min", "product_percent", "of_padded_median"):
            found[name] = mean_of(row.get(name) for row in group)
        found["of_torch"] = mean_of(row.get("of_torch") for row in group)
        found["lowest_ratio"] = _of(
            min, (row.get(name) for row in group for name in ("ratio_median", "ratio_min"))
        )
        if mode != "memory":
            pairs = [(tuned[_key(row)], row) for row in group if _key(row) in tuned]
            every: list[float] = []
            for kind in ("median", "min"):
                ratios = [other[f"{kind}_ms"] / row[f"{kind}_ms"] for other, row in pairs]
                found[f"tuned_ratio_{kind}"] = mean_of(ratios)
                every += ratios
            found["tuned_lowest_ratio"] = _of(min, every)
        for name in ("output_error", "gradient_error"):
            found[name] = _of(max, (row.get(name) for row in group))
        summary.append({name: value for name, value in found.items() if value is not None})
    return summary


def _key(row: Row) -> tuple[Any, ...]:
    return (row["mode"], row["cell"], row["threads"], *row["shape"])


def mean_of(values: Iterable[float | None]) -> float | None:
    """Geometric mean of those that are there, None without any.

    >>> mean_of([1.0, 4.0, None])
    2.0
    """
    logs = [math.log(value) for value in values if value]
    return math.exp(statistics.fmean(logs)) if logs else None


def _of(choose: Any, values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return choose(there) if there else None
