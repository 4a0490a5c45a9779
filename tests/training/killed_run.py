"""Trains one run to its end, and another one that is killed again and again; used by test_resume.

Usage: python -m tests.training.killed_run FOLDER SEED. Prints how many kills hit a live process.
Every life is a fork of this process, which only imports torch, so that a life costs milliseconds.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from tests.training.toy import WaveTask, timeless

from recurra.runs import write_json, write_tensors
from recurra.training.loop import train
from recurra.training.settings import TrainingSettings

SETTINGS = TrainingSettings(
    steps=200,
    learning_rate=5e-3,
    clip="zscore",
    clip_limit=1.0,
    ema_decay=0.9,
    validate_every=23,
    log_every=7,
    checkpoint_every_s=0.02,
    device="cpu",
)


def live(folder: Path) -> None:
    """One process of a run: goes on where the last one ended, and leaves what it learned."""
    torch.set_num_threads(1)
    task = WaveTask()
    result = train(task, SETTINGS, folder=folder, resume=True, progress=False)
    write_tensors(folder / "final.safetensors", task.model.state_dict())
    outcome = [result.steps, result.best_step, result.best_loss, result.stopped]
    write_json(folder / "final.json", [outcome, timeless(result.history)])


def run(folder: Path, life_s: float | None = None) -> int:
    """Fork a life, kill it after `life_s` seconds, and return its exit status."""
    process = os.fork()
    if process == 0:
        try:
            live(folder)
        except BaseException as error:  # noqa: BLE001 (a fork must not return into main)
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if life_s is not None:
        time.sleep(life_s)
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    # The first optimiser of a process imports a second's worth of torch: once here, for all lives.
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    began = time.monotonic()
    assert run(folder / "whole") == 0
    whole_s = time.monotonic() - began
    kills = 0
    for _ in range(6):
        status = run(folder / "killed", rng.uniform(0.0, 0.15) * whole_s)
        assert status in (0, -signal.SIGKILL), status
        kills += status != 0
    assert run(folder / "killed") == 0
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
