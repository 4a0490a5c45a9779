"""Text classifiers beside the same network in torch.nn: python benchmarks/sentiment.py

The same embeddings, one bidirectional GRU, max and mean pooling and a head; torch.nn packs the
ragged batch (PackedSequence), ours takes lengths. Training is one update (forward, backward, AdamW)
of a batch, prediction a forward pass. Rounds alternate, and each number is a median. Writes
docs/results/sentiment-speed.json and, from it, docs/results/sentiment-speed.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json
from recurra.tasks.sentiment.batches import Batch
from recurra.tasks.sentiment.network import SentimentNetwork
from recurra.tasks.sentiment.settings import SentimentSettings

# name: texts of a batch, shortest and longest of them in words
SHAPES = {"questions": (32, 5, 15), "sentences": (32, 10, 30), "reviews": (16, 100, 400)}
WORDS, ROUNDS = 5000, 5
SETTINGS: dict[str, Any] = {
    "hidden_size": 128,
    "embedding_size": 100,
    "buckets": 0,
    "chunk": 1000,
    "word_dropout": 0.0,
    "input_dropout": 0.0,
    "output_dropout": 0.0,
}
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


class Packed(torch.nn.Module):
    """The network as one writes it with torch.nn, with the weights of ours."""

    def __init__(self, ours: SentimentNetwork) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding.from_pretrained(
            ours.embedding.weight.detach().clone(), freeze=False
        )
        self.layer = torch.nn.GRU(100, 128, batch_first=True, bidirectional=True)
        self.layer.load_state_dict(ours.layers[0].state_dict())
        self.head = torch.nn.Linear(512, ours.head.out_features)
        self.head.load_state_dict(ours.head.state_dict())

    def forward(self, batch: Batch) -> Tensor:
        x = self.embedding(batch.numbers)[batch.tokens]
        packed = pack_padded_sequence(x, batch.lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.layer(packed)[0], batch_first=True)
        mask = torch.arange(y.shape[1]) < batch.lengths[:, None]
        highest = y.masked_fill(~mask[..., None], -torch.inf).amax(1)
        return self.head(torch.cat([highest, y.sum(1) / batch.lengths[:, None]], dim=1))


def make_batch(name: str) -> Batch:
    rows, shortest, longest = SHAPES[name]
    rng = np.random.default_rng(0)
    lengths = rng.integers(shortest, longest + 1, rows)
    tokens = rng.integers(0, WORDS, (rows, lengths.max()))
    none = torch.empty(0, dtype=torch.int64)
    return Batch(
        torch.arange(WORDS),
        none,
        none,
        torch.from_numpy(tokens),
        torch.from_numpy(lengths),
        torch.zeros(rows, 2),
        torch.from_numpy(rng.integers(0, 2, rows)),
    )


def trainer(model: torch.nn.Module, batch: Batch) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)

    def update() -> None:
        optimiser.zero_grad()
        F.cross_entropy(model(batch), batch.targets).backward()
        optimiser.step()

    return update


def predictor(model: torch.nn.Module, batch: Batch) -> Callable[[], None]:
    @torch.no_grad()
    def predict() -> None:
        model(batch)

    return predict


def measure(name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    ours, batch = SentimentNetwork(WORDS, 2, SentimentSettings(**SETTINGS)), make_batch(name)
    plain = Packed(ours)
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), plain(batch), rtol=1e-4, atol=1e-5)
    found: dict[str, Any] = {"name": name}
    for what, make in (("training", trainer), ("prediction", predictor)):
        tasks = {"recurra": make(ours, batch), "torch.nn": make(plain, batch)}
        found[what] = alternate(tasks, len(batch.lengths))
    return found


def alternate(tasks: dict[str, Callable[[], None]], texts: int) -> dict[str, float]:
    """Texts a second of each: the median over rounds in turn, after one that is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(ROUNDS + 1):
        for name, task in list(tasks.items())[:: 1 if turn % 2 else -1]:
            started, done = time.perf_counter(), 0
            while time.perf_counter() - started < 0.3:
                task()
                done += 1
            speeds[name].append(done * texts / (time.perf_counter() - started))
    return {name: statistics.median(values[1:]) for name, values in speeds.items()}


def page(result: dict[str, Any]) -> str:
    lines = [
        "# sentiment-speed",
        "",
        "Texts a second of a classifier (bidirectional GRU of 128 units, max and mean pooling)",
        "beside the same network in torch.nn with PackedSequence, in float32: medians of",
        f"{ROUNDS} rounds in turn.",
        "",
        "| texts | | recurra | torch.nn | ratio |",
        "|---|---|---:|---:|---:|",
    ]
    for row in result["rows"]:
        rows, shortest, longest = SHAPES[row["name"]]
        for what in ("training", "prediction"):
            ours, theirs = row[what]["recurra"], row[what]["torch.nn"]
            lines.append(
                f"| {rows} {row['name']} of {shortest} to {longest} words | {what} | {ours:.0f} | "
                f"{theirs:.0f} | {ours / theirs:.2f} |"
            )
    return "\n".join(
        [
            *lines,
            "",
            f"- threads: {result['threads']}",
            f"- machine: {result['machine']}",
            f"- commit: {result['commit']}",
            "",
            "Run it again:",
            "",
            "```",
            "python benchmarks/sentiment.py",
            "```",
            "",
        ]
    )


def main() -> None:
    result = {
        "rows": [measure(name) for name in SHAPES],
        "threads": torch.get_num_threads(),
        "machine": describe_machine(),
        "commit": describe_commit(),
    }
    write_json(RESULTS / "sentiment-speed.json", result)
    write_bytes(RESULTS / "sentiment-speed.md", page(result).encode())
    print(page(result))


if __name__ == "__main__":
    main()
