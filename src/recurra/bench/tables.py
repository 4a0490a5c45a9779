"""The tables of an outcome: for the terminal, and as the page docs/results/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurra.errors import DataError
from recurra.report.results import how_to_repeat
from recurra.runs import read_json, write_bytes

KEYS = (
    *("task", "command", "seconds", "machine", "commit", "versions", "settings", "absent"),
    *("failed", "product_gflops", "disturbed", "summary", "rows"),
)
FAMILIES = (("train", "infer"), ("step",), ("ragged-train", "ragged-infer"), ("memory",))
TITLES = {
    "train": "Training: forward and backward",
    "infer": "Inference: forward",
    "step": "One step at batch 1",
    "ragged-train": "Training on ragged batches",
    "ragged-infer": "Inference on ragged batches",
    "memory": "Memory of one training step",
}
RATIOS = (("ratio, medians", "ratio_median", 1), ("ratio, minima", "ratio_min", 1))
ERRORS = (("output error", "output_error", 1), ("gradient error", "gradient_error", 1))
# Of each mode: (header, key of the row, factor).
COLUMNS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "train": (
        ("median ms", "median_ms", 1),
        ("min ms", "min_ms", 1),
        *RATIOS,
        ("% of product", "product_percent", 1),
        *ERRORS,
    ),
    "step": (
        ("p50 µs", "median_ms", 1000),
        ("p99 µs", "p99_ms", 1000),
        ("min µs", "min_ms", 1000),
        *RATIOS,
        ERRORS[0],
    ),
    "ragged-train": (
        ("ragged ms", "median_ms", 1),
        ("padded ms", "padded_ms", 1),
        ("ragged ÷ padded", "of_padded_median", 1),
        ("of minima", "of_padded_min", 1),
        *RATIOS,
        *ERRORS,
    ),
    "memory": (("MiB", "mib", 1), ("÷ torch's", "of_torch", 1)),
}
COLUMNS["infer"] = tuple(column for column in COLUMNS["train"] if column != ERRORS[1])
COLUMNS["ragged-infer"] = tuple(column for column in COLUMNS["ragged-train"] if column != ERRORS[1])
SUMMARY: tuple[tuple[str, str, float], ...] = (
    ("shapes", "shapes", 1),
    *RATIOS,
    ("lowest", "lowest_ratio", 1),
    ("to torch-tuned, medians", "tuned_ratio_median", 1),
    ("to torch-tuned, minima", "tuned_ratio_min", 1),
    ("to torch-tuned, lowest", "tuned_lowest_ratio", 1),
    ("% of product", "product_percent", 1),
    ("ragged ÷ padded", "of_padded_median", 1),
    ("memory ÷ torch's", "of_torch", 1),
)


@dataclass
class Table:
    """A table with its title; a cell is text, a number, or None for what is not there."""

    title: str
    headers: list[str]
    rows: list[list[Any]]


def make_tables(outcome: Mapping[str, Any]) -> list[Table]:
    """The geometric means of all modes first, then every row, a table for each mode and threads."""
    tables = []
    for family in FAMILIES:
        summary = [row for row in outcome["summary"] if row["mode"] in family]
        if summary:
            tables.append(_summary(summary))
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in outcome["rows"]:
        groups.setdefault((row["mode"], row["threads"]), []).append(row)
    for (mode, threads), rows in groups.items():
        columns = COLUMNS[mode]
        tables.append(
            Table(
                f"{TITLES[mode]}, {threads} thread{'s' if threads > 1 else ''}",
                ["cell", "B,T,I,H,L", "participant", *(header for header, _, _ in columns)],
                [
                    [
                        row["cell"],
                        ",".join(map(str, row["shape"])),
                        row["participant"] + ("" if row.get("kept", 1) else " (disturbed)"),
                        *_values(row, columns),
                    ]
                    for row in rows
                ],
            )
        )
    return tables


def _summary(summary: Sequence[Mapping[str, Any]]) -> Table:
    columns = [column for column in SUMMARY if any(column[1] in row for row in summary)]
    return Table(
        f"Geometric means over the shapes: {', '.join(dict.fromkeys(r['mode'] for r in summary))}",
        ["mode", "cell", "threads", "participant", *(header for header, _, _ in columns)],
        [
            [row["mode"], row["cell"], row["threads"], row["participant"], *_values(row, columns)]
            for row in summary
        ],
    )


def _values(row: Mapping[str, Any], columns: Iterable[tuple[str, str, float]]) -> list[Any]:
    found = [(row.get(key), factor) for _, key, factor in columns]
    return [value if value is None or factor == 1 else value * factor for value, factor in found]


def make_notes(outcome: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the figures: discarded rounds, absent rivals, failures."""
    disturbed, settings = outcome["disturbed"], outcome["settings"]
    notes = []
    if disturbed["rounds"]:
        notes.append(
            f"{settings['rounds']} rounds or more, visits of {settings['visit_s']:g} s; "
            f"{disturbed['discarded']} of {disturbed['rounds']} rounds discarded, because the "
            "matrix product ran below 80 % of its best"
        )
    processes = {row["processes"] for row in outcome["rows"] if "processes" in row}
    if processes:
        notes.append(f"memory: median of {max(processes)} fresh processes")
    if disturbed["waited"] is not None:
        notes.append(
            "share of the time in which some process of the machine waited for a CPU, at most: "
            f"{100 * disturbed['waited']:.0f} %"
        )
    for threads, gflops in outcome["product_gflops"].items():
        notes.append(f"best matrix product, threads {threads}: {gflops} GFLOP/s")
    backends = {row["runs_on"] for row in outcome["rows"] if row.get("runs_on")}
    if backends:
        notes.append(f"recurra ran on: {'; '.join(sorted(backends))}")
    notes += [f"{name} is not installed: {how}" for name, how in outcome["absent"].items()]
    notes += [
        f"{one['participant']} failed at {one['case']}: {one['why']}" for one in outcome["failed"]
    ]
    versions = [f"{name} {found}" for name, found in outcome["versions"].items()]
    return [*notes, f"versions: {', '.join(versions)}"]


