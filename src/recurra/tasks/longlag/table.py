"""The page of one comparison, in Markdown, out of the files of its cases."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recurra.errors import DataError
from recurra.report.results import format_metric, how_to_repeat
from recurra.tasks.longlag.model import VARIANTS

Outcome = Mapping[str, Any]


def format_page(name: str, description: str, outcomes: Sequence[Outcome]) -> str:
    """One table for each length: a row for each cell and way of clipping, over all seeds.

    Raises: DataError when an outcome is not a case of this comparison.
    """
    for outcome in outcomes:
        _check(name, outcome)
    lines = [f"# {name}", "", description.strip()]
    lengths = {outcome["case"]["length"] for outcome in outcomes}
    for length in sorted(lengths, key=lambda length: length or 0):
        of_length = [outcome for outcome in outcomes if outcome["case"]["length"] == length]
        lines += ["", *_section(of_length)]
    lines += [
        "",
        f"- machine: {_in_order(str(o['machine']) for o in outcomes)}",
        f"- commit: {_in_order(str(o['commit']) for o in outcomes)}",
        *how_to_repeat(f"recurra reproduce {name}"),
    ]
    return "\n".join(lines)


def _section(outcomes: Sequence[Outcome]) -> list[str]:
    """The table of one length, with its baseline and what counts as solved."""
    score = _score(outcomes[0])
    has_criterion = outcomes[0]["problem"]["solved_below"] is not None
    solved = ["solved", "steps to solve"] if has_criterion else []
    times = ["seconds", "CPU seconds"]
    names = ["seeds", *solved, f"test {score}", "clipped steps", *times, "parameters"]
    rows = [_row(group, score, has_criterion) for group in _groups(outcomes)]
    return [
        f"## {outcomes[0]['data']}",
        "",
        *_criterion(outcomes[0]["problem"], score),
        "",
        f"| cell | clip | {' | '.join(names)} |",
        "|---|---|" + "---:|" * len(names),
        *rows,
        "",
        *_training(outcomes),
    ]


def _row(group: Sequence[Outcome], score: str, has_criterion: bool) -> str:
    case = group[0]["case"]
    metrics = [outcome["results"][0]["metrics"] for outcome in group]
    clipped = [o["training"]["clipped"] for o in group if o["training"]["clipped"] is not None]
    cells = [
        group[0]["results"][0]["model"],
        case["clip"],
        ", ".join(str(outcome["case"]["seed"]) for outcome in group),
        *(_solved(group) if has_criterion else []),
        _spread([row[score] for row in metrics]),
        f"{statistics.fmean(clipped):.1%}" if clipped else "-",
        f"{statistics.fmean(outcome['seconds'] for outcome in group):.0f}",
        _cpu_seconds(group),
        f"{group[0]['training']['parameters']:,}",
    ]
    return f"| {' | '.join(cells)} |"


def _solved(group: Sequence[Outcome]) -> list[str]:
    """How many seeds solved it, and after how many steps; or after how many they had not."""
    steps = [outcome["results"][0]["metrics"]["steps_to_solve"] for outcome in group]
    known = [count for count in steps if count is not None]
    if known:
        return [f"{len(known)} of {len(group)}", _spread(known)]
    longest = max(outcome["training"]["steps_done"] for outcome in group)
    diverged = all(outcome["training"]["stopped"] == "diverged" for outcome in group)
    how = f"diverged within {longest:,}" if diverged else f"not in {longest:,}"
    return [f"0 of {len(group)}", how]


def _cpu_seconds(group: Sequence[Outcome]) -> str:
    """Of all threads together: what a run costs, also where it had to wait for others."""
    known = [o["training"]["cpu_seconds"] for o in group if "cpu_seconds" in o["training"]]
    return f"{statistics.fmean(known):.0f}" if known else "-"


def _spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation where there are several."""
    if len(values) == 1:
        return format_metric(values[0])
    deviation = statistics.stdev(values) if len(set(values)) > 1 else 0.0
    return format_metric({"mean": statistics.fmean(values), "sd": deviation, "n": len(values)})


def _criterion(problem: Mapping[str, Any], score: str) -> list[str]:
    """The baseline and the criterion, in the terms of the table."""
    baseline, limit = problem["baseline"], problem["solved_below"]
    if score == "accuracy":
        known = f"Baseline, guessing one class: accuracy {format_metric(1 - baseline)}."
        solved = "" if limit is None else f" Solved: accuracy above {format_metric(1 - limit)}."
    else:
        known = f"Baseline, without memory: {score} {format_metric(baseline)}."
        solved = "" if limit is None else f" Solved: {score} below {format_metric(limit)}."
    return [f"{known}{solved}"]


def _training(outcomes: Sequence[Outcome]) -> list[str]:
    """The settings; those that all cases share are said once."""
    names = ("steps", "hidden_size", "num_layers", "batch_size", "learning_rate", "clip_limit")
    return [
        f"- {name.replace('_', ' ')}: "
        + _in_order(f"{outcome['training'][name]:g}" for outcome in outcomes)
        for name in names
    ]


def _groups(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """The cases that differ in their seed only; in the order of `VARIANTS`."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        case = outcome["case"]
        groups.setdefault((case["cell"], case["clip"]), []).append(outcome)
    order = {cell: number for number, cell in enumerate(VARIANTS)}
    keys = sorted(groups, key=lambda key: (order.get(key[0], len(order)), key))
    return [sorted(groups[key], key=lambda outcome: int(outcome["case"]["seed"])) for key in keys]


def _score(outcome: Outcome) -> str:
    """The metric that the table shows beside the steps."""
    metrics = outcome["results"][0]["metrics"]
    return next(str(name) for name in metrics if name != "steps_to_solve")


def _in_order(values: Iterable[str]) -> str:
    """Each different value once, in order of first appearance."""
    return "; ".join(dict.fromkeys(values))


def _check(name: str, outcome: Outcome) -> None:
    missing = [key for key in ("case", "problem", "training") if key not in outcome]
    if missing:
        raise DataError(
            f"an outcome of {name} on {outcome['data']!r} has no {', '.join(missing)}; "
            f"expected the form that `recurra reproduce {name}` writes. Run it with --force."
        )
