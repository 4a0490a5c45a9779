"""`recurra demo`: train on real weather and stock prices, and show what that is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recurra.cli.parameters import Json


def command(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("runs/demo"),
    as_json: Json = False,
) -> None:
    """Forecast Seattle's weather and five stock prices, and hold them against naive forecasts.

    \b
    Example:
      recurra demo

    The data come with the package vega_datasets, so no network is needed. Takes about half a minute
    on two idle cores, and writes a report: FOLDER/report.html.
    """
    from recurra.cli.output import print_json, print_outcome, print_table
    from recurra.errors import RunError
    from recurra.report.results import metric_names
    from recurra.runs import RunFolder
    from recurra.tasks.forecasting.demo import EXAMPLES, run_demo

    report = out / "report.html"
    runs = [RunFolder(out / example.name) for example in EXAMPLES]
    if report.exists() and not all(run.path.is_dir() for run in runs):
        raise RunError(f"{report} is there and is not the demo's. Choose another --out.")
    for run in runs:
        run.check_free(force=True)
    outcomes = run_demo(out)
    if as_json:
        print_json({"demo": outcomes, "report": str(report)})
        return
    for outcome in outcomes:
        for name, results in outcome.get("targets", {}).items():
            names = metric_names(results)
            rows = [[row["model"], *(row["metrics"].get(one) for one in names)] for row in results]
            print_table([name, *names], rows)
            typer.echo()
        if "targets" not in outcome:
            print_outcome(outcome, as_json=False)
        for line in (*outcome["verdicts"], *(f"note: {note}" for note in outcome["notes"])):
            typer.echo(line)
        typer.echo()
    typer.echo(f"report: {report}")
