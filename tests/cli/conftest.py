"""A small table of sales, and a run trained on the first part of it through the command line."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from recurra.cli.main import main

TINY = ("--steps", "3", "--set", "hidden_size=8", "--set", "batch_size=4")
SALES = ("--time", "date", "--target", "units", "--series", "store", "--horizon", "4")
UNTIL = ("--until", "2024-02-15")  # row 46 of 60


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Recurra = Callable[..., Done]


def sales(folder: Path) -> Path:
    """Two stores, 60 days each, a week's rhythm; a covariate known ahead, and a second target."""
    rng, day = np.random.default_rng(0), np.arange(60)
    frames = [
        pl.DataFrame(
            {
                "date": np.datetime64("2024-01-01", "D") + day,
                "store": [name] * 60,
                "units": 10 * k + 20 + 3 * np.sin(2 * np.pi * day / 7) + rng.normal(0, 0.1, 60),
                "returns": day % 5 - 2,
                "promo": day % 3 == 0,
            }
        )
        for k, name in enumerate(("north", "süd"))
    ]
    path = folder / "sales.csv"
    pl.concat(frames).write_csv(path)
    return path


def leave(*words: object) -> int:
    """Run a command line in this process; its exit status."""
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    return int(leaving.value.code or 0)


@pytest.fixture
def recurra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Recurra:
    """A function that runs a command line in this process, with `stdin` as its input.

    No command may show a traceback.
    """

    def call(*words: object, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        done = Done(leave(*words), *capsys.readouterr())
        assert "Traceback" not in done.out + done.err
        return done

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sales.csv and `run`, which knows its first 46 days. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    table = sales(folder)
    assert leave("forecast", "train", table, *SALES, *UNTIL, *TINY, "--out", folder / "run") == 0
    return folder


@pytest.fixture
def table(trained: Path) -> Path:
    return trained / "sales.csv"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))
