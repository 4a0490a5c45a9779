"""Time of recurra's minGRU scan against a log-space scan in torch: python benchmarks/scan.py

Two threads, float32, pre-activations given. Both run in turn, so that a machine that slows down
slows both. Writes docs/results/scan.json and, from it, docs/results/scan.md.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.kernels.scan import min_gru_scan
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json

# (time, batch, hidden)
SHAPES = ((96, 32, 64), (168, 64, 128), (400, 16, 256), (1024, 8, 256), (4096, 1, 256))
THREADS = 2
ROUNDS = 9
# So that threads which wait by spinning have gone to sleep before the other side begins.
PAUSE_S = 0.03
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"

Scan = Callable[[Tensor, Tensor], Tensor]


def ours(k: Tensor, v: Tensor) -> Tensor:
    return min_gru_scan(k, v)[0]


def log_space(k: Tensor, v: Tensor) -> Tensor:
    """Feng et al. 2024 in log space, from a state of 0: sums and a logcumsumexp over time."""
    log_g = torch.where(v >= 0, (F.relu(v) + 0.5).log(), -F.softplus(-v))
    kept = (-F.softplus(k)).cumsum(1)
    added = log_g - F.softplus(-k)
    return (kept + (added - kept).logcumsumexp(1)).exp()


def seconds(run: Callable[[], object]) -> float:
    time.sleep(PAUSE_S)
    run()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def call(scan: Scan, k: Tensor, v: Tensor, d_h: Tensor, train: bool) -> None:
    if not train:
        with torch.no_grad():
            scan(k, v)
        return
    k.grad = v.grad = None
    scan(k, v).backward(d_h)


def error(scan: Scan, k: Tensor, v: Tensor, truth: Tensor) -> float:
    with torch.no_grad():
        return float((scan(k, v).double() - truth).abs().max())


def compare(shape: tuple[int, int, int]) -> list[dict[str, object]]:
    steps, batch, hidden = shape
    k, v, d_h = (torch.randn(batch, steps, hidden) for _ in range(3))
    with torch.no_grad():
        truth = min_gru_scan(k.double(), v.double())[0]
    errors = [error(scan, k, v, truth) for scan in (ours, log_space)]
    k.requires_grad_()
    v.requires_grad_()
    rows: list[dict[str, object]] = []
    for train in (False, True):
        pairs = []
        for turn in range(ROUNDS + 1):
            order = (ours, log_space) if turn % 2 else (log_space, ours)
            took = {}
            for scan in order:
                took[scan] = seconds(lambda: call(scan, k, v, d_h, train))  # noqa: B023
            pairs.append((took[ours], took[log_space]))
        pairs = pairs[1:]
        columns = [[pair[n] for pair in pairs] for n in (0, 1)]
        medians = [1e3 * statistics.median(column) for column in columns]
        rows.append(
            {
                "shape": list(shape),
                "mode": "forward+backward" if train else "forward",
                "recurra_ms": medians[0],
                "log_space_ms": medians[1],
                "ratio_of_medians": medians[1] / medians[0],
                "ratio_of_minima": min(columns[1]) / min(columns[0]),
                "recurra_error": errors[0],
                "log_space_error": errors[1],
            }
        )
    return rows


def page(result: dict) -> str:
    lines = [
        "# scan",
        "",
        "Time of `min_gru_scan` and of a log-space scan in torch (Feng et al. 2024) on",
        f"the same pre-activations, in turn, on {THREADS} threads, float32, medians of {ROUNDS}",
        "rounds. Ratios above 1 mean that recurra is faster, by medians and by minima. The error",
        "is the largest difference of h from float64.",
        "",
        "| time, batch, hidden | mode | recurra ms | log-space ms | by medians | by minima | "
        "recurra error | log-space error |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {', '.join(map(str, row['shape']))} | {row['mode']} | {row['recurra_ms']:.2f} | "
            f"{row['log_space_ms']:.1f} | {row['ratio_of_medians']:.0f} | "
            f"{row['ratio_of_minima']:.0f} | {row['recurra_error']:.1e} | "
            f"{row['log_space_error']:.1e} |"
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
            "python benchmarks/scan.py",
            "```",
            "",
        ]
    )


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rows = [row for shape in SHAPES for row in compare(shape)]
    result = {"rows": rows, "machine": describe_machine(), "commit": describe_commit()}
    write_json(RESULTS / "scan.json", result)
    write_bytes(RESULTS / "scan.md", page(json.loads(json.dumps(result))).encode())
    print(page(result))


if __name__ == "__main__":
    main()
