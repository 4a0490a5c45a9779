"""Measured results: the one form they have everywhere, and the tables made of them.

    {"task", "data", "results": [{"model", "source", "metrics"}], "seconds", "machine", "commit"}

A metric is a number, or {"mean", "sd", "n"}. An outcome over several targets may hold one list of
results for each of them under `targets`.

`evaluate` and `reproduce` print this. Benchmarks keep it in docs/results/NAME/seed-K.json, one file
for each seed, and docs/results/NAME.md is assembled from those files and from nothing else.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recurra import __version__
from recurra.errors import DataError
from recurra.runs import read_json, write_bytes, write_json

KEYS = ("task", "data", "results", "seconds", "machine", "commit")


def make_result(model: str, metrics: Mapping[str, Any], source: str = "measured") -> dict[str, Any]:
    """One row of an outcome; `source` is "measured" or "published"."""
    return {"model": model, "source": source, "metrics": dict(metrics)}


def make_outcome(
    task: str, data: str, results: Iterable[Mapping[str, Any]], seconds: float
) -> dict[str, Any]:
    """The whole outcome, with this machine and this version of the code filled in."""
    return {
        "task": task,
        "data": data,
        "results": [dict(row) for row in results],
        "seconds": round(seconds, 3),
        "machine": describe_machine(),
        "commit": describe_commit(),
    }


def describe_machine() -> str:
    """The processor, the CPUs this process may use, and the GPU if torch sees one."""
    import torch

    cpus = allowed_cpus()
    parts = [f"{_processor()}, {cpus} CPU{'s' if cpus != 1 else ''}"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"torch {torch.__version__}"])


def allowed_cpus() -> int:
    """CPUs that this process may run on; containers and `taskset` narrow them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def checkout() -> Path | None:
    """The folder of the checkout that this code runs from, or None for an installed wheel."""
    source = Path(__file__).resolve().parents[2]
    root = source.parent
    return root if source.name == "src" and (root / "pyproject.toml").is_file() else None


