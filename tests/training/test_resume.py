from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.training.toy import PointTask, WaveTask, same_bits, timeless, weights

from recurra.errors import RunError
from recurra.runs import read_json, read_tensors
from recurra.training.loop import train
from recurra.training.settings import TrainingSettings

SETTINGS = {
    "steps": 40,
    "learning_rate": 1e-2,
    "clip_limit": 0.5,
    "validate_every": 7,
    "log_every": 3,
    "checkpoint_every_s": 0,
    "device": "cpu",
}


class PowerCut(Exception):
    """Stands for the end of a process."""


def cut_at(last: int):
    def before(step: int) -> None:
        if step == last:
            raise PowerCut

    return before


def run(task, folder: Path | None = None, resume: bool = False, **values):
    settings = TrainingSettings(**(SETTINGS | values))
    return train(task, settings, folder=folder, resume=resume, progress=False)


def stop_at(step: int, folder: Path, **values) -> None:
    with pytest.raises(PowerCut):
        run(WaveTask(before=cut_at(step)), folder, resume=True, **values)


@pytest.mark.parametrize("schedule", ["cooldown", "cosine", "one_cycle"])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_run_stopped_anywhere_ends_in_the_same_bits(tmp_path, schedule, ema_decay):
    values = {"schedule": schedule, "ema_decay": ema_decay}
    for step in (0, 1, 7, 8, 29, 39):
        stop_at(step, tmp_path, **values)
    resumed, whole = WaveTask(), WaveTask()
    second = run(resumed, tmp_path, resume=True, **values)
    first = run(whole, **values)
    assert same_bits(weights(resumed.model), weights(whole.model))
    assert timeless(second.history) == timeless(first.history)
    assert (second.best_step, second.best_loss) == (first.best_step, first.best_loss)


@pytest.mark.parametrize(
    ("clip", "limit"), [("zscore", 0.5), ("norm", 0.08), ("value", 0.05), ("adaptive", 0.1)]
)
def test_clipping_goes_on_where_it_was(tmp_path, clip, limit):
    values = {"clip": clip, "clip_limit": limit}
    for step in (1, 12, 26, 33):  # the warm-up of zscore ends after 25 steps
        stop_at(step, tmp_path, **values)
    resumed, whole, other = WaveTask(), WaveTask(), WaveTask()
    second = run(resumed, tmp_path, resume=True, **values)
    first = run(whole, **values)
    assert same_bits(weights(resumed.model), weights(whole.model))
    assert timeless(second.history) == timeless(first.history)
    assert max(entry["clipped"] for entry in first.history) > 0
    run(other, clip=None, clip_limit=None)
    assert not same_bits(weights(other.model), weights(whole.model))


def test_a_mean_that_begins_late_goes_on_where_it_was(tmp_path):
    values = {"average_after": 1, "ema_decay": None, "validate_every": 3, "learning_rate": 0.5}
    for step in (13, 30):
        stop_at(step, tmp_path, **values)
    resumed, whole, plain = WaveTask(), WaveTask(), WaveTask()
    second = run(resumed, tmp_path, resume=True, **values)
    first = run(whole, **values)
    assert same_bits(weights(resumed.model), weights(whole.model))
    assert timeless(second.history) == timeless(first.history)
    assert timeless(run(plain, **(values | {"average_after": None})).history) != timeless(
        first.history
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork and SIGKILL")
def test_run_killed_at_random_moments_ends_in_the_same_bits(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.killed_run", str(tmp_path), "1"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2  # most kills hit a live process
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ours, theirs = (read_tensors(folder / "final.safetensors")[0] for folder in (killed, whole))
    assert same_bits(ours, theirs)
    assert read_json(killed / "final.json") == read_json(whole / "final.json")
    assert len(list((killed / "checkpoints").iterdir())) == 2


def test_damaged_newest_checkpoint_costs_steps_but_changes_nothing(tmp_path, capsys):
    stop_at(20, tmp_path)
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:100])
    resumed, whole = WaveTask(), WaveTask()
    run(resumed, tmp_path, resume=True)
    run(whole)
    assert "is damaged" in capsys.readouterr().err
    assert same_bits(weights(resumed.model), weights(whole.model))


def test_first_weights_come_from_the_checkpoint_and_not_from_the_new_model(tmp_path):
    stop_at(0, tmp_path)
    other = WaveTask()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(1.0)
    whole = WaveTask()
    run(other, tmp_path, resume=True)
    run(whole)
    assert same_bits(weights(other.model), weights(whole.model))


