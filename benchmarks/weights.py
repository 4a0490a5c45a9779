"""Streams with weights in fewer bits, their loss and their time: python benchmarks/weights.py TEXT

TEXT is a file of characters, such as tiny-shakespeare's input.txt. A character model is trained on
its first nine tenths, and the loss over the last tenth measured in streams that store the weights
in float32, bfloat16 and int8. One step of one stream is timed over sizes, the three in turn.
Writes docs/results/weights.json and, from it, docs/results/weights.md.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra import nn
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json

HIDDEN = 256
EMBEDDED = 64
STEPS = 1500
ROWS, LENGTH = 64, 64
STREAMS = 64  # rows that share out the test text
SIZES = (64, 128, 256, 512, 1024)
ROUNDS, PUSHES = 15, 300
WEIGHTS = ("float32", "bfloat16", "int8")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


class Characters(torch.nn.Module):
    """Embedding, one recurrent layer, and a product for the next character."""

    def __init__(self, kind: str, count: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(count, EMBEDDED)
        self.layer = getattr(nn, kind)(EMBEDDED, HIDDEN)
        self.head = torch.nn.Linear(HIDDEN, count)


def trained(kind: str, text: Tensor, count: int) -> Characters:
    """Truncated BPTT over ROWS streams with carried state; text: (characters,)."""
    torch.manual_seed(0)
    model = Characters(kind, count)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    rows = text[: len(text) // ROWS * ROWS].view(ROWS, -1).t()  # (time, rows)
    state, begin = None, 0
    for _ in range(STEPS):
        if begin + LENGTH >= len(rows):
            state, begin = None, 0
        x, y = rows[begin : begin + LENGTH], rows[begin + 1 : begin + LENGTH + 1]
        begin += LENGTH
        output, state = model.layer(model.embedding(x), state)
        state = tuple(s.detach() for s in state) if kind == "LSTM" else state.detach()
        loss = F.cross_entropy(model.head(output).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def nats(model: Characters, text: Tensor, weights: str) -> float:
    """Loss per character, of the text cut into STREAMS rows; the head stays in float32."""
    rows = text[: len(text) // STREAMS * STREAMS].view(STREAMS, -1)
    stream = model.layer.stream(STREAMS, weights=weights)
    total = 0.0
    for begin in range(0, rows.shape[1] - 1, 200):
        x, y = rows[:, begin : begin + 201][:, :-1], rows[:, begin + 1 : begin + 201]
        # A chunk is (time, batch, features), as the layer's own input.
        output = stream.push_chunk(model.embedding(x.t()))
        total += float(
            F.cross_entropy(model.head(output).flatten(0, 1), y.t().flatten(), reduction="sum")
        )
    return total / (STREAMS * (rows.shape[1] - 1))


def losses(text: str) -> list[dict[str, object]]:
    letters = sorted(set(text))
    codes = torch.tensor([letters.index(letter) for letter in text])
    cut = len(codes) * 9 // 10
    rows: list[dict[str, object]] = []
    for kind in ("GRU", "LSTM"):
        model = trained(kind, codes[:cut], len(letters))
        for weights in WEIGHTS:
            rows.append(
                {"cell": kind, "weights": weights, "nats": nats(model, codes[cut:], weights)}
            )
    return rows


def microseconds(kind: str, size: int, threads: int) -> dict[str, object]:
    """Median over rounds of the mean time of a push, for each way to store the weights."""
    torch.manual_seed(0)
    layer = getattr(nn, kind)(size, size)
    x, y = torch.randn(1, size), torch.empty(1, size)
    streams = {name: layer.stream(1, weights=name, threads=threads) for name in WEIGHTS}
    took: dict[str, list[float]] = {name: [] for name in WEIGHTS}
    for turn in range(ROUNDS + 1):
        for name, stream in list(streams.items())[:: 1 if turn % 2 else -1]:
            time.sleep(0.01)
            for _ in range(30):
                stream.push(x, out=y)
            started = time.perf_counter()
            for _ in range(PUSHES):
                stream.push(x, out=y)
            took[name].append(1e6 * (time.perf_counter() - started) / PUSHES)
    medians = {name: statistics.median(times[1:]) for name, times in took.items()}
    return {"cell": kind, "hidden": size, "threads": threads, **medians}


def page(result: dict) -> str:
    lines = [
        "# weights",
        "",
        "Streams whose weights are stored in fewer bits (`layer.stream(weights=...)`).",
        "",
        f"Loss per character, in nats, of a character model ({HIDDEN} units, {STEPS} updates) over",
        f"the last tenth of {result['text']}:",
        "",
        "| cell | weights | nats | more than float32 |",
        "|---|---|---:|---:|",
    ]
    full = {row["cell"]: row["nats"] for row in result["losses"] if row["weights"] == "float32"}
    for row in result["losses"]:
        more = row["nats"] - full[row["cell"]]
        lines.append(f"| {row['cell']} | {row['weights']} | {row['nats']:.4f} | {more:+.5f} |")
    lines += [
        "",
        f"One step of one stream, µs: median of {ROUNDS} rounds of {PUSHES} pushes, in turn.",
        "",
        "| cell | input and hidden size | threads | float32 | bfloat16 | int8 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in result["times"]:
        times = " | ".join(f"{row[name]:.1f}" for name in WEIGHTS)
        lines.append(f"| {row['cell']} | {row['hidden']} | {row['threads']} | {times} |")
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
            "python benchmarks/weights.py input.txt",
            "```",
            "",
        ]
    )


def main() -> None:
    path = Path(sys.argv[1])
    times = [
        microseconds(kind, size, threads)
        for kind in ("GRU", "LSTM")
        for size in SIZES
        for threads in (1, 2)
    ]
    result = {
        "text": f"{path.parent.name}/{path.name}",
        "losses": losses(path.read_text(encoding="utf-8")),
        "times": times,
        "machine": describe_machine(),
        "commit": describe_commit(),
    }
    write_json(RESULTS / "weights.json", result)
    write_bytes(RESULTS / "weights.md", page(json.loads(json.dumps(result))).encode())
    print(page(result))


if __name__ == "__main__":
    main()
