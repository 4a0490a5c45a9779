"""The outside of the command line: exit status, messages, and no traceback without --debug."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from recurra.cli import main as cli
from recurra.errors import ConfigError, DataError, RunError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: (exit status, stdout, stderr)."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            cli.main(words)
        out, err = capsys.readouterr()
        return int(leaving.value.code or 0), out, err

    return call


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Add a command `fail` that raises what it is given."""

    def install(error: BaseException) -> None:
        def command() -> None:
            """Fail."""
            raise error

        module = types.ModuleType("recurra.cli.fail")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "recurra.cli.fail", module)
        monkeypatch.setitem(cli.COMMANDS, "fail", ("fail", "Fail."))

    return install


def test_help_names_every_command_and_an_example(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)
    assert "Example:\n    recurra " in out


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help_that_starts_with_an_example(run: Run, name: str) -> None:
    status, out, _ = run(name, "--help")
    assert status == 0
    assert f"recurra {name}" in out.partition("Example:")[2].partition("Options:")[0]


def test_version(run: Run) -> None:
    assert run("--version") == (0, "recurra 0.1.0\n", "")


def test_no_command_shows_the_help_as_wrong_usage(run: Run) -> None:
    status, out, err = run()
    assert status == 2
    assert "Commands:" in out + err


def test_a_misspelt_command_names_the_nearest(run: Run) -> None:
    status, out, err = run("docter")
    assert (status, out) == (2, "")
    assert "unknown command 'docter'; did you mean 'doctor'?" in err


def test_a_misspelt_option_is_wrong_usage(run: Run) -> None:
    status, _, err = run("doctor", "--jsn")
    assert status == 2
    assert "--json" in err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("row 3 is bad"), 1, "error: row 3 is bad\n"),
        (ConfigError("steps is -1"), 2, "error: steps is -1\n"),
        (RunError("runs/a is damaged"), 1, "error: runs/a is damaged\n"),
        (
            OSError(28, "No space left on device", "x.csv"),
            1,
            "error: No space left on device: x.csv\n",
        ),
        (OSError(28, "No space left on device"), 1, "error: No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_one_line(
    run: Run,
    raising: Callable[[BaseException], None],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    raising(error)
    assert run("fail") == (status, "", message)


def test_an_unforeseen_error_says_how_to_see_more(
    run: Run, raising: Callable[[BaseException], None]
) -> None:
    raising(ZeroDivisionError("division by zero"))
    status, out, err = run("fail")
    assert (status, out) == (1, "")
    assert err.startswith("error: ZeroDivisionError: division by zero\n")
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("--debug", "fail"), ("fail", "--debug")])
@pytest.mark.parametrize("error", [DataError("row 3 is bad"), ZeroDivisionError("by zero")])
def test_debug_shows_the_traceback_wherever_it_stands(
    run: Run,
    raising: Callable[[BaseException], None],
    words: tuple[str, str],
    error: Exception,
) -> None:
    raising(error)
    status, _, err = run(*words)
    assert status == 1
    assert "Traceback" in err
    assert str(error) in err


def recurra(*words: str) -> list[str]:
    code = "from recurra.cli.main import main; main()"
    return [sys.executable, "-c", code, *words]


def test_pipes_carry_utf8_whatever_the_locale() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(recurra("naïve"), env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert "unknown command 'naïve'" in done.stderr.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_on_stdout_is_a_message() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            recurra("data", "list"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
def test_a_reader_that_leaves_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        recurra("data", "list"), stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_leaves_with_130_and_a_message(tmp_path: Path) -> None:
    code = (
        "import sys, time, types\n"
        "from recurra.cli import main as cli\n"
        "module = types.ModuleType('recurra.cli.wait')\n"
        "def command() -> None:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "module.command = command\n"
        "sys.modules['recurra.cli.wait'] = module\n"
        "cli.COMMANDS['wait'] = ('wait', 'Wait.')\n"
        "cli.main(['wait'])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert err == "interrupted\n"
