"""`recurra reproduce`: run a published benchmark from its recipe; keep and print the outcome."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recurra.cli.parameters import Json

if TYPE_CHECKING:
    from recurra.data.recipe import Recipe


def command(
    name: Annotated[
        str | None, typer.Argument(help="A recipe; without it, all are listed.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Run this seed only, instead of all of the recipe's.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Comparisons: steps of a sequence [the recipe's].")
    ] = None,
    cell: Annotated[
        list[str] | None, typer.Option(help="Comparisons: this cell only; may be repeated.")
    ] = None,
    clip: Annotated[
        list[str] | None, typer.Option(help="Comparisons: with this clipping only, none or norm.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for NAME/*.json and NAME.md [default in a checkout: docs/results]"
        ),
    ] = None,
    table: Annotated[
        bool,
        typer.Option("--table", help="Run nothing: only assemble NAME.md from NAME/*.json."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace outcomes that are there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a published benchmark again: data, training and the official protocol.

    \b
    Example:
      recurra reproduce weather --seed 0
      recurra reproduce adding --cell lstm --cell gru --length 1000

    Each outcome becomes one JSON file, and NAME.md is assembled from all of these files. Several
    seeds are shown as mean and standard deviation. A comparison has an outcome for each cell, way
    of clipping and seed; it keeps those that are there and runs the others.
    """
    from recurra.data.recipe import find_recipe
    from recurra.errors import ConfigError
    from recurra.report.results import checkout, write_table

    if name is None:
        _list_recipes(as_json)
        return
    recipe = find_recipe(name)
    task = find_task(recipe)
    root = checkout()
    folder = out or (root / "docs" / "results" if root else None)
    seeds = recipe.seeds if seed is None else (seed,)
    asked = {"length": length, "cell": cell, "clip": clip}
    choice = {option: value for option, value in asked.items() if value is not None}
    is_comparison = hasattr(task, "plan")
    if choice and not is_comparison:
        raise ConfigError(
            f"{name} is no comparison of cells, and has no --{', --'.join(choice)}. Leave that out."
        )
    if table:
        if folder is None:
            raise ConfigError(
                "--table needs --out DIR outside a checkout: it reads DIR/NAME/*.json."
            )
        if is_comparison:
            path = _write_page(task, recipe, folder)
        else:
            path = write_table(folder, recipe.name, recipe.description)
        _print_path(path, as_json)
    elif is_comparison:
        _compare(task, recipe, seeds, choice, folder, force, as_json)
    else:
        _run_seeds(task, recipe, seeds, folder, force, as_json)


def find_task(recipe: Recipe) -> ModuleType:
    """The module that runs the recipe, `recurra.tasks.TASK.reproduce`.

    It has `reproduce(recipe, seed)`; or, for a comparison of many trainings, `plan(recipe, seeds,
    choice)`, `run(recipe, case)` and `page(recipe, outcomes)`.
    """
    from recurra.errors import DataError

    module_name = f"recurra.tasks.{recipe.task}.reproduce"
    try:
        found = importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise DataError(
            f"recipe {recipe.name!r} is for the task {recipe.task!r}, which this version does not "
            "have. Install a newer recurra."
        )
    return importlib.import_module(module_name)


def _list_recipes(as_json: bool) -> None:
    from recurra.cli.output import print_json, print_table
    from recurra.data.recipe import find_recipe, list_recipes

    recipes = [find_recipe(known) for known in list_recipes()]
    if as_json:
        print_json({"recipes": [recipe.model_dump(mode="json") for recipe in recipes]})
    else:
        rows = [[r.name, r.task, r.dataset, first_sentence(r.description)] for r in recipes]
        print_table(["name", "task", "data", "about"], rows)


def first_sentence(text: str) -> str:
    """The beginning of a description, up to its first full stop or question mark, in one line.

    >>> first_sentence("The 3,003 series of M3,\\nofficial split. Settings were chosen ...")
    'The 3,003 series of M3, official split.'
    """
    whole = " ".join(text.split())
    return re.split(r"(?<=[.?])\s", whole, maxsplit=1)[0]


def _print_path(path: Path, as_json: bool) -> None:
    from recurra.cli.output import print_json

    if as_json:
        print_json({"table": str(path)})
    else:
        typer.echo(str(path))


