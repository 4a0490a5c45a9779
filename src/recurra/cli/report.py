"""`recurra report`: write the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Which module draws the report of a task; the name in a run's config only chooses among these.
REPORTS = {
    "anomaly": "recurra.tasks.anomaly.report",
    "forecasting": "recurra.tasks.forecasting.report",
    "language": "recurra.tasks.language.report",
    "sentiment": "recurra.tasks.sentiment.report",
    "speech": "recurra.tasks.speech.report",
    "translation": "recurra.tasks.translation.report",
}


def command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write [default: report.html in the run].")
    ] = None,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Add how gradients flowed back in training.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
) -> None:
    """Write a run's report: one HTML file that needs nothing else.

    \b
    Example:
      recurra report runs/sales

    --gradients draws what a training with --set training.gradient_flow_every=100 has measured: the
    norm of the gradient over time and training, gates, memory length.
    """
    import importlib

    from recurra.errors import ConfigError, RunError, unknown
    from recurra.runs import RunFolder

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: a report is HTML; expected a file ending in .html.")
    if out is not None and out.exists() and not force:
        raise RunError(f"{out} is already there. Pass --force to replace it.")
    folder = RunFolder.open(run)
    task = folder.read_config()["task"]
    if task not in REPORTS:
        raise RunError(f"{folder.config_path}: {unknown('task', task, REPORTS)}")
    path = out or folder.report_path
    importlib.import_module(REPORTS[task]).run_report(folder, gradients=gradients).write(path)
    typer.echo(str(path))
