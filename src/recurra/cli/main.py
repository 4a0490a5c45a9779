"""The `recurra` command: finds the sub-command, runs it, and turns errors into messages.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. A traceback is shown only with
`--debug`, which may stand anywhere on the line.
"""

from __future__ import annotations

import importlib
import io
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from recurra import __version__
from recurra.errors import ConfigError, RecurraError, unknown

# The one place to add a sub-command: its name, the file in this folder that holds it, and the line
# that `recurra --help` shows. The file defines `app` (a typer.Typer with several commands) or
# `command` (one function). Only the file of the command asked for is imported.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Forecast real weather and stock prices, held against naive forecasts."),
    "forecast": ("forecast", "Time series: train, evaluate, predict, stream."),
    "anomaly": ("anomaly", "Anomalies in time series: train, evaluate, predict, stream."),
    "lm": ("lm", "Language models: train, evaluate, predict, stream."),
    "sentiment": (
        "sentiment",
        "Sentiment and other labels of texts: train, evaluate, predict, stream.",
    ),
    "translate": ("translate", "Translation: train, evaluate, predict, stream."),
    "speech": ("speech", "Speech recognition: train, evaluate, predict, stream."),
    "report": ("report", "Write the report of a run."),
    "data": ("data", "List public data sets, or download one."),
    "reproduce": ("reproduce", "Run a published benchmark again."),
    "bench": ("bench", "Time the layers on this machine, beside other frameworks."),
    "doctor": ("doctor", "Say what is installed and what is missing."),
}

HELP = """Recurrent neural networks that train fast and then run forever on a stream.

\b
Example:
  recurra demo
  recurra forecast train sales.csv --time date --target units --horizon 28 --out runs/sales

Results go to stdout, progress to stderr. `--debug` anywhere shows the traceback of an error.
"""


def make_app(chosen: str | None) -> typer.Typer:
    """The command line with the sub-command `chosen` loaded and the others as lines of the help."""
    app = typer.Typer(
        name="recurra",
        help=HELP,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,  # rich takes longer to import than all the rest of `--help`
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_options)
    for name, (file, line) in COMMANDS.items():
        if name != chosen:
            app.command(name, help=line)(_not_loaded)
            continue
        module = importlib.import_module(f"recurra.cli.{file}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, no_args_is_help=True)
        else:
            app.command(name)(module.command)
    return app


def _not_loaded() -> None:
    raise AssertionError("make_app was called with another command than the one that is run")


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"recurra {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    debug = "--debug" in words[:end]
    words = [word for word in words[:end] if word != "--debug"] + words[end:]
    _set_streams()
    chosen = next((word for word in words if not word.startswith("-")), None)
    try:
        if chosen is not None and chosen not in COMMANDS:
            raise ConfigError(unknown("command", chosen, COMMANDS))
        make_app(chosen)(args=words, prog_name="recurra")
    except SystemExit as leaving:
        if leaving.code == 130:
            _say("interrupted")
        raise
    except KeyboardInterrupt:
        # Only before the sub-command has started: later ones arrive as SystemExit 130.
        _say("interrupted")
        sys.exit(130)
    except (RecurraError, OSError) as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {_describe(error)}")
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except Exception as error:  # noqa: BLE001 - the last door: whatever is left is a fault of ours
        if debug:
            traceback.print_exc()
            sys.exit(1)
        _say(f"error: {type(error).__name__}: {error}")
        _say("This is a fault in recurra. Run again with --debug for the traceback.")
        sys.exit(1)
    sys.exit(0)


def _set_streams() -> None:
    """Write UTF-8 into files and pipes everywhere, and never fail on a letter a terminal lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = None if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _describe(error: RecurraError | OSError) -> str:
    """The message of an error of ours; of the system's: what is wrong, and with which file."""
    if isinstance(error, RecurraError) or error.strerror is None:
        return str(error)
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
