"""What a streamed transcriber costs: python benchmarks/speech_stream.py

A streaming network of 5 million weights (3 × LSTM of 448 units, 300 ms ahead) on one thread, sound
in pieces as they would come from a microphone: features, network and greedy decoding. Writes
docs/results/speech-stream.json and, from it, docs/results/speech-stream.md.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch

from recurra import Transcriber
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import write_bytes, write_json

RATE = 16_000
SECONDS = 20
PIECES_MS = (10, 100, 500)
LIMIT = 0.05
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def made() -> Transcriber:
    """One update of the weights: what they are does not change what they cost, but for decoding."""
    rng = np.random.default_rng(0)
    pairs = [
        (rng.normal(0, 0.1, 2 * RATE).astype(np.float32), "THE QUICK BROWN FOX") for _ in range(2)
    ]
    return Transcriber(
        streaming=True, hidden_size=448, steps=1, validation=0, speeds=(1.0,), progress=False
    ).fit(pairs)


def measure(model: Transcriber) -> list[dict[str, object]]:
    sound = np.random.default_rng(1).normal(0, 0.1, SECONDS * RATE).astype(np.float32)
    rows: list[dict[str, object]] = []
    for piece_ms in PIECES_MS:
        size = piece_ms * RATE // 1000
        stream = model.stream()
        took = []
        for begin in range(0, len(sound), size):
            started = time.process_time()
            stream.push(sound[begin : begin + size])
            took.append(time.process_time() - started)
        stream.finish()
        rows.append(_row(f"stream, pieces of {piece_ms} ms", took))
    started = time.process_time()
    model.predict([sound])
    rows.append(_row("predict, the whole sound", [time.process_time() - started]))
    return rows


def _row(what: str, took: list[float]) -> dict[str, object]:
    return {
        "what": what,
        "rtf": sum(took) / SECONDS,
        "ms": 1000 * float(np.median(took)),
        "p99": 1000 * float(np.quantile(took, 0.99)),
    }


def page(result: dict) -> str:
    weights, ahead_ms = result["parameters"], result["ahead_ms"]
    lines = [
        "# speech stream",
        "",
        f"A streaming transcriber of {weights:,} weights (3 × LSTM of 448 units) on one thread:",
        "features, network and greedy decoding. rtf is seconds of the processor for a second of",
        f"sound, aimed at {LIMIT} or less; then the processor's milliseconds for a piece, median",
        "and 99 % quantile. Whatever the processor, a character waits for",
        f"{ahead_ms} ms of the future, a window of 25 ms and the end of its step of 30 ms.",
        "",
        "| | rtf | ms a piece | 99 % |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row['what']} | {row['rtf']:.4f} | {row['ms']:.2f} | {row['p99']:.2f} |"
        for row in result["rows"]
    ]
    return "\n".join(
        [
            *lines,
            "",
            "- the processor's time of the process, so that other processes count little",
            f"- machine: {result['machine']}",
            f"- commit: {result['commit']}",
            "",
            "Run it again:",
            "",
            "```",
            "python benchmarks/speech_stream.py",
            "```",
            "",
        ]
    )


def main() -> None:
    torch.set_num_threads(1)
    model = made()
    fitted = model.fitted
    result = {
        "parameters": sum(parameter.numel() for parameter in fitted.network.parameters()),
        "ahead_ms": round(1000 * fitted.design.steps_ahead * fitted.design.step_s),
        "rows": measure(model),
        "machine": describe_machine(),
        "commit": describe_commit(),
    }
    write_json(RESULTS / "speech-stream.json", result)
    write_bytes(RESULTS / "speech-stream.md", page(json.loads(json.dumps(result))).encode())
    print(page(result))


if __name__ == "__main__":
    main()
