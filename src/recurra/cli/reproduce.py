"""`recurra reproduce`: run a published benchmark from its recipe; keep and print the outcome."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recurra.data.recipe import Recipe


def command(
    name: Annotated[
        str | None, typer.Argument(help="A recipe; without it, all are listed.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Run this seed only, instead of all of the recipe's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for NAME/seed-K.json and NAME.md [default in a checkout: docs/results]"
        ),
    ] = None,
    table: Annotated[
        bool,
        typer.Option("--table", help="Run nothing: only assemble NAME.md from the seeds' files."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace outcomes that are there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a published benchmark again: data, training and the official protocol.

    \b
    Example:
      recurra reproduce weather --seed 0

    Each seed's outcome becomes one JSON file, and NAME.md is assembled from all of these files.
    Several seeds are printed as mean and standard deviation.
    """
    from recurra.cli.output import print_json, print_outcome, print_table
    from recurra.data.recipe import find_recipe, list_recipes
    from recurra.errors import ConfigError
    from recurra.report.results import checkout, combine, write_outcome, write_table

    if name is None:
        recipes = [find_recipe(known) for known in list_recipes()]
        if as_json:
            print_json({"recipes": [recipe.model_dump(mode="json") for recipe in recipes]})
        else:
            rows = [[r.name, r.task, r.dataset, r.description] for r in recipes]
            print_table(["name", "task", "data", "about"], rows)
        return
    recipe = find_recipe(name)
    root = checkout()
    folder = out or (root / "docs" / "results" if root else None)
    if table:
        if folder is None:
            raise ConfigError(
                "--table needs --out DIR outside a checkout: it reads DIR/NAME/*.json."
            )
        path = write_table(folder, name, recipe.description)
        if as_json:
            print_json({"table": str(path)})
        else:
            typer.echo(str(path))
        return
    seeds = recipe.seeds if seed is None else (seed,)
    _check_ready(recipe, folder, seeds, force)
    outcomes = []
    for one in seeds:
        typer.echo(f"{name}, seed {one}", err=True)
        outcome = _with_published(run_recipe(recipe, one), recipe)
        outcomes.append(outcome)
        if folder is not None:
            write_outcome(folder / name / f"seed-{one}.json", outcome)
            write_table(folder, name, recipe.description)
    print_outcome(outcomes[0] if len(outcomes) == 1 else combine(outcomes), as_json=as_json)


def run_recipe(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Run one seed of the recipe: `recurra.tasks.TASK.reproduce.reproduce(recipe, seed)`."""
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
    outcome = importlib.import_module(module_name).reproduce(recipe, seed)
    return dict(outcome)


def _check_ready(recipe: Recipe, folder: Path | None, seeds: tuple[int, ...], force: bool) -> None:
    """Find what would fail only after the work is done: absent data, outcomes that are there."""
    from recurra.data.catalogue import locate
    from recurra.errors import RunError

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