def _run_seeds(
    task: ModuleType,
    recipe: Recipe,
    seeds: Sequence[int],
    folder: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run each seed, keep its outcome, and print them together."""
    from recurra.cli.output import print_outcome
    from recurra.report.results import combine, write_outcome, write_table

    _check_ready(recipe, folder, seeds, force)
    outcomes = []
    for one in seeds:
        typer.echo(f"{recipe.name}, seed {one}", err=True)
        outcome = _with_published(task.reproduce(recipe, one), recipe)
        outcomes.append(outcome)
        if folder is not None:
            write_outcome(folder / recipe.name / f"seed-{one}.json", outcome)
            write_table(folder, recipe.name, recipe.description)
    print_outcome(outcomes[0] if len(outcomes) == 1 else combine(outcomes), as_json=as_json)


def _compare(
    task: ModuleType,
    recipe: Recipe,
    seeds: Sequence[int],
    choice: Mapping[str, Any],
    folder: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run the cases that have no outcome yet, and print those that were asked for."""
    from recurra.cli.output import print_json
    from recurra.report.results import read_outcome, write_outcome

    cases = task.plan(recipe, seeds, choice)
    outcomes = []
    for number, case in enumerate(cases, start=1):
        path = None if folder is None else folder / recipe.name / f"{case.name}.json"
        is_kept = path is not None and path.exists() and not force
        kept = ", kept (--force runs it again)" if is_kept else ""
        typer.echo(f"{recipe.name}, {number} of {len(cases)}: {case.name}{kept}", err=True)
        if path is not None and is_kept:
            outcomes.append(read_outcome(path))
            continue
        outcomes.append(task.run(recipe, case))
        if path is not None and folder is not None:
            write_outcome(path, outcomes[-1])
            _write_page(task, recipe, folder)
    if as_json:
        print_json({"name": recipe.name, "outcomes": outcomes})
    else:
        _print_cases(outcomes)


def _write_page(task: ModuleType, recipe: Recipe, folder: Path) -> Path:
    """Assemble NAME.md from all the outcomes that are there."""
    from recurra.errors import DataError
    from recurra.report.results import read_outcome
    from recurra.runs import write_bytes

    paths = sorted((folder / recipe.name).glob("*.json"))
    if not paths:
        raise DataError(
            f"{folder / recipe.name} holds no outcome; run `recurra reproduce {recipe.name}` first."
        )
    target = folder / f"{recipe.name}.md"
    page = task.page(recipe, [read_outcome(path) for path in paths])
    write_bytes(target, page.encode())
    return target


def _print_cases(outcomes: Sequence[Mapping[str, Any]]) -> None:
    from recurra.cli.output import print_table
    from recurra.report.results import metric_names

    rows = [(outcome, outcome["results"][0]) for outcome in outcomes]
    names = metric_names(row for _, row in rows)
    print_table(
        ["data", "cell", "clip", "seed", *names, "seconds"],
        [
            [
                outcome["data"],
                row["model"],
                outcome["case"]["clip"],
                outcome["case"]["seed"],
                *(row["metrics"].get(name) for name in names),
                outcome["seconds"],
            ]
            for outcome, row in rows
        ],
    )


def _check_ready(recipe: Recipe, folder: Path | None, seeds: Sequence[int], force: bool) -> None:
    """Find what would fail only after the work is done: absent data, outcomes that are there."""
    from recurra.data.catalogue import locate
    from recurra.errors import RunError

    if recipe.dataset is not None:
        locate(recipe.dataset)
    if folder is None or force:
        return
    for seed in seeds:
        path = folder / recipe.name / f"seed-{seed}.json"
        if path.exists():
            raise RunError(
                f"{path} is already there. Pass --force to replace it, --seed for another seed, or "
                "--table to assemble the table again."
            )


def _with_published(outcome: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Add the recipe's published rows, each named with its source, where the task has none."""
    results = list(outcome["results"])
    if not any(row["source"] == "published" for row in results):
        results += [
            {
                "model": f"{row.model} ({row.source})",
                "source": "published",
                "metrics": dict(row.metrics),
            }
            for row in recipe.published
        ]
    return {**outcome, "results": results}
