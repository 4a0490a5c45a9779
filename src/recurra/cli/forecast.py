"""`recurra forecast`: train, evaluate, predict and stream forecasts of time series."""

from __future__ import annotations

import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recurra.cli.files import PICTURES, TABLES, check_writable, plain, write_frame
from recurra.cli.parameters import (
    Config,
    Device,
    Force,
    Json,
    Minutes,
    Resume,
    Seed,
    Settings,
    Steps,
    interruptible,
)
from recurra.cli.streams import From, Key, Seq, Store, To

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
SHOWN_ROWS = 60


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help="CSV (also .gz, .xz) or Parquet, in long form.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    target: Annotated[
        str | None,
        typer.Option(help="Columns to forecast: units[,price] [needed, but with --from]."),
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="Steps ahead [needed, here or in --config].")
    ] = None,
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
    model: Annotated[
        str | None, typer.Option(help="forking, segments or autoregressive [default: forking].")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Rows one step looks back.")] = None,
    season: Annotated[
        int | None, typer.Option(help="Rows in a season, 1 for none [default: found in the data].")
    ] = None,
    cell: Annotated[str | None, typer.Option(help="gru, lstm or rnn [default: gru].")] = None,
    head: Annotated[
        str | None, typer.Option(help="quantiles, or counts for counts with many zeros.")
    ] = None,
    ensemble: Annotated[
        int | None, typer.Option(help="Networks that forecast together [default: 1].")
    ] = None,
    calibrate: Annotated[
        bool | None,
        typer.Option("--calibrate", help="Move the quantiles to hold what they say, see the docs."),
    ] = None,
    minutes: Minutes = None,
    steps: Steps = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    set_: Settings = None,
    search: Annotated[
        int | None,
        typer.Option(help="Try this many settings first, --minutes each; needs recurra[search]."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="Run to fine-tune: its weights, design and columns."),
    ] = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a forecaster on a table and write it to a run folder.

    \b
    Example:
      recurra forecast train sales.csv --time date --target units --horizon 28 --out runs/sales

    Training ends after about --minutes, and before when the rows kept for validation get no better;
    reading the table before and the series' states after comes on top. --until leaves the end of
    the table for `recurra forecast evaluate`.
    """
    from recurra.cli.options import merge_settings, split_names
    from recurra.errors import ConfigError
    from recurra.tasks.forecasting.forecaster import Forecaster

    explicit = {
        "horizon": horizon,
        "frequency": freq,
        "duplicates": duplicates,
        "time_format": time_format,
        "model": model,
        "context": context,
        "season": season,
        "cell": cell,
        "head": head,
        "ensemble": ensemble,
        "calibrate": calibrate,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "device": device,
    }
    settings = merge_settings(config, explicit, set_ or [])
    kept: dict[str, Any] = {"until": until, "out": out, "force": force, "resume": resume}
    columns: dict[str, Any] = {
        "time": time,
        "target": split_names(target),
        "series": series,
        "future": split_names(future),
        "past": split_names(past),
        "static": split_names(static),
    }
    if from_ is not None:
        _check_fine_tuning(settings, columns, search)
        forecaster = Forecaster.load(from_)
        with interruptible(out):
            forecaster.fine_tune(table, **settings, **kept)
    else:
        if target is None:
            raise ConfigError("no target is given: add --target COLUMN, the column to forecast.")
        if "horizon" not in settings:
            raise ConfigError("no horizon is given: add --horizon N, the number of steps ahead.")
        forecaster = Forecaster.from_settings(settings)
        if search is not None:
            found = forecaster.search(table, trials=search, until=until, **columns)
            forecaster = Forecaster.from_settings(found.settings)
        with interruptible(out):
            forecaster.fit(table, **columns, **kept)
    _print_trained(forecaster, out, as_json)


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
    from recurra.report.results import KEYS
    from recurra.runs import RunFolder, write_json
    from recurra.tasks.forecasting.forecaster import Forecaster
    from recurra.tasks.forecasting.outcome import evaluation_outcome

    started = clock.monotonic()
    evaluation = Forecaster.load(run).evaluate(table, windows=windows)
    outcome = evaluation_outcome(evaluation, table.name, clock.monotonic() - started)
    try:  # a run that may only be read is scored all the same, and a closed pipe loses no scores
        _print_scores(outcome, as_json, (*KEYS, "targets"))
    finally:
        write_json(RunFolder(run).metrics_path, {**outcome, "details": evaluation.details()})


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
    samples: Annotated[
        int | None, typer.Option(help="Write this many scenario paths instead of quantiles.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of --samples; quantiles involve no chance.")] = 0,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Write what the forecast was made of; needs a table."),
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Forecast the steps after the last row of each series.

    \b
    Example:
      recurra forecast predict runs/sales sales.csv --out next.csv --plot next.png

    The answer has one row per series, target and step, and one column per quantile; with --samples
    one row per path besides, and the column value; with --explain one row per input and its time,
    with its attribution, the largest first.
    """
    from recurra.cli.output import print_json, print_table
    from recurra.errors import ConfigError
    from recurra.tasks.forecasting.forecaster import Forecaster
    from recurra.tasks.forecasting.frames import quantile_name

    if out == "-" and as_json:
        raise ConfigError("--out - and --json both write to stdout. Give one of them.")
    if explain and (table is None or samples is not None):
        raise ConfigError(
            "--explain needs the table to forecast from, and goes without --samples. Give "
            "RUN TABLE --explain."
        )
    check_writable("--out", None if out in (None, "-") else Path(str(out)), TABLES, force)
    check_writable("--plot", plot, PICTURES, force)
    forecaster = Forecaster.load(run)
    if explain:
        frame = forecaster.explain(table)
    elif samples is None:
        frame = forecaster.predict(table)
    else:
        frame = forecaster.sample(table, count=samples, seed=seed)
    if plot is not None:
        _plot(forecaster, table, plot)
    if out is not None:
        write_frame(frame, out)
    for path in (plot, None if out in (None, "-") else out):
        if path is not None:
            typer.echo(f"wrote {path}", err=True)
    if as_json:
        columns = {name: plain(frame[name]) for name in frame.columns}
        print_json({"task": "forecasting", "run": str(run), "forecast": columns})
    elif out is None:
        quantiles = set(map(quantile_name, forecaster.settings.quantile_levels))
        hidden = quantiles - {"q0.1", "q0.5", "q0.9"}
        wanted = [name for name in frame.columns if name not in hidden]
        rows = [list(row) for row in zip(*(plain(frame[name]) for name in wanted), strict=True)]
        print_table(wanted, rows[:SHOWN_ROWS])
        if len(rows) > SHOWN_ROWS:
            typer.echo(
                f"… {len(rows) - SHOWN_ROWS} more rows; --out FILE writes all, with all columns"
            )


@app.command()
def stream(
    run: Run,
    table: Annotated[
        Path | None,
        typer.Option(help="Table to read first [default: go on from the training table's end]."),
    ] = None,
    store: Store = None,
    key: Key = None,
    seq: Seq = None,
    from_: From = None,
    to: To = None,
) -> None:
    """Answer each observation on stdin with a fresh forecast: JSON lines in, JSON lines out.

    \b
    Example:
      echo '{"date": "2016-01-01", "units": 12}' | recurra forecast stream runs/sales

    A line holds the columns of the table: time, series, targets (null when missing), covariates.
    With covariates known ahead, "future" holds one object of them per step: [{"promo": 1}, ...].

    The model's scaling is causal: each answer costs the same however long the stream has run, and
    equals what `predict` says of the same rows. A line that cannot be used is answered with an
    error and the stream goes on; the exit status is then 1 at its end.

    With --store the states and the last answers are kept in a file: after a crash the same command
    goes on where it was, and first writes its last answers again. A line that was answered before
    (same series, same time or --seq) gets the same answer if it was the last one of its series, or
    "duplicate": true. Ctrl-C answers what has been read, and ends.

    --from and --to take the lines from a topic of an MQTT broker, and publish the answers under
    one: see docs/streams.md.
    """
    from recurra.cli.streams import run_stream
    from recurra.tasks.forecasting.forecaster import Forecaster

    stepper = Forecaster.load(run).stepper(table, key=key, seq=seq)
    run_stream(stepper, stepper.read, store, from_, to)


def _check_fine_tuning(
    settings: dict[str, Any], columns: dict[str, Any], search: int | None
) -> None:
    """That nothing is asked for that the run to fine-tune has already settled."""
    from recurra.errors import ConfigError

    given = [name for name in settings if name not in ("minutes", "steps", "training")]
    given += [name for name, value in columns.items() if value and name != "time"]
    given += ["search"] if search is not None else []
    if given:
        raise ConfigError(
            f"{', '.join(given)} cannot be given with --from: design and columns are those of that "
            "run. Give --minutes, --steps or --set training.KEY=value, or leave --from out."
        )


def _print_trained(forecaster: Forecaster, out: Path, as_json: bool) -> None:
    from recurra.cli.output import print_json

    fitted = forecaster.fitted
    result = fitted.training["result"]
    if as_json:
        notes = list(fitted.notes)
        print_json({"task": "forecasting", "run": str(out), "notes": notes, **result})
        return
    for note in fitted.notes:
        typer.echo(note)
    if fitted.calibration is not None:
        typer.echo(repr(fitted.calibration))
    best = "" if result["best_step"] is None else f", best at step {result['best_step']}"
    typer.echo(f"trained {result['steps']} steps in {result['seconds']:.0f} s{best}")
    typer.echo(f"saved to {out}")


def _print_scores(outcome: dict[str, Any], as_json: bool, keys: tuple[str, ...]) -> None:
    from recurra.cli.output import print_json, print_outcome, print_table
    from recurra.report.results import metric_names

    if as_json:
        print_json({key: outcome[key] for key in keys if key in outcome})
    else:
        for name, results in outcome.get("targets", {}).items():
            names = metric_names(results)
            rows = [[row["model"], *(row["metrics"].get(one) for one in names)] for row in results]
            print_table([name, *names], rows)
            typer.echo()
        print_outcome(outcome, as_json=False)
    for note in outcome["notes"]:
        typer.echo(f"note: {note}", err=as_json)


def _plot(forecaster: Forecaster, table: Path | None, path: Path) -> None:
    from recurra.report.drawing import save
    from recurra.tasks.forecasting.report import prediction_figure

    save(prediction_figure(forecaster, table), path)
