"""Time of recurra.nn's layers against torch.nn's, on one thread: python benchmarks/layers.py

Both run the same weights in turn, so that a machine that slows down slows both; the ratio is taken
round by round. Writes docs/results/layers.json and, from it, docs/results/layers.md.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from recurra import nn
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json

SHAPES = ((32, 100, 8, 64), (64, 168, 64, 128))
KINDS = ("RNN", "GRU", "LSTM")
ROUNDS = 9
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def forward(layer: torch.nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        layer(x)


def train(layer: torch.nn.Module, x: torch.Tensor) -> None:
    layer.zero_grad()
    layer(x)[0].square().mean().backward()


def compare(kind: str, shape: tuple[int, int, int, int]) -> list[dict[str, object]]:
    batch, steps, size, hidden = shape
    theirs = getattr(torch.nn, kind)(size, hidden, batch_first=True)
    ours = getattr(nn, kind)(size, hidden, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(batch, steps, size)
    rows = []
    for mode, run in (("forward", forward), ("train", train)):
        for layer in (theirs, ours):
            run(layer, x)
        pairs = [
            (seconds(lambda: run(theirs, x)), seconds(lambda: run(ours, x)))  # noqa: B023
            for _ in range(ROUNDS)
        ]
        ratios = sorted(torch_s / our_s for torch_s, our_s in pairs)
        rows.append(
            {
                "layer": kind,
                "shape": list(shape),
                "mode": mode,
                "torch_ms": 1e3 * statistics.median(pair[0] for pair in pairs),
                "recurra_ms": 1e3 * statistics.median(pair[1] for pair in pairs),
                "ratio": statistics.median(ratios),
                "ratio_range": [ratios[1], ratios[-2]],
            }
        )
    return rows


def page(result: dict) -> str:
    lines = [
        "# layers",
        "",
        "Time of one call of `torch.nn` and of `recurra.nn` on the same weights, in turn, on",
        f"one thread, float32, median of {ROUNDS} rounds. A ratio above 1 means that recurra is",
        "faster; its range leaves out the lowest and the highest round. recurra runs its",
        "reference backend here.",
        "",
        "| layer | batch, time, input, hidden | mode | torch ms | recurra ms | ratio | range |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for row in result["rows"]:
        low, high = row["ratio_range"]
        lines.append(
            f"| {row['layer']} | {', '.join(map(str, row['shape']))} | {row['mode']} | "
            f"{row['torch_ms']:.1f} | {row['recurra_ms']:.1f} | {row['ratio']:.2f} | "
            f"{low:.2f} to {high:.2f} |"
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
            "python benchmarks/layers.py",
            "```",
            "",
        ]
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [row for shape in SHAPES for kind in KINDS for row in compare(kind, shape)]
    result = {"rows": rows, "machine": describe_machine(), "commit": describe_commit()}
    write_json(RESULTS / "layers.json", result)
    write_bytes(RESULTS / "layers.md", page(json.loads(json.dumps(result))).encode())
    print(page(result))


if __name__ == "__main__":
    main()
