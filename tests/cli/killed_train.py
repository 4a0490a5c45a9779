"""Runs `recurra forecast train` to its end, and again killed at random moments; for test_forecast.

Usage: python -m tests.cli.killed_train FOLDER SEED. FOLDER holds sales.csv; runs are written to
FOLDER/whole and FOLDER/killed. Prints as JSON what was found after each kill.
Every life is a fork of this process, which only imports, so that a life costs no start.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import polars  # noqa: F401 - imported once, for all lives
import torch
from tests.cli.conftest import SALES, TINY, UNTIL

from recurra.cli.main import main as recurra
from recurra.errors import RunError
from recurra.tasks.forecasting.forecaster import Forecaster

KILLS = 6


def last_step(run: Path) -> int:
    """The step of the last checkpoint in a run folder, 0 where there is none."""
    saved = sorted((run / "checkpoints").glob("step-*"))
    return int(saved[-1].stem.removeprefix("step-")) if saved else 0


def live(folder: Path, run: Path, life_s: float | None, *, steps: int = 0) -> int:
    """Fork a `recurra forecast train --resume`, kill it, return its exit status.

    The kill comes `life_s` after the birth, or after the `steps`-th new step that reached the disk.
    """
    until = last_step(run) + steps
    process = os.fork()
    if process == 0:
        words = [str(folder / "sales.csv"), *SALES, *UNTIL, *TINY, "--steps", "40", "--resume"]
        words += ["--set", "training.checkpoint_every_s=0", "--set", "training.validate_every=7"]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            recurra(["forecast", "train", *words, "--out", str(run)])
        except SystemExit as leaving:
            os._exit(int(leaving.code or 0))
        finally:
            os._exit(70)
    if life_s is not None:
        while last_step(run) < until:
            if (ended := os.waitpid(process, os.WNOHANG))[0]:
                return os.waitstatus_to_exitcode(ended[1])
            time.sleep(0.001)
        time.sleep(life_s)
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def what_is_there(run: Path) -> str:
    """Of a run that was just killed: 'whole' when it loads, 'begun' when that is refused."""
    try:
        Forecaster.load(run)
    except RunError as error:
        return "begun" if "has not ended" in str(error) else str(error)
    return "whole"


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    # The first optimiser of a process imports a second's worth of torch: once here, for all lives.
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    began = time.monotonic()
    assert live(folder, folder / "whole", None) == 0
    whole_s = time.monotonic() - began
    found = []
    for kill in range(KILLS):
        # Every other life is killed while it trains, however fast or busy the machine is.
        while_training = {"life_s": rng.uniform(0, 0.02), "steps": rng.randint(1, 6)}
        early = {"life_s": rng.uniform(0.1, 0.25) * whole_s}
        status = live(folder, folder / "killed", **(while_training if kill % 2 else early))
        assert status in (0, -signal.SIGKILL), status
        found.append([status, last_step(folder / "killed"), what_is_there(folder / "killed")])
    assert live(folder, folder / "killed", None) == 0
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
