"""What it costs to measure the gradient's flow while training: python benchmarks/gradient_flow.py

Float32, on one thread and on two: a training step (forward, backward, AdamW) and a measurement in
turn, so that a machine that slows down slows both. Writes docs/results/gradient-flow.json and .md.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from recurra import nn
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json
from recurra.training.flow import gradient_flow
from recurra.training.learner import FLOW_STEPS

# (kind, input, hidden, layers, time, batch)
CASES = (
    ("LSTM", 64, 128, 1, 200, 32),
    ("GRU", 64, 128, 2, 200, 32),
    ("LSTM", 32, 64, 1, 64, 64),
)
EVERY = 100
THREADS = (1, 2)
ROUNDS = 15
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def last_output(model: torch.nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = model(x)[0][:, -1].square().mean()
    return loss


def milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def measure(kind: str, inputs: int, hidden: int, layers: int, steps: int, batch: int) -> dict:
    model = getattr(nn, kind)(inputs, hidden, layers, batch_first=True)
    optimiser = torch.optim.AdamW(model.parameters())
    x = torch.randn(batch, steps, inputs)

    def train() -> None:
        optimiser.zero_grad()
        last_output(model, x).backward()
        optimiser.step()

    def look() -> None:
        gradient_flow(model, x, last_output, steps=FLOW_STEPS)

    rounds = [(milliseconds(train), milliseconds(look)) for _ in range(ROUNDS + 2)][2:]
    step_ms, flow_ms = ([pair[n] for pair in rounds] for n in (0, 1))
    cost = {
        name: 100 * best(flow_ms) / (EVERY * best(step_ms))
        for name, best in (("median", statistics.median), ("minimum", min))
    }
    return {
        "layer": f"nn.{kind}({inputs}, {hidden}, {layers})",
        "shape": [batch, steps, inputs],
        "step_ms": statistics.median(step_ms),
        "flow_ms": statistics.median(flow_ms),
        "minimum_step_ms": min(step_ms),
        "minimum_flow_ms": min(flow_ms),
        "cost_percent": cost["median"],
        "cost_percent_of_minima": cost["minimum"],
    }


def page(result: dict) -> str:
    lines = [
        "# gradient flow",
        "",
        "Time of one measurement by `gradient_flow` beside one training step, in turn,",
        f"float32, medians of {ROUNDS} rounds. The cost is that of",
        f"`gradient_flow_every={EVERY}`, a measurement in {EVERY} steps, at {FLOW_STEPS} steps of",
        "time, as a share of these steps, by medians and by the minima of both.",
        "",
        "| layer | batch, time, input | threads | step ms | measurement ms | cost | by minima |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| `{row['layer']}` | {', '.join(map(str, row['shape']))} | "
            f"{row['threads']} | {row['step_ms']:.1f} | "
            f"{row['flow_ms']:.1f} | {row['cost_percent']:.1f} % | "
            f"{row['cost_percent_of_minima']:.1f} % |"
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
            "python benchmarks/gradient_flow.py",
            "```",
            "",
        ]
    )


def main() -> None:
    torch.manual_seed(0)
    rows = []
    for case in CASES:
        for threads in THREADS:
            torch.set_num_threads(threads)
            rows.append({**measure(*case), "threads": threads})
    result = {"rows": rows, "machine": describe_machine(), "commit": describe_commit()}
    write_json(RESULTS / "gradient-flow.json", result)
    write_bytes(RESULTS / "gradient-flow.md", page(json.loads(json.dumps(result))).encode())
    print(page(result))


if __name__ == "__main__":
    main()
