"""`recurra anomaly`: train, evaluate, predict and stream a detector of anomalies."""

from __future__ import annotations

import time as clock
from pathlib import Path
from typing import Annotated

import typer

from recurra.cli.files import PICTURES, TABLES, check_writable, plain, write_frame
from recurra.cli.parameters import Config, Force, Json
from recurra.cli.streams import From, Key, Seq, Store, To

HELP = """Watch time series for anomalies: train, evaluate, predict, stream.

\b
Example:
  recurra anomaly train cpu.csv --time t --value cpu --out runs/cpu
  recurra anomaly predict runs/cpu cpu.csv --plot cpu.png
"""

app = typer.Typer(help=HELP)

Run = Annotated[Path, typer.Argument(help="Run folder made by `recurra anomaly train`.")]
SHOWN_ROWS = 30


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help="CSV (also .gz, .xz) or Parquet, in long form.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    value: Annotated[str, typer.Option(help="Columns to watch: cpu[,mem].")] = "value",
    time: Annotated[str, typer.Option(help="Column of times, or of whole numbers.")] = "time",
    series: Annotated[str | None, typer.Option(help="Column that names the series.")] = None,
    until: Annotated[
        str | None, typer.Option(help="Last time to learn from; later rows are left for evaluate.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="memory: learns as it goes; forecaster: trains a GRU first [memory]."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="alarm: when something begins; segment: as long as it lasts [alarm]."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Surprise from which an alarm is raised [the head's].")
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(help="Alarms wanted per thousand rows of training; sets the threshold."),
    ] = None,
    refractory: Annotated[
        int | None, typer.Option(help="Rows after an alarm without another [default: 100].")
    ] = None,
    relearn: Annotated[
        int | None,
        typer.Option(help="Start afresh after a shift of this many rows [default: never]."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of a forecaster's training [1000 steps].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of a forecaster's first weights.")] = None,
    time_format: Annotated[
        str | None, typer.Option(help="dmy, mdy, or a pattern such as %d/%m/%y.")
    ] = None,
    config: Config = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, once for each: jump=2.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Watch a table from its first row and write what was learned to a run folder.

    \b
    Example:
      recurra anomaly train cpu.csv --time t --value cpu --out runs/cpu

    No labels are needed. Every row of the table is watched with what the rows before it have shown,
    so the alarms counted here are those that a stream would have raised (the segment head knows the
    scale of the whole table).
    """
    from recurra.cli.options import merge_settings, split_names
    from recurra.cli.output import print_json
    from recurra.tasks.anomaly.detector import AnomalyDetector

    explicit = {
        "model": model,
        "head": head,
        "threshold": threshold,
        "false_alarms": false_alarms,
        "refractory": refractory,
        "relearn": relearn,
        "minutes": minutes,
        "seed": seed,
        "time_format": time_format,
    }
    detector = AnomalyDetector.from_settings(merge_settings(config, explicit, set_ or []))
    detector.fit(
        table,
        time=time,
        value=split_names(value),
        series=series,
        until=until,
        out=out,
        force=force,
        progress=True,
    )
    fitted = detector.fitted
    if as_json:
        result = {**fitted.training, "threshold": fitted.threshold}
        print_json({"task": "anomaly", "run": str(out), "notes": list(fitted.notes), **result})
        return
    for note in fitted.notes:
        typer.echo(note)
    done = fitted.training
    plural = "" if done["alarms"] == 1 else "s"
    typer.echo(
        f"watched {done['rows']} rows of {done['series']} series in {done['seconds']:.1f} s: "
        f"{done['alarms']} alarm{plural} at surprise {fitted.threshold:.3g}"
    )
    typer.echo(f"saved to {out}")


@app.command()
def evaluate(
    run: Run,
    table: Annotated[Path, typer.Argument(help="Table with a column of labels.")],
    label: Annotated[str, typer.Option(help="Column of labels: 1 for an anomaly, 0.")] = "label",
    as_json: Json = False,
) -> None:
    """Score the run against labelled rows after its training data, next to plain detectors.

    \b
    Example:
      recurra anomaly evaluate runs/cpu cpu.csv --label anomaly

    Every detector is scored by its own threshold, without point adjustment. The scores are also
    kept in the run folder, for `recurra report`.
    """
    from recurra.cli.output import print_scores
    from recurra.runs import RunFolder, write_json
    from recurra.tasks.anomaly.detector import AnomalyDetector

    started = clock.monotonic()
    evaluation = AnomalyDetector.load(run).evaluate(table, label=label)
    outcome = evaluation.outcome(table.name, clock.monotonic() - started)
    try:
        print_scores(outcome, as_json=as_json)
    finally:
        write_json(RunFolder(run).metrics_path, outcome)


@app.command()
def predict(
    run: Run,
    table: Annotated[Path, typer.Argument(help="Table to watch.")],
    out: Annotated[
        str | None, typer.Option(help="File to write, .csv or .parquet; - for CSV on stdout.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Changes nothing: watching involves no chance.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score every row of a table, and list the alarms.

    \b
    Example:
      recurra anomaly predict runs/cpu cpu.csv --out scores.csv --plot scores.png

    A series whose rows all come after its training rows goes on from there; any other is watched
    from its first row. --out writes one row for each row of the table.
    """
    from recurra.cli.output import print_json, print_table
    from recurra.errors import ConfigError
    from recurra.tasks.anomaly.detector import AnomalyDetector
    from recurra.tasks.anomaly.frames import answer_frame

    if out == "-" and as_json:
        raise ConfigError("--out - and --json both write to stdout. Give one of them.")
    check_writable("--out", None if out in (None, "-") else Path(str(out)), TABLES, force)
    check_writable("--plot", plot, PICTURES, force)
    detector = AnomalyDetector.load(run)
    watched = detector.read(table)
    answers = detector.fitted.answer(watched.series)
    frame = answer_frame(watched, answers)
    if plot is not None:
        from recurra.report.drawing import save
        from recurra.tasks.anomaly.report import answer_figure

        save(answer_figure(detector.fitted, watched.series, answers), plot)
    if out is not None:
        write_frame(frame, out)
    for path in (plot, None if out in (None, "-") else out):
        if path is not None:
            typer.echo(f"wrote {path}", err=True)
    for note in watched.notes:
        typer.echo(f"note: {note}", err=True)
    if as_json:
        columns = {name: plain(frame[name]) for name in frame.columns}
        print_json({"task": "anomaly", "run": str(run), "answers": columns})
    elif out != "-":
        names = [name for name in frame.columns if name not in ("alarm", "status")]
        shown = {name: plain(frame[name]) for name in names}
        keys = 1 + (watched.columns.series is not None)
        values = zip(watched.columns.value, watched.values.T.tolist(), strict=True)
        shown = {**{name: shown[name] for name in names[:keys]}, **dict(values), **shown}
        raised = [n for n, alarm in enumerate(plain(frame["alarm"])) if alarm]
        rows = [[column[n] for column in shown.values()] for n in raised]
        if rows:
            print_table(list(shown), rows[:SHOWN_ROWS])
        if len(rows) > SHOWN_ROWS:
            typer.echo(f"… {len(rows) - SHOWN_ROWS} more alarms; --out FILE writes every row")
        plural = "" if len(rows) == 1 else "s"
        typer.echo(f"{len(rows)} alarm{plural} in {len(frame)} rows")


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
    """Answer each row on stdin with its surprise: JSON lines in, JSON lines out.

    \b
    Example:
      echo '{"t": "2014-04-16 14:30", "cpu": 97.5}' | recurra anomaly stream runs/cpu

    A line holds the columns of the table: time, series, values (null when missing). Each answer
    costs the same however long the stream has run, and equals what `predict` says of the same rows.
    A line that cannot be used is answered with an error and the stream goes on; the exit status is
    then 1 at its end.

    With --store the states and the last answers are kept in a file: after a crash the same command
    goes on where it was, and first writes its last answers again. A row that was answered before,
    by its time or --seq, gets the same answer if it was the last one of its series, or
    "duplicate": true. Without --store and --seq, rows count as they come. Ctrl-C answers what has
    been read, and ends.

    --from and --to take the rows from a topic of an MQTT broker, and publish the answers under one:
    see docs/streams.md.
    """
    from recurra.cli.streams import run_stream
    from recurra.tasks.anomaly.detector import AnomalyDetector

    detector = AnomalyDetector.load(run)
    stepper = detector.stepper(table, key=key, seq=seq, timed=store is not None)
    run_stream(stepper, stepper.read, store, from_, to)
