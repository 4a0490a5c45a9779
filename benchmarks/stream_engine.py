"""Speed, bits and bounds of the streaming engine: python benchmarks/stream_engine.py [PART ...]

speed   a two-layer GRU of 64 with a linear head, 8 inputs: one push of one stream; 10⁷ events of
        100,000 streams in batches, with the memory that they take; the same into an SQLite store; a
        snapshot of a million streams
bits    10⁶ events of 10,000 streams in random interleavings and pieces, on one and two threads,
        with states spilled to a store: the same bits, and those of whole sequences
kills   a process killed at 50 random points and started again: after de-duplication the bytes of
        an uninterrupted run

Without a part, all of them. Writes docs/results/stream-engine.json and from it stream-engine.md; a
part that is not run keeps its numbers.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recurra import nn
from recurra.report.results import describe_commit, describe_machine
from recurra.runs import read_json, write_bytes, write_json
from recurra.streaming import MemoryStore, SQLiteStore, StackStepper, StreamEngine

THREADS = 2
STREAMS, EVENTS, BATCH = 100_000, 10_000_000, 8192
DURABLE_S = 10.0
SNAPSHOT_STREAMS = 1_000_000
BIT_STREAMS, BIT_EVENTS = 10_000, 1_000_000
KILLS, KILL_EVENTS = 50, 20_000
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PROGRAM = ROOT / "tests" / "streaming" / "smoothing.py"


def model() -> nn.Stack:
    torch.manual_seed(0)
    return nn.Stack(nn.GRU(8, 64, num_layers=2, batch_first=True), nn.Linear(64, 1)).eval()


def memory_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


# Speed


def push_us() -> dict[str, float]:
    """Median and least time of a push of one stream, into a tensor that is there."""
    made = {}
    for name, stack in (("gru", nn.Stack(model().recurrent[0])), ("gru_and_head", model())):
        stream = stack.stream(1, threads=1)
        x, out = torch.randn(1, 8), torch.empty_like(stream.push(torch.randn(1, 8)))
        took = []
        for _ in range(20_000):
            started = time.perf_counter()
            stream.push(x, out=out)
            took.append(time.perf_counter() - started)
        made |= {name: 1e6 * statistics.median(took), f"{name}_least": 1e6 * min(took)}
    return made


def batches(names: list[str], count: int) -> list[tuple[list[str], np.ndarray]]:
    """Batches of events of random streams, made before the clock runs."""
    rng = np.random.default_rng(0)
    return [
        (
            [names[n] for n in rng.integers(0, len(names), BATCH)],
            rng.standard_normal((BATCH, 8), dtype=np.float32),
        )
        for _ in range(count)
    ]


def throughput(threads: int, events: int) -> dict[str, Any]:
    """Events a second over all, and the memory after the first tenth and at the end."""
    names = [f"sensor-{n}" for n in range(STREAMS)]
    made = batches(names, 64)
    engine = StreamEngine(StackStepper(model(), threads=threads))
    for start in range(0, STREAMS, BATCH):
        some = names[start : start + BATCH]
        engine.push(some, np.zeros((len(some), 8), np.float32))
    done, least, after, started = 0, 0.0, 0.0, time.perf_counter()
    while done < events:
        engine.push(*made[(done // BATCH) % len(made)])
        done += BATCH
        if not least and done >= events // 10:
            least = memory_mb()
    after, seconds = memory_mb(), time.perf_counter() - started
    return {
        "threads": threads,
        "events": done,
        "events_per_s": done / seconds,
        "memory_mb_after_a_tenth": least,
        "memory_mb_at_the_end": after,
    }


def durable(folder: Path) -> dict[str, Any]:
    """Events a second into an SQLite store, every batch on the disk before it is answered."""
    names = [f"sensor-{n}" for n in range(STREAMS)]
    made = batches(names, 16)
    engine = StreamEngine(StackStepper(model(), threads=THREADS), SQLiteStore(folder / "states.db"))
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < DURABLE_S:
        engine.push(*made[(done // BATCH) % len(made)])
        done += BATCH
    seconds = time.perf_counter() - started
    engine.close()
    return {"threads": THREADS, "events": done, "events_per_s": done / seconds}


def snapshot(folder: Path) -> dict[str, float]:
    """Seconds to write and to read the states of a million streams."""
    engine = StreamEngine(StackStepper(model(), threads=THREADS))
    for start in range(0, SNAPSHOT_STREAMS, BATCH):
        some = [f"sensor-{n}" for n in range(start, min(start + BATCH, SNAPSHOT_STREAMS))]
        engine.push(some, np.ones((len(some), 8), np.float32))
    path = folder / "all.states"
    started = time.perf_counter()
    engine.snapshot(path)
    written = time.perf_counter()
    engine.restore(path)
    read = time.perf_counter()
    assert len(engine) == SNAPSHOT_STREAMS
    return {
        "streams": SNAPSHOT_STREAMS,
        "megabytes": path.stat().st_size / 1e6,
        "write_s": written - started,
        "read_s": read - written,
    }


def speed() -> dict[str, Any]:
    torch.set_num_threads(1)  # the engine has threads of its own
    with tempfile.TemporaryDirectory() as folder:
        return {
            "push_us": push_us(),
            "throughput": [throughput(1, EVENTS // 10), throughput(THREADS, EVENTS)],
            "durable": durable(Path(folder)),
            "snapshot": snapshot(Path(folder)),
        }


# Bits


def bits() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    whose = rng.integers(0, BIT_STREAMS, BIT_EVENTS)
    x = rng.standard_normal((BIT_EVENTS, 8), dtype=np.float32)
    names = [f"key {n}" for n in range(BIT_STREAMS)]
    by_key = np.argsort(whose, kind="stable")

    def run(seed: int, batch: int, threads: int, **more: Any) -> np.ndarray:
        order = np.random.default_rng(seed)
        places = np.empty(BIT_EVENTS, np.int64)
        places[np.argsort(order.permutation(whose), kind="stable")] = by_key
        engine = StreamEngine(StackStepper(model(), threads=threads), **more)
        out = np.empty((BIT_EVENTS, 1), np.float32)
        begin = 0
        while begin < BIT_EVENTS:
            here = places[begin : begin + int(order.integers(1, 2 * batch))]
            out[here] = engine.push([names[n] for n in whose[here]], x[here]).values
            begin += len(here)
        return out

    first = run(1, 4000, 1)
    runs = {
        "two threads, batches up to 16,000": run(2, 8000, THREADS),
        "batches up to 2,000, 3,000 streams in memory": run(
            3, 1000, 1, store=MemoryStore(), max_keys=3000
        ),
    }
    stack, whole = model(), 0
    for n in range(0, BIT_STREAMS, 100):
        with torch.no_grad():
            y, _ = stack(torch.from_numpy(x[whose == n])[None])
        whole += int(np.array_equal(y[0].numpy(), first[whose == n]))
    return {
        "events": BIT_EVENTS,
        "streams": BIT_STREAMS,
        "same_bits": {name: bool(np.array_equal(made, first)) for name, made in runs.items()},
        "streams_held_against_whole_sequences": BIT_STREAMS // 100,
        "of_these_the_same": whole,
    }


# Kills


def collect(process: subprocess.Popen[bytes], out: bytearray) -> None:
    assert process.stdout is not None
    while piece := process.stdout.read(1 << 16):
        out += piece


def feed(process: subprocess.Popen[bytes], lines: list[bytes]) -> None:
    assert process.stdin is not None
    try:
        for start in range(0, len(lines), 20):
            process.stdin.write(b"".join(lines[start : start + 20]))
        process.stdin.close()
    except BrokenPipeError:
        pass


def run_once(store: Path, lines: list[bytes], kill_after: float | None) -> bytes:
    """What the program writes until it ends, or until it is killed, seconds after its first."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    out = bytearray()
    threads = [
        threading.Thread(target=collect, args=(process, out)),
        threading.Thread(target=feed, args=(process, lines)),
    ]
    for thread in threads:
        thread.start()
    if kill_after is not None:
        while not out and process.poll() is None:
            time.sleep(0.001)
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    process.wait()
    for thread in threads:
        thread.join()
    return bytes(out)