def test_finished_run_is_handed_back_as_it_was(tmp_path):
    first = WaveTask()
    done = run(first, tmp_path)
    second = WaveTask(before=cut_at(0))
    again = run(second, tmp_path, resume=True)
    assert same_bits(weights(first.model), weights(second.model))
    assert again.history == done.history
    assert (again.steps, again.stopped, again.best_loss) == (40, "steps", done.best_loss)


def test_fixed_total_of_a_run_by_the_clock_survives_a_restart(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("recurra.training.budget.monotonic", lambda: now)

    def tick(length_s: float, last: int):
        def before(step: int) -> None:
            nonlocal now
            now += length_s
            cut_at(last)(step)

        return before

    by_clock = {"steps": None, "minutes": 1, "checkpoint_every_s": 1e6}
    with pytest.raises(PowerCut):
        run(WaveTask(before=tick(1.0, 45)), tmp_path, **by_clock)
    now = 9e9
    resumed = WaveTask(before=tick(0.5, -1))  # faster now, and yet the same number of steps
    result = run(resumed, tmp_path, resume=True, **by_clock)
    assert result.steps == result.total_steps == 60
    assert result.seconds == 42.0 + 0.5 * 18  # the total was fixed, and saved, after 42 steps
    whole = WaveTask()
    run(whole, steps=60)
    assert same_bits(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0.5}, "trained with learning_rate=0.01, but now learning_rate=0.5"),
        ({"steps": 41}, "trained with steps=40, but now steps=41"),
        ({"seed": 3}, "trained with seed=0, but now seed=3"),
    ],
)
def test_resume_with_another_setting_names_it(tmp_path, values, message):
    stop_at(5, tmp_path)
    with pytest.raises(RunError, match=message):
        run(WaveTask(), tmp_path, resume=True, **values)


def test_time_between_checkpoints_may_change(tmp_path):
    stop_at(5, tmp_path)
    assert run(WaveTask(), tmp_path, resume=True, checkpoint_every_s=60).steps == 40


def test_resume_with_another_model_names_the_tensor_and_leaves_the_model_alone(tmp_path):
    stop_at(5, tmp_path)
    task = WaveTask()
    task.model.head = torch.nn.Linear(6, 2)
    before = weights(task.model)
    with pytest.raises(
        RunError, match=r"'head.bias' is \(1,\) float32 in the checkpoint but \(2,\) float32 in the"
    ):
        run(task, tmp_path, resume=True)
    assert same_bits(before, weights(task.model))


def test_resume_with_other_parameters_frozen_names_the_parameter(tmp_path):
    stop_at(5, tmp_path)
    task = WaveTask()
    task.model.head.bias.requires_grad_(False)
    with pytest.raises(RunError, match=r"'head\.bias' was trained when the run began"):
        run(task, tmp_path, resume=True)


def test_resume_with_another_state_names_both(tmp_path):
    class Forgetful(WaveTask):
        def loss(self, batch, state):
            return super().loss(batch, None)[0], (batch,)

    stop_at(5, tmp_path)
    with pytest.raises(
        RunError, match=r"state is \(tensor\), but the checkpoint holds ToyState\(h="
    ):
        run(Forgetful(), tmp_path, resume=True)


def test_resume_before_the_first_checkpoint_begins_anew(tmp_path):
    task, whole = WaveTask(), WaveTask()
    run(task, tmp_path / "new", resume=True)
    run(whole)
    assert same_bits(weights(task.model), weights(whole.model))


def test_resume_without_a_folder_is_refused():
    with pytest.raises(RunError, match="needs the folder"):
        run(PointTask(), resume=True)


def test_patience_counts_on_after_a_restart(tmp_path):
    class Failing(PointTask):
        last = -1

        def batch(self, step, rng):
            if step == self.last:
                raise PowerCut

    settings = {"steps": 100, "validate_every": 5, "patience": 3}
    stopped, resumed = Failing(), Failing()
    stopped.last, stopped.answers = 17, [1.0, 2.0, 2.0]
    resumed.answers = [2.0, 0.5]
    with pytest.raises(PowerCut):
        run(stopped, tmp_path, **settings)
    result = run(resumed, tmp_path, resume=True, **settings)
    assert (result.steps, result.stopped, result.best_step) == (20, "patience", 5)
    assert resumed.w == stopped.validations[0]


def test_error_in_the_task_leaves_the_best_weights_in_the_model():
    class Failing(PointTask):
        def validate(self):
            if len(self.validations) == 2:
                raise PowerCut
            return super().validate()

    task = Failing()
    task.answers = [1.0, 2.0]
    with pytest.raises(PowerCut):
        run(task)
    assert task.w == task.validations[0] != task.validations[1]
