"""`recurra data`: which public data sets there are, and a way to have them here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from recurra.cli.parameters import Json

app = typer.Typer(
    help="""Public data sets for the recipes and examples.

\b
Example:
  recurra data list
  recurra data get weather-seattle

A set is looked for in the folder that RECURRA_DATA names, then in the cache (RECURRA_CACHE, or
~/.cache/recurra)."""
)


@app.command("list")
def list_datasets(
    as_json: Json = False,
) -> None:
    """List every data set, where it is on this machine, and its licence."""
    from recurra.cli.output import print_json, print_table
    from recurra.data.catalogue import cache_folder, find
    from recurra.data.datasets import DATASETS

    rows = []
    for name, entry in DATASETS.items():
        found = find(name)
        rows.append(
            {
                "name": name,
                "here": found.source if found else None,
                "folder": str(found.folder) if found else None,
                "download": entry.downloadable,
                "bytes": entry.bytes,
                "licence": entry.licence,
                "about": entry.about,
                "citation": entry.citation,
                "page": entry.page,
            }
        )
    if as_json:
        offline = os.environ.get("RECURRA_DATA")
        print_json({"RECURRA_DATA": offline, "cache": str(cache_folder()), "datasets": rows})
        return
    print_table(
        ["name", "here", "get", "MB", "licence", "about"],
        [
            [
                row["name"],
                row["here"] or "no",
                row["download"],
                f"{entry.bytes / 1e6:.2f}",
                row["licence"],
                row["about"],
            ]
            for row, entry in zip(rows, DATASETS.values(), strict=True)
        ],
    )


@app.command("get")
def get_dataset(
    name: Annotated[str, typer.Argument(help="A name from `recurra data list`.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to download into, instead of the cache.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a data set from its official address and check its hash.

    Files that are there and whole are not downloaded again. The folder is printed on stdout; with
    --out DIR, set RECURRA_DATA=DIR to use it.
    """
    from recurra.cli.output import print_json
    from recurra.data.catalogue import dataset, get

    entry = dataset(name)
    folder, downloaded = get(name, out)
    if as_json:
        print_json({"name": name, "folder": str(folder), "downloaded": downloaded})
        return
    typer.echo(f"{len(downloaded)} of {len(entry.files)} files downloaded", err=True)
    typer.echo(f"licence: {entry.licence}; please cite: {entry.citation}", err=True)
    typer.echo(str(folder))
