"""Designs of a forecaster beside the default: python benchmarks/forecast_designs.py

    python benchmarks/forecast_designs.py
    python benchmarks/forecast_designs.py --only m3-monthly/autoregressive

Each design is the default one but for what its name says, with the mean of a season as level: the
default before this table was made, which has the last value for data finer than a day since. All
have the same number of updates and three seeds, and forecast rows that follow those they learned
from. The test parts of the two
competitions are not read: the last rows of their training parts are forecast. Every data set,
design and seed leaves one file in docs/results/forecast-designs/, and is not run again while it is
there; docs/results/forecast-designs.md is assembled from them. Data: `recurra data list`,
RECURRA_DATA.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from recurra import Forecaster
from recurra.data.catalogue import locate
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json
from recurra.tasks.forecasting.competition import long_frame, read_period, read_wide
from recurra.tasks.forecasting.evaluation import OURS

STEPS, SEEDS = 300, (0, 1, 2)
METRICS = ("mase", "wql", "coverage_80")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Data:
    """A long table, how it is read and forecast, and how many windows of its end are scored.

    segment   rows in a segment of model="segments"
    """

    about: str
    table: Callable[[], pl.DataFrame]
    columns: dict[str, Any]
    windows: int
    settings: dict[str, Any]
    segment: int


def read_xz(path: Path, **options: Any) -> pl.DataFrame:
    return pl.read_csv(io.BytesIO(lzma.decompress(path.read_bytes())), **options)


def m4_hourly() -> pl.DataFrame:
    return long_frame(read_wide(locate("m4-hourly") / "Hourly-train.csv.xz"))


def m3_monthly() -> pl.DataFrame:
    folder = locate("m3")
    series = read_wide(folder / "M3-train.csv.xz")
    names = read_period(folder / "M3-info.csv.xz", "MONTHLY")
    return long_frame({name: series[name] for name in names})


def electricity() -> pl.DataFrame:
    frame = read_xz(locate("electricity-pjm") / "pjm_est_hourly.csv.xz", try_parse_dates=True)
    frame = frame.filter(pl.col("Datetime").dt.year().is_between(2015, 2017)).sort("Datetime")
    return frame.unique("Datetime", keep="first", maintain_order=True)  # clocks go back in autumn


def weather() -> pl.DataFrame:
    names = ("pressure", "temperature", "potential", "dew_point", "humidity")
    path = locate("weather-jena") / "jena_weather_2020_values.csv.xz"
    frame = read_xz(path, has_header=False)
    frame = frame.select(pl.col(frame.columns[k]).alias(name) for k, name in enumerate(names))
    hour = pl.datetime(2020, 1, 1) + pl.duration(hours=pl.int_range(pl.len()))
    return frame.gather_every(6).with_columns(time=hour)


DATA = {
    "m4-hourly": Data(
        "414 hourly series, the last 48 hours of their training part",
        m4_hourly,
        {"time": "time", "target": "target", "series": "series"},
        1,
        {"horizon": 48, "season": 24, "context": 168, "stride": 24, "level": 24},
        24,
    ),
    "m3-monthly": Data(
        "1,428 monthly series, the last 18 months of their training part",
        m3_monthly,
        {"time": "time", "target": "target", "series": "series"},
        1,
        {"horizon": 18, "season": 12},
        6,
    ),
    "electricity": Data(
        "load of two regions by the hour, 2015 to 2017, the last 40 times 48 hours",
        electricity,
        {"time": "Datetime", "target": ["PJME", "PJMW"]},
        40,
        {"horizon": 48, "level": 24},
        24,
    ),
    "weather": Data(
        "pressure, temperature and humidity by the hour, 2020, the last 40 times 48 hours",
        weather,
        {"time": "time", "target": ["pressure", "temperature", "humidity"]},
        40,
        {"horizon": 48, "level": 24},
        24,
    ),
}
DESIGNS: dict[str, dict[str, Any]] = {
    "base": {},
    "cell=lstm": {"cell": "lstm"},
    "cell=rnn": {"cell": "rnn"},
    "a loss at one state": {"sequence_length": 1},
    "logarithm=False": {"logarithm": False},
    "level=1": {"level": 1},
    "profile=4": {"profile": 4},
    "smoothing": {"smoothing": True},
    "segments": {"model": "segments"},
    "autoregressive": {"model": "autoregressive"},
    "ensemble=3": {"ensemble": 3},
}


def settings_of(data: Data, design: str, seed: int) -> dict[str, Any]:
    given = {**data.settings, **DESIGNS[design], "seed": seed}
    if "model" in DESIGNS[design]:
        given.pop("stride", None)
        given.pop("level", None)
    if DESIGNS[design].get("model") == "segments":
        given["segment"] = data.segment
    return {**given, "steps": STEPS, "training": {"schedule": "cosine"}}


def measure(data: Data, design: str, seed: int) -> dict[str, Any]:
    """Scores and processor time of one design, and the scores of the baselines."""
    torch.set_num_threads(1)
    forecaster = Forecaster(**settings_of(data, design, seed), progress=False)
    table = data.table()
    started = time.process_time()
    forecaster.fit(known(table, data), **data.columns)
    took = time.process_time() - started
    found = forecaster.evaluate(table, windows=data.windows)
    rows = {row["model"]: row["metrics"] for row in found.results()}
    return {"cpu_s": took, "models": {name: pick(metrics) for name, metrics in rows.items()}}


def known(table: pl.DataFrame, data: Data) -> pl.DataFrame:
    """The rows of each series before those that are forecast."""
    ahead, series = data.windows * data.settings["horizon"], data.columns.get("series")
    place, count = pl.int_range(pl.len()), pl.len()
    if series is not None:
        place, count = place.over(series), count.over(series)
    return table.filter(place < count - ahead)


def pick(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in METRICS if name in metrics}


def outcomes(folder: Path, name: str, design: str) -> list[dict[str, Any]]:
    paths = (folder / file_name(name, design, seed) for seed in SEEDS)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def file_name(name: str, design: str, seed: int) -> str:
    return f"{name}-{design.replace('=', '-').replace(', ', '-').replace(' ', '-')}-{seed}.json"


def cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread}"


def table(folder: Path, name: str) -> Iterator[str]:
    yield f"| model | {' | '.join(METRICS)} | processor s |"
    yield f"|---|{'---:|' * (len(METRICS) + 1)}"
    first: dict[str, Any] = {}
    for design in DESIGNS:
        found = outcomes(folder, name, design)
        if not found:
            continue
        first = first or found[0]["models"]
        ours = [one["models"][OURS] for one in found]
        cells = [cell([one[metric] for one in ours]) for metric in METRICS]
        seconds = statistics.fmean(one["cpu_s"] for one in found)
        yield f"| {design} | {' | '.join(cells)} | {seconds:.0f} |"
    for model, metrics in first.items():
        if model != OURS:
            cells = [f"{metrics[m]:.4g}" if m in metrics else "-" for m in METRICS]
            yield f"| {model} | {' | '.join(cells)} | - |"


def page(folder: Path) -> str:
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    lines = [
        "# forecast-designs",
        "",
        "What the default of `Forecaster` is made of, and what else it offers: each row differs",
        f"from the first by what it says; {STEPS} updates, seeds {', '.join(map(str, SEEDS))}",
        "(mean ± standard deviation), the best weights by the last 15 % of the rows before, one",
        "thread. All forecast rows follow those; no test part of a competition is read.",
        "MASE and the weighted quantile loss (wql) are better when lower, coverage_80 near 0.8.",
        "The baselines are not random. Electricity and weather had not been used when the default",
        "was designed. Weather showed that it got no better than its seasonal naive start there,",
        "with the mean of the last day as the level of each window. Over these three hourly data",
        "sets level=1 has 0.92 times the MASE and the wql of the first row (geometric means), and",
        "is the default for data finer than a day since. That was chosen by these tables.",
        "",
    ]
    for name, data in DATA.items():
        lines += [f"## {name}", "", f"{data.about}.", "", *table(folder, name), ""]
    for word in ("machine", "commit"):
        lines.append(f"- {word}: {'; '.join(dict.fromkeys(one[word] for one in found))}")
    command = "python benchmarks/forecast_designs.py"
    return "\n".join([*lines, "", "Run it again:", "", "```", command, "```", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="DATA/DESIGN, such as m3-monthly/autoregressive")
    only = parser.parse_args().only
    folder = RESULTS / "forecast-designs"
    for seed in SEEDS:
        for design in DESIGNS:
            for name, data in DATA.items():
                path = folder / file_name(name, design, seed)
                if path.exists() or only not in (None, f"{name}/{design}"):
                    continue
                told = measure(data, design, seed)
                about = {"machine": describe_machine(), "commit": describe_commit()}
                named = {"data": name, "design": design, "seed": seed}
                write_json(path, {**named, **told, **about})
                print(name, design, seed, told["models"][OURS], round(told["cpu_s"]), flush=True)
    write_bytes(RESULTS / "forecast-designs.md", page(folder).encode())


if __name__ == "__main__":
    main()