ABOUT = """recurra's layers and other frameworks on the same weights and inputs, float32, on a CPU.
Ratios are torch.nn's time divided by this one's, of the medians and of the minima over rounds:
above 1 is faster. `torch-tuned` is torch.nn in a process whose malloc keeps large buffers. Steps
are held against torch.nn's cells in inference mode; `recurra` steps by `stream.push(x_t)`,
`recurra-out` by `stream.push(x_t, out=y)`, which allocates nothing. Ragged batches are held against
torch.nn with packing and unpacking. ONNX Runtime is called through `session.run` with NumPy arrays,
which costs some microseconds a call beside the computation. "lowest" is the worst shape, by medians
or by minima.
"% of product" is the rate of the matrix products inside, in % of a 1024³ product timed in the same
rounds. Errors are the largest ones against torch.nn in float64; those of gradients relative to the
largest entry."""


def make_page(outcome: Mapping[str, Any]) -> str:
    """The page of an outcome, in Markdown."""
    lines = ["# performance", "", ABOUT]
    for table in make_tables(outcome):
        lines += ["", f"## {table.title}", "", *_markdown(table)]
    lines += [
        "",
        "## How it was measured",
        "",
        *(f"- {note}" for note in make_notes(outcome)),
        f"- time: {outcome['seconds']:.0f} s",
        f"- machine: {outcome['machine']}",
        f"- commit: {outcome['commit']}",
        *how_to_repeat(outcome["command"]),
    ]
    return "\n".join(lines)


def _markdown(table: Table) -> list[str]:
    numbers = [
        all(row[k] is None or isinstance(row[k], (int, float)) for row in table.rows)
        for k in range(len(table.headers))
    ]
    rule = "".join("---:|" if is_number else "---|" for is_number in numbers)
    lines = [f"| {' | '.join(table.headers)} |", f"|{rule}"]
    for row in table.rows:
        cells = [value if isinstance(value, str) else format_figure(value) for value in row]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def format_figure(value: float | None) -> str:
    """Three significant figures: more would be noise.

    >>> format_figure(3.14159), format_figure(1234.5), format_figure(2.4e-7), format_figure(None)
    ('3.14', '1234', '2.4e-07', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write_page(path: Path) -> Path:
    """Assemble NAME.md beside the outcome NAME.json, and return its path.

    Raises: RunError when the file cannot be read, DataError when it is no outcome of a benchmark.
    """
    outcome = read_json(path)
    missing = [key for key in KEYS if not isinstance(outcome, dict) or key not in outcome]
    if missing or outcome["task"] != "bench":
        raise DataError(
            f"{path} is no outcome of `recurra bench`: it has no {', '.join(missing) or 'task'} "
            "as expected. Make it with `recurra bench --out FILE.json`."
        )
    target = path.with_suffix(".md")
    write_bytes(target, make_page(outcome).encode())
    return target
