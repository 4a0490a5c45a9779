"""`recurra demo`: train on real weather and stock prices, and show what that is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Forecast Seattle's weather and five stock prices, and hold them against naive forecasts.

    \b
    Example:
      recurra demo

    The data come with the package vega_datasets, so no network is needed. Takes a minute or two and
    writes a report: FOLDER/report.html.
    """
    from recurra.cli.output import print_json, print_outcome, print_table
    from recurra.report.results import metric_names
    from recurra.tasks.forecasting.demo import run_demo

    outcomes = run_demo(out)
    if as_json:
        print_json({"demo": outcomes, "report": str(out / "report.html")})
        return
    for outcome in outcomes:
        for name, results in outcome.get("targets", {}).items():
            names = metric_names(results)
            rows = [[row["model"], *(row["metrics"].get(one) for one in names)] for row in results]
            print_table([name, *names], rows)
            typer.echo()
        if "targets" not in outcome:
            print_outcome(outcome, as_json=False)
        for line in outcome["verdicts"]:
            typer.echo(line)
        typer.echo()
    typer.echo(f"report: {out / 'report.html'}")