def describe_commit() -> str:
    """The commit of the checkout, with "+changes" when files differ from it; else the version."""
    root = checkout()
    if root is None or not (root / ".git").exists():
        return f"v{__version__}"
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return f"v{__version__}"
    return f"{commit}{'+changes' if changed else ''}"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def metric_names(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every metric that any of the models has, in order of first appearance."""
    return list(dict.fromkeys(name for row in results for name in row["metrics"]))


def format_metric(value: object) -> str:
    """Four significant figures; mean ± standard deviation where both are known.

    >>> format_metric(0.75321), format_metric({"mean": 12.3, "sd": 0.456, "n": 3})
    ('0.7532', '12.3 ± 0.456')
    """
    if isinstance(value, Mapping):
        spread = value["sd"]
        text = format_metric(value["mean"])
        return text if not spread else f"{text} ± {float(spread):.3g}"
    if value is None or not math.isfinite(float(value)):  # type: ignore[arg-type]
        return "-"
    number = float(value)  # type: ignore[arg-type]
    return f"{number:.0f}" if abs(number) >= 10000 else f"{number:.4g}"


def read_outcome(path: Path) -> dict[str, Any]:
    """Read one outcome file and check its form.

    Raises: RunError when it is missing or no JSON, DataError when a key is missing.
    """
    value = read_json(path)
    missing = [key for key in KEYS if not isinstance(value, dict) or key not in value]
    if missing:
        raise DataError(
            f"{path} has no {', '.join(missing)}; expected an outcome with the keys "
            f"{', '.join(KEYS)}. Run `recurra reproduce` again to make it."
        )
    return dict(value)


def write_outcome(path: Path, outcome: Mapping[str, Any]) -> None:
    """Write one outcome file, in one step."""
    write_json(path, dict(outcome))


def combine(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One outcome out of several seeds': each measured metric as mean, standard deviation and n.

    The seconds are the mean over the seeds. A metric that some seed lacks counts only the others.
    Raises: DataError when the outcomes are of different tasks or data.
    """
    if not outcomes:
        raise DataError("there are no outcomes to combine; run `recurra reproduce NAME` first.")
    first = outcomes[0]
    for other in outcomes[1:]:
        if (other["task"], other["data"]) != (first["task"], first["data"]):
            raise DataError(
                f"outcomes of {other['task']} on {other['data']!r} and of {first['task']} on "
                f"{first['data']!r} cannot be combined; expected the same task and data."
            )
    targets = {
        name: _combine_results([outcome["targets"][name] for outcome in outcomes])
        for name in first.get("targets", {})
    }
    return {
        "task": first["task"],
        "data": first["data"],
        "results": _combine_results([outcome["results"] for outcome in outcomes]),
        **({"targets": targets} if targets else {}),
        "notes": list(dict.fromkeys(note for o in outcomes for note in o.get("notes", ()))),
        "seconds": statistics.fmean(outcome["seconds"] for outcome in outcomes),
        "machine": "; ".join(dict.fromkeys(str(o["machine"]) for o in outcomes)),
        "commit": "; ".join(dict.fromkeys(str(o["commit"]) for o in outcomes)),
    }


def _combine_results(several: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for results in several:
        for row in results:
            rows.setdefault((row["model"], row["source"]), []).append(row["metrics"])
    return [
        make_result(model, _over_seeds(metrics, source), source)
        for (model, source), metrics in rows.items()
    ]


def _over_seeds(metrics: Sequence[Mapping[str, Any]], source: str) -> dict[str, Any]:
    if source == "published" or len(metrics) == 1:
        return dict(metrics[0])
    combined: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in metrics for name in row):
        values = [row[name] for row in metrics if row.get(name) is not None]
        means = [float(v["mean"] if isinstance(v, Mapping) else v) for v in values]
        combined[name] = (
            {"mean": statistics.fmean(means), "sd": _deviation(means), "n": len(means)}
            if means
            else None
        )
    return combined


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; exactly 0 for values that are all equal, or for one."""
    return statistics.stdev(values) if len(set(values)) > 1 else 0.0


def write_table(folder: Path, name: str, description: str) -> Path:
    """Assemble FOLDER/NAME.md from all of FOLDER/NAME/seed-*.json, and return its path.

    Raises: DataError when there is no such file, or one that is not of this benchmark.
    """
    paths = sorted(
        (folder / name).glob("seed-*.json"), key=lambda path: (len(path.name), path.name)
    )
    if not paths:
        raise DataError(
            f"{folder / name} holds no seed-K.json; run `recurra reproduce {name}` first."
        )
    target = folder / f"{name}.md"
    outcome = combine([read_outcome(path) for path in paths])
    seeds = [path.stem.removeprefix("seed-") for path in paths]
    write_bytes(target, format_table(name, description, outcome, seeds).encode())
    return target


def _format_rows(results: Sequence[Mapping[str, Any]]) -> list[str]:
    names = metric_names(results)
    lines = ["| model | source | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
    for row in results:
        values = [format_metric(row["metrics"].get(metric)) for metric in names]
        lines.append(f"| {row['model']} | {row['source']} | {' | '.join(values)} |")
    return lines


def format_table(
    name: str, description: str, outcome: Mapping[str, Any], seeds: Sequence[str]
) -> str:
    """The page of one benchmark, in Markdown."""
    lines = [f"# {name}", "", description.strip(), "", *_format_rows(outcome["results"])]
    for target, results in outcome.get("targets", {}).items():
        lines += ["", f"## {target}", "", *_format_rows(results)]
    several = len(seeds) > 1
    lines += [
        "",
        *(f"- {note}" for note in outcome.get("notes", ())),
        f"- data: {outcome['data']}",
        f"- seed{'s' if several else ''}: {', '.join(seeds)}"
        + (" (mean ± standard deviation over the seeds)" if several else ""),
        f"- time: {outcome['seconds']:.0f} s" + (" for each seed, on average" if several else ""),
        f"- machine: {outcome['machine']}",
        f"- commit: {outcome['commit']}",
        *how_to_repeat(f"recurra reproduce {name}"),
    ]
    return "\n".join(lines)


def how_to_repeat(command: str) -> list[str]:
    """The last lines of every page of results: the command that makes them again."""
    return ["", "Run it again:", "", "```", command, "```", ""]
