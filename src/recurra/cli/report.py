"""`recurra report`: write the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Which module draws the report of a task; the name in a run's config only chooses among these.
REPORTS = {"forecasting": "recurra.tasks.forecasting.report"}


def command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write [default: report.html in the run].")
    ] = None,
) -> None:
    """Write a run's report: one HTML file that needs nothing else.

    \b
    Example:
      recurra report runs/sales
    """
    import importlib

    from recurra.errors import RunError, unknown
    from recurra.runs import RunFolder

    folder = RunFolder.open(run)
    task = folder.read_config()["task"]
    if task not in REPORTS:
        raise RunError(f"{folder.config_path}: {unknown('task', task, REPORTS)}")
    path = out or folder.report_path
    importlib.import_module(REPORTS[task]).run_report(folder).write(path)
    typer.echo(str(path))
