"""Memory and time of a training step with `recompute`: python benchmarks/recompute.py

One layer, batch 16, 64 inputs, 128 units, two threads, float32, no gradient for x. Memory is the
growth of the process's peak over what it held before the step, in a fresh process for each number;
time is the median of some steps in turn. Writes docs/results/recompute.json and, from it,
docs/results/recompute.md.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from recurra import nn
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json

BATCH, INPUT, HIDDEN = 16, 64, 128
TIMES = (1_000, 10_000)
THREADS = 2
ROUNDS = 7
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def settings(length: int) -> list[str | int | None]:
    return [None, "gates", round(math.sqrt(length))]


def step(layer: torch.nn.Module, x: torch.Tensor) -> None:
    """Forward and backward of a loss that needs the last output alone."""
    output, _ = layer(x)
    output[-1].sum().backward()
    layer.zero_grad(set_to_none=True)


def made(
    kind: str, length: int, recompute: str | int | None
) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    layer = getattr(nn, kind)(INPUT, HIDDEN, recompute=recompute)
    return layer, torch.randn(length, BATCH, INPUT)


def forget_peak() -> None:
    """Begin to count the peak of this process's memory anew; Linux."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def grown(kind: str, length: int, recompute: str | int | None) -> float:
    """MiB that a step adds to the peak of this process."""
    layer, x = made(kind, length, recompute)
    step(layer, x[:10])  # threads, libraries and small buffers
    forget_peak()
    before = peak_mib()
    step(layer, x)
    return peak_mib() - before


def memory(kind: str, length: int, recompute: str | int | None) -> float:
    asked = json.dumps([kind, length, recompute])
    found = subprocess.run(
        [sys.executable, __file__, asked], capture_output=True, text=True, check=True
    )
    return float(found.stdout)


def seconds(kind: str, length: int) -> list[float]:
    """Median time of a step, for each setting."""
    sides = [made(kind, length, recompute) for recompute in settings(length)]
    took: list[list[float]] = [[] for _ in sides]
    for turn in range(ROUNDS + 1):
        for n in range(len(sides))[:: 1 if turn % 2 else -1]:
            time.sleep(0.03)
            started = time.perf_counter()
            step(*sides[n])
            took[n].append(time.perf_counter() - started)
    return [statistics.median(times[1:]) for times in took]


def page(result: dict) -> str:
    lines = [
        "# recompute",
        "",
        "Training steps of one layer that keeps less for the way back (`recompute=`): batch",
        f"{BATCH}, {INPUT} inputs, {HIDDEN} units, {THREADS} threads, float32. Memory is the",
        "growth of a fresh process's peak; time the median of some steps, settings in turn. Ratios",
        "are to the layer that keeps everything. y itself is part of all numbers, and so is the",
        "gradient of y that the loss makes, as large as y.",
        "",
        "| cell | T | recompute | MiB | ratio | ms | ratio |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['cell']} | {row['time']} | {row['recompute']} | {row['mib']:.0f} | "
            f"{row['mib_ratio']:.2f} | {row['ms']:.1f} | {row['ms_ratio']:.2f} |"
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
            "python benchmarks/recompute.py",
            "```",
            "",
        ]
    )


def compare(kind: str, length: int) -> list[dict[str, object]]:
    asked = settings(length)
    held = [memory(kind, length, recompute) for recompute in asked]
    took = seconds(kind, length)
    return [
        {
            "cell": kind,
            "time": length,
            "recompute": recompute,
            "mib": mib,
            "mib_ratio": mib / held[0],
            "ms": 1e3 * s,
            "ms_ratio": s / took[0],
        }
        for recompute, mib, s in zip(asked, held, took, strict=True)
    ]


def main() -> None:
    if len(sys.argv) > 1:
        print(grown(*json.loads(sys.argv[1])))
        return
    rows = [
        row for kind in ("LSTM", "GRU", "RNN") for length in TIMES for row in compare(kind, length)
    ]
    result = {"rows": rows, "machine": describe_machine(), "commit": describe_commit()}
    write_json(RESULTS / "recompute.json", result)
    write_bytes(RESULTS / "recompute.md", page(json.loads(json.dumps(result))).encode())
    print(page(result))


if __name__ == "__main__":
    main()
