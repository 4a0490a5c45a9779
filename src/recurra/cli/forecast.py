"""`recurra forecast`: train, evaluate, predict and stream forecasts of time series."""

from __future__ import annotations

import sys
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recurra.tasks.forecasting.forecaster import Forecaster

HELP = """Forecast time series: train, evaluate, predict, stream.

\b
Example:
  recurra forecast train sales.csv --time date --target units --horizon 28 --out runs/sales
  recurra forecast predict runs/sales
"""

app = typer.Typer(help=HELP)

Run = Annotated[Path, typer.Argument(help="Run folder made by `recurra forecast train`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
SHOWN_ROWS = 60


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help="CSV (also .gz, .xz) or Parquet, in long form.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    horizon: Annotated[int, typer.Option(help="Steps ahead.")],
    target: Annotated[str, typer.Option(help="Columns to forecast: units[,price].")],
    time: Annotated[str, typer.Option(help="Column of times, or of whole numbers.")] = "time",
    series: Annotated[str | None, typer.Option(help="Column that names the series.")] = None,
    future: Annotated[
        str | None, typer.Option(help="Covariates known ahead: promo,holiday.")
    ] = None,
    past: Annotated[str | None, typer.Option(help="Covariates known up to now.")] = None,
    static: Annotated[str | None, typer.Option(help="Covariates fixed per series.")] = None,
    until: Annotated[
        str | None, typer.Option(help="Last time to train on; later rows are left for evaluate.")
    ] = None,
    freq: Annotated[
        str | None, typer.Option(help="Step between rows, such as 1h [default: inferred].")
    ] = None,
    duplicates: Annotated[
        str | None, typer.Option(help="Repeated times: error, mean, first or last.")
    ] = None,
    time_format: Annotated[
        str | None, typer.Option(help="dmy, mdy, or a pattern such as %d/%m/%y.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Rows one step looks back.")] = None,
    season: Annotated[
        int | None, typer.Option(help="Rows in a season, 1 for none [default: found in the data].")
    ] = None,
    cell: Annotated[str | None, typer.Option(help="gru, lstm or rnn [default: gru].")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Longest time to train [default: 10].")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Train this many updates instead of by the clock.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all chance [default: 0].")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda [default: auto].")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings as .toml or .json.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting: hidden_size=64, training.learning_rate=1e-3."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a forecaster on a table and write it to a run folder.

    \b
    Example:
      recurra forecast train sales.csv --time date --target units --horizon 28 --out runs/sales

    Training ends after --minutes at the latest, and before when the rows kept for validation get no
    better. --until leaves the end of the table for `recurra forecast evaluate`.
    """
    from recurra.cli.options import merge_settings, split_names
    from recurra.cli.output import print_json
    from recurra.tasks.forecasting.forecaster import Forecaster

    explicit = {
        "horizon": horizon,
        "frequency": freq,
        "duplicates": duplicates,
        "time_format": time_format,
        "context": context,
        "season": season,
        "cell": cell,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "device": device,
    }
    forecaster = Forecaster(**merge_settings(config, explicit, set_ or []))
    forecaster.fit(
        table,
        time=time,
        target=split_names(target),
        series=series,
        future=split_names(future),
        past=split_names(past),
        static=split_names(static),
        until=until,
        out=out,
        force=force,
        resume=resume,
    )
    result = forecaster.fitted.training["result"]
    if as_json:
        notes = list(forecaster.fitted.notes)
        print_json({"task": "forecasting", "run": str(out), "notes": notes, **result})
        return
    for note in forecaster.fitted.notes:
        typer.echo(note)
    best = "" if result["best_step"] is None else f", best at step {result['best_step']}"
    typer.echo(f"trained {result['steps']} steps in {result['seconds']:.0f} s{best}")
    typer.echo(f"saved to {out}")


@app.command()
def evaluate(
    run: Run,
    table: Annotated[Path, typer.Argument(help="Table that goes on after the training data.")],
    windows: Annotated[
        int | None,
        typer.Option(help="Windows per series, counted from the end [default: all that fit]."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score the run on the rows after its training data, next to naive forecasts.

    \b
    Example:
      recurra forecast evaluate runs/sales sales.csv --windows 8

    Windows of `horizon` rows lie side by side. The scores are also kept in the run folder, for
    `recurra report`.
    """
    from recurra.cli.output import print_json, print_outcome, print_table
    from recurra.report.results import metric_names
    from recurra.runs import RunFolder, write_json
    from recurra.tasks.forecasting.forecaster import Forecaster
    from recurra.tasks.forecasting.outcome import evaluation_outcome

    started = clock.monotonic()
    evaluation = Forecaster.load(run).evaluate(table, windows=windows)
    outcome = evaluation_outcome(evaluation, table.name, clock.monotonic() - started)
    write_json(RunFolder(run).metrics_path, {**outcome, "details": evaluation.details()})
    if as_json:
        print_json(outcome)
        return
    for name, results in outcome.get("targets", {}).items():
        names = metric_names(results)
        rows = [[row["model"], *(row["metrics"].get(one) for one in names)] for row in results]
        print_table([name, *names], rows)
        print()
    print_outcome(outcome, as_json=False)
    for note in outcome["notes"]:
        typer.echo(f"note: {note}")


@app.command()
def predict(
    run: Run,
    table: Annotated[
        Path | None,
        typer.Argument(help="Table to go on from [default: the training table's end]."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="File to write, .csv or .parquet; - for CSV on stdout.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Changes nothing: these forecasts involve no chance.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Forecast the steps after the last row of each series.

    \b
    Example:
      recurra forecast predict runs/sales sales.csv --out next.csv --plot next.png

    The answer has one row per series, target and step, and one column per quantile.
    """
    from recurra.cli.output import print_json, print_table
    from recurra.errors import RunError
    from recurra.tasks.forecasting.forecaster import Forecaster

    for path in (plot, None if out in (None, "-") else Path(str(out))):
        if path is not None and path.exists() and not force:
            raise RunError(f"{path} is already there. Pass --force to replace it.")
    forecaster = Forecaster.load(run)
    frame = forecaster.predict(table)
    if plot is not None:
        _plot(forecaster, table, plot)
    if out is not None:
        _write(frame, out)
    elif as_json:
        columns = {name: _plain(frame[name]) for name in frame.columns}
        print_json({"task": "forecasting", "run": str(run), "forecast": columns})
    else:
        wanted = [
            name for name in frame.columns if name[0] != "q" or name in ("q0.1", "q0.5", "q0.9")
        ]
        rows = [list(row) for row in zip(*(_plain(frame[name]) for name in wanted), strict=True)]
        print_table(wanted, rows[:SHOWN_ROWS])
        if len(rows) > SHOWN_ROWS:
            typer.echo(
                f"… {len(rows) - SHOWN_ROWS} more rows; --out FILE writes all, with all quantiles"
            )


@app.command()
def stream(
    run: Run,
    table: Annotated[
        Path | None,
        typer.Option(help="Table to read first [default: go on from the training table's end]."),
    ] = None,
) -> None:
    """Answer each observation on stdin with a fresh forecast: JSON lines in, JSON lines out.

    \b
    Example:
      echo '{"date": "2016-01-01", "units": 12}' | recurra forecast stream runs/sales

    The model's scaling is causal: each answer costs the same however long the stream has run, and
    equals what `predict` says of the same rows. A line that cannot be used is answered with an
    error.
    """
    from recurra.streaming.jsonlines import answer, flushed, read_lines
    from recurra.tasks.forecasting.forecaster import Forecaster

    session = Forecaster.load(run).stream(table)
    answer(read_lines(sys.stdin.buffer), session.push, flushed(sys.stdout))


def _plot(forecaster: Forecaster, table: Path | None, path: Path) -> None:
    from recurra.report.charts import save
    from recurra.tasks.forecasting.report import prediction_figure

    save(prediction_figure(forecaster, table), path)


def _write(frame: Any, out: str) -> None:
    """Write a polars frame; the file appears whole or not at all."""
    import io

    from recurra.errors import ConfigError
    from recurra.runs import write_bytes

    if out == "-":
        sys.stdout.write(frame.write_csv())
        return
    buffer = io.BytesIO()
    if out.endswith(".parquet"):
        frame.write_parquet(buffer)
    elif out.endswith(".csv"):
        frame.write_csv(buffer)
    else:
        raise ConfigError(f"--out {out}: expected a file ending in .csv or .parquet, or -.")
    write_bytes(Path(out), buffer.getvalue())


def _plain(column: Any) -> list[Any]:
    """A polars column as JSON values: times as text."""
    import polars as pl

    if column.dtype.is_temporal():
        return [
            str(value).removesuffix(" 00:00:00")
            for value in column.cast(pl.Datetime("us")).to_list()
        ]
    return list(column.to_list())
