"""Latency of a forecaster that goes on from where it stands: python benchmarks/forecast_latency.py

The default design for hourly series (GRU, 128 units, a window of a week, 48 steps ahead), one
thread. Writes docs/results/forecast-latency.json and, from it, docs/results/forecast-latency.md.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recurra import Forecaster
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json
from recurra.tasks.forecasting.stream import ForecastStream

HORIZON, HISTORY, MANY = 48, 24 * 60, 1_000
CALLS = 300
FEW_CALLS = 15
BLOCK = 256
"""Rows of a stream that are timed together: they wait, and are read some at a time."""
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
LIMITS = {"predict, one series": 5_000.0, "update, rows of a stream": 100.0}


def hourly(rows: int, series: int) -> pl.DataFrame:
    """Noisy days of `series` series."""
    start = np.datetime64("2024-01-01T00", "us")
    times = start + np.arange(rows) * np.timedelta64(1, "h")
    rng = np.random.default_rng(0)
    day = 10 + 3 * np.sin(np.arange(rows) * 2 * np.pi / 24)
    frames = [
        pl.DataFrame(
            {"series": [f"s{n}"] * rows, "time": times, "target": day + rng.normal(0, 0.3, rows)}
        )
        for n in range(series)
    ]
    return pl.concat(frames)


def microseconds(run: Callable[[], object], calls: int) -> list[float]:
    took = []
    for _ in range(calls + 3):
        started = time.perf_counter()
        run()
        took.append(1e6 * (time.perf_counter() - started))
    return took[3:]


def trained(frame: pl.DataFrame, **settings: object) -> Forecaster:
    """Two updates of the weights: what they are does not change what a forecast costs."""
    return Forecaster(horizon=HORIZON, steps=2, progress=False, **settings).fit(frame)


def events(frame: pl.DataFrame) -> Iterator[dict]:
    text = frame.with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S"))
    return iter(text.to_dicts())


def pieces(frame: pl.DataFrame, rows: int) -> Iterator[pl.DataFrame]:
    times = frame["time"].unique().sort()
    for start in range(0, len(times) - rows + 1, rows):
        some = times[start : start + rows]
        yield frame.filter(pl.col("time").is_between(some[0], some[-1]))


def take(stream: ForecastStream, rows: Iterator[dict]) -> None:
    for _ in range(BLOCK):
        stream.update(next(rows))


def measure() -> list[dict[str, object]]:
    whole = hourly(HISTORY + 20 * CALLS, 1)
    old, new = whole.head(HISTORY), whole.tail(20 * CALLS)
    one = trained(old)
    read, answered, again = one.stream(), one.stream(), one.stream()
    to_read, to_answer = events(new), events(new)
    rows: list[tuple[str, list[float], int]] = [
        ("predict, one series", microseconds(one.predict, CALLS), 1),
        ("update, rows of a stream", microseconds(lambda: take(read, to_read), FEW_CALLS), BLOCK),
        (
            "push: update and forecast",
            microseconds(lambda: answered.push(next(to_answer)), CALLS),
            1,
        ),
        ("forecast of a stream", microseconds(lambda: again.forecast("s0"), CALLS), 1),
    ]
    five = trained(old, ensemble=5)
    read_five = five.stream()
    to_five = events(new)
    rows += [
        ("predict, one series, ensemble of 5", microseconds(five.predict, CALLS), 1),
        (
            "update, rows of a stream, ensemble of 5",
            microseconds(lambda: take(read_five, to_five), FEW_CALLS),
            BLOCK,
        ),
    ]
    parts = pieces(new, 100)
    rows.append(
        (
            "update, a table of 100 rows",
            microseconds(lambda: one.update(next(parts)), FEW_CALLS),
            100,
        )
    )
    table = hourly(HISTORY // 4 + FEW_CALLS + 3, MANY)
    cut = table["time"].unique().sort()[HISTORY // 4]
    many = trained(table.filter(pl.col("time") < cut), batch_size=4)
    ticks = pieces(table.filter(pl.col("time") >= cut), 1)
    rows += [
        (
            f"update, one row of each of {MANY:,} series",
            microseconds(lambda: many.update(next(ticks)), FEW_CALLS),
            MANY,
        ),
        (f"predict, {MANY:,} series", microseconds(many.predict, FEW_CALLS), MANY),
    ]
    return [
        {
            "what": what,
            "microseconds": statistics.median(took) / each,
            "p90": float(np.quantile(took, 0.9)) / each,
            "per": "row or series" if each > 1 else "call",
            "limit": LIMITS.get(what),
        }
        for what, took, each in rows
    ]


def page(result: dict) -> str:
    lines = [
        "# forecast latency",
        "",
        "A fitted forecaster that goes on from where it stands: the default design for hourly",
        f"series (GRU, 128 units, a window of 168 rows, {HORIZON} steps ahead, 9 quantiles),",
        f"after {HISTORY} rows, one thread. Medians and 90 % quantiles in microseconds; of calls",
        f"that take several rows or series, for each of them. Rows of a stream are timed {BLOCK}",
        "at a time, the reading of those that waited included. An event of a stream is a dict with",
        "a text time.",
        "",
        "| | per | median µs | 90 % µs | aimed at |",
        "|---|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        limit = f"< {row['limit']:,.0f}" if row["limit"] else ""
        lines.append(
            f"| {row['what']} | {row['per']} | {row['microseconds']:,.0f} | {row['p90']:,.0f} | "
            f"{limit} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"- machine: {result['machine']}",
            f"- commit: {result['commit']}",
            "",
            "Run it again:",
            "",
            "```",
            "python benchmarks/forecast_latency.py",
            "```",
            "",
        ]
    )


def main() -> None:
    torch.set_num_threads(1)
    result = {"rows": measure(), "machine": describe_machine(), "commit": describe_commit()}
    write_json(RESULTS / "forecast-latency.json", result)
    write_bytes(RESULTS / "forecast-latency.md", page(json.loads(json.dumps(result))).encode())
    print(page(result))


if __name__ == "__main__":
    main()