def kills() -> dict[str, Any]:
    rng = random.Random(0)
    sent = [
        json.dumps({"key": f"k{rng.randrange(40)}", "seq": n, "x": rng.random()}).encode() + b"\n"
        for n in range(KILL_EVENTS)
    ]
    given: dict[int, bytes] = {}
    killed = repeated = duplicates = differing = begin = 0
    with tempfile.TemporaryDirectory() as folder:
        wanted = run_once(Path(folder) / "whole.db", sent, None).splitlines()
        for turn in range(KILLS + 1):
            after = None if turn == KILLS else rng.random() * 0.1
            killed += after is not None
            out = run_once(Path(folder) / "killed.db", sent[begin:], after)
            for line in out.split(b"\n")[:-1]:
                answer = json.loads(line)
                if "duplicate" in answer:
                    duplicates += 1
                    continue
                repeated += answer["seq"] in given
                differing += given.setdefault(answer["seq"], line) != line
            first = next((n for n in range(len(sent)) if n not in given), len(sent))
            # A sender that does not know how far it came begins earlier, somewhere.
            begin = max(0, min(first, len(sent) * (turn + 1) // (KILLS + 1)) - rng.randrange(200))
    return {
        "kills": killed,
        "events": len(sent),
        "answers_written_again": repeated,
        "told_as_duplicates": duplicates,
        "differing_repetitions": differing,
        "equal_to_an_uninterrupted_run": [given.get(n) for n in range(len(sent))] == wanted,
    }


INTRODUCTION = f"""\
A two-layer GRU of 64 with a linear head and 8 inputs, float32, in `recurra.streaming.StreamEngine`;
the kills are those of a small model in a program of its own, with its states in an SQLite file.
The GRU steps on {THREADS} threads where nothing else is said; keys are text, and everything from
keys to answers is in the time."""
PARTS = {"speed": speed, "bits": bits, "kills": kills}


def page(result: dict[str, Any]) -> str:
    lines = ["# stream-engine", "", INTRODUCTION, ""]
    if "speed" in result:
        lines += speed_rows(result["speed"])
    if "bits" in result:
        found = result["bits"]
        lines += [
            f"{found['events']:,} events of {found['streams']:,} streams, against one thread with "
            "batches up to 8,000:",
            "",
            *(f"- {name}: {yes(same)}" for name, same in found["same_bits"].items()),
            f"- whole sequences: {found['of_these_the_same']} of "
            f"{found['streams_held_against_whole_sequences']} the same bits",
            "",
        ]
    if "kills" in result:
        found = result["kills"]
        lines += [
            f"{found['kills']} kills (SIGKILL) over {found['events']:,} events, each followed by a "
            "start that sends some events again:",
            "",
            f"- after de-duplication equal to an uninterrupted run: "
            f"{'yes' if found['equal_to_an_uninterrupted_run'] else 'NO'}",
            f"- answers written again: {found['answers_written_again']:,}, of which with other "
            f"bytes: {found['differing_repetitions']}; told as duplicates: "
            f"{found['told_as_duplicates']:,}",
            "",
        ]
    for part in PARTS:
        if part in result:
            told = result[part]
            lines.append(f"- {part}: {told['machine']}, commit {told['commit'][:12]}")
    again = ["", "Run it again:", "", "```", "python benchmarks/stream_engine.py", "```", ""]
    return "\n".join([*lines, *again])


def speed_rows(found: dict[str, Any]) -> list[str]:
    push, kept = found["push_us"], found["snapshot"]
    lines = [
        "| what | result |",
        "|---|---:|",
        f"| one push of one stream, GRU, median (least) | {push['gru']:.1f} "
        f"({push['gru_least']:.1f}) µs |",
        f"| one push of one stream, GRU and head, median (least) | {push['gru_and_head']:.1f} "
        f"({push['gru_and_head_least']:.1f}) µs |",
    ]
    for row in found["throughput"]:
        lines.append(
            f"| {row['events']:,} events of {STREAMS:,} streams in batches of {BATCH:,}, "
            f"{row['threads']} thread{'s' if row['threads'] > 1 else ''} | "
            f"{row['events_per_s']:,.0f} events/s |"
        )
    flat = found["throughput"][-1]
    return [
        *lines,
        f"| memory after {flat['events'] // 10:,} and after {flat['events']:,} events | "
        f"{flat['memory_mb_after_a_tenth']:.0f} and {flat['memory_mb_at_the_end']:.0f} MB |",
        f"| the same into an SQLite store, synced at every batch | "
        f"{found['durable']['events_per_s']:,.0f} events/s |",
        f"| snapshot of {kept['streams']:,} streams, {kept['megabytes']:.0f} MB: write, read | "
        f"{kept['write_s']:.1f}, {kept['read_s']:.1f} s |",
        "",
    ]


def yes(same: bool) -> str:
    return "the same bits" if same else "OTHER BITS"


def main() -> None:
    path = RESULTS / "stream-engine.json"
    result = read_json(path) if path.exists() else {}
    for part in sys.argv[1:] or PARTS:
        found = PARTS[part]()
        result[part] = {**found, "machine": describe_machine(), "commit": describe_commit()}
        print(part, json.dumps(found), flush=True)
    write_json(path, result)
    write_bytes(RESULTS / "stream-engine.md", page(json.loads(json.dumps(result))).encode())


if __name__ == "__main__":
    main()
