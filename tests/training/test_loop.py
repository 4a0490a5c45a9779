from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest
import torch
from tests.training.toy import PointTask, WaveTask, same_bits, timeless, weights
from torch import nn

from recurra.errors import ConfigError, DivergenceError, RunError, ShapeError
from recurra.training.checkpoint import CheckpointFolder
from recurra.training.loop import TrainingInterrupted, train
from recurra.training.settings import TrainingSettings

PLAIN = {
    "warmup_steps": 0,
    "cooldown_share": 0.0,
    "weight_decay": 0.0,
    "clip": None,
    "ema_decay": None,
    "device": "cpu",
}


def run(task, folder: Path | None = None, resume: bool = False, **values):
    return train(task, TrainingSettings(**values), folder=folder, resume=resume, progress=False)


def test_loop_without_extras_is_adamw():
    task, w = PointTask(), torch.zeros(1, requires_grad=True)
    reference = torch.optim.AdamW([w], lr=0.05, betas=(0.9, 0.98), weight_decay=0.0)
    for _ in range(30):
        reference.zero_grad()
        (w - 1.0).square().sum().backward()
        reference.step()
    run(task, steps=30, learning_rate=0.05, **PLAIN)
    assert task.w == pytest.approx(w.item(), rel=1e-6)


def test_model_learns():
    task = WaveTask()
    result = run(task, steps=300, learning_rate=1e-2, validate_every=50)
    assert result.history[-1]["validation"] < 0.5 * result.history[0]["loss"]
    assert result.stopped == "steps"
    assert result.steps == result.total_steps == 300


def test_same_seed_is_the_same_run_and_another_seed_another():
    tasks = [WaveTask() for _ in range(3)]
    for task, seed in zip(tasks, (4, 4, 5), strict=True):
        run(task, steps=12, seed=seed)
    first, second, third = (weights(task.model) for task in tasks)
    assert same_bits(first, second)
    assert not same_bits(first, third)


def test_random_state_of_the_caller_is_left_alone():
    task = WaveTask()
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    run(task, steps=3)
    assert torch.equal(torch.rand(2), expected)


def test_history_holds_the_promised_entries():
    result = run(WaveTask(), steps=30, log_every=10, validate_every=15)
    assert [entry["step"] for entry in result.history] == [10, 15, 20, 30]
    assert ["validation" in entry for entry in result.history] == [False, True, False, True]
    for entry in result.history:
        assert entry.keys() - {"validation"} == {
            "step",
            "loss",
            "learning_rate",
            "gradient_norm",
            "clipped",
            "steps_per_s",
        }
    assert result.best_loss == min(e["validation"] for e in result.history if "validation" in e)


def test_history_has_the_rate_of_the_schedule():
    result = run(PointTask(), steps=10, log_every=1, learning_rate=0.5, warmup_steps=2)
    rates = [entry["learning_rate"] for entry in result.history]
    assert rates == pytest.approx([0.25, *[0.5] * 6, 0.375, 0.25, 0.125])


def test_gradient_is_clipped_before_the_step_and_logged_before_the_clipping():
    free, clipped = PointTask(target=100.0), PointTask(target=100.0)
    settings = PLAIN | {"steps": 1, "log_every": 1, "learning_rate": 1e-3}
    run(free, **settings)
    result = run(clipped, **(settings | {"clip": "norm", "clip_limit": 1e-9}))
    assert result.history[0]["gradient_norm"] == 200.0
    assert result.history[0]["clipped"] == 1.0
    assert free.w == pytest.approx(1e-3)  # Adam's first step hides the size of the gradient ...
    assert clipped.w == pytest.approx(1e-3 / 11, rel=1e-3)  # ... except next to its epsilon, 1e-8
    by_value = PointTask(target=100.0)
    run(by_value, **(settings | {"clip": "value", "clip_limit": 1e-9}))
    assert by_value.w == clipped.w
    by_unit = PointTask(target=100.0)
    run(by_unit, **(settings | {"clip": "adaptive", "clip_limit": 1e-6}))
    assert by_unit.w == pytest.approx(clipped.w, rel=1e-5)  # a weight of 0 counts as 1e-3


def test_named_parameters_are_left_out_of_adaptive_clipping():
    class Two(PointTask):
        def __init__(self):
            super().__init__(target=100.0)
            self.model = nn.ModuleDict(
                {"body": nn.ParameterDict(dict(self.model)), "head": nn.ParameterDict()}
            )
            self.model["head"]["w"] = nn.Parameter(torch.zeros(1))

        def loss(self, batch, state):
            both = torch.cat([self.model["body"]["w"], self.model["head"]["w"]])
            return (both - self.target).square().sum(), None

        def validate(self):
            return None

    adaptive = {"clip": "adaptive", "clip_limit": 1e-6, "learning_rate": 1e-3}
    settings = PLAIN | adaptive | {"steps": 1}
    for skip in (["head"], ["head.w"]):
        task = Two()
        run(task, **(settings | {"clip_skip": skip}))
        assert task.model["body"]["w"].item() == pytest.approx(1e-3 / 11, rel=1e-3)
        assert task.model["head"]["w"].item() == pytest.approx(1e-3)
    with pytest.raises(ConfigError, match="unknown parameter or module in clip_skip 'haed'; did"):
        run(Two(), **(settings | {"clip_skip": ["haed"]}))


def test_share_of_clipped_steps_is_in_the_history():
    task = PointTask(target=1.0)  # the gradient, 2 (w − 1), shrinks from −2 towards 0
    result = run(task, steps=60, log_every=1, **(PLAIN | {"clip": "norm", "clip_limit": 1.9}))
    for entry in result.history:
        assert entry["clipped"] == float(entry["gradient_norm"] > 1.9)
    shares = {entry["clipped"] for entry in result.history}
    assert shares == {0.0, 1.0}


def test_best_validated_weights_are_kept():
    task = PointTask()
    task.answers = [3.0, 1.0, 2.0, 5.0]
    result = run(task, steps=40, validate_every=10, learning_rate=0.01)
    assert (result.best_step, result.best_loss) == (20, 1.0)
    assert task.w == task.validations[1]
    assert len(set(task.validations)) == 4


@pytest.mark.parametrize("in_folder", [True, False])
def test_weights_that_were_best_before_the_first_step_are_kept_when_asked(tmp_path, in_folder):
    folder = tmp_path / "run" if in_folder else None
    task = PointTask(weight=0.5)
    task.answers = [1.0, 2.0, 3.0]
    result = run(task, folder, steps=20, validate_every=10, validate_start=True)
    assert (result.best_step, result.best_loss) == (0, 1.0)
    assert task.w == task.validations[0] == 0.5
    assert [e["step"] for e in result.history if "validation" in e] == [10, 20]


def test_best_start_survives_a_resume(tmp_path):
    task = PointTask(weight=0.5)
    task.answers = [1.0, 2.0, 3.0]
    settings = {"steps": 20, "validate_every": 10, "validate_start": True}
    run(task, tmp_path, **settings)
    for path in (tmp_path / "checkpoints").glob("step-*20.*"):
        path.unlink()
    again = PointTask(weight=0.5)
    again.answers = [2.0, 3.0]  # none for the start, which was judged before
    result = run(again, tmp_path, resume=True, **settings)
    assert (result.best_step, again.w) == (0, 0.5)


def test_average_is_validated_and_kept_without_a_validation_loss():
    averaged, plain = PointTask(), PointTask()
    settings = PLAIN | {"steps": 20, "learning_rate": 0.01}
    run(plain, **settings)
    run(averaged, **(settings | {"ema_decay": 0.9}))
    assert 0.0 < averaged.w < plain.w
    assert averaged.w == averaged.validations[-1]


def test_training_stops_when_patience_ends():
    task = PointTask()
    task.answers = [3.0, 1.0, 2.0, 1.0, 0.5]
    result = run(task, steps=100, validate_every=10, patience=2)
    assert (result.steps, result.stopped, result.best_step) == (40, "patience", 20)
    assert task.w == task.validations[1]


def test_training_stops_when_the_target_is_met():
    for answers, ended in (
        ([3.0, 1.0, 2.0, 0.9], (40, "target", 40)),  # 1.0 is not below it
        ([3.0, 1.0, 2.0, 1.5, 0.9], (50, "target", 50)),  # met by the last step of the budget
        ([3.0, 1.0, 2.0, 1.5, 1.5], (50, "steps", 20)),
    ):
        task = PointTask()
        task.answers = answers
        result = run(task, steps=50, validate_every=10, target_loss=1.0)
        assert (result.steps, result.stopped, result.best_step) == ended
        assert task.w == task.validations[ended[2] // 10 - 1]


def test_validation_leaves_the_course_of_training_alone():
    often, never = WaveTask(validates=False), WaveTask(validates=False)
    run(often, steps=20, validate_every=1)
    run(never, steps=20, validate_every=100)
    assert same_bits(weights(often.model), weights(never.model))


def test_training_mode_of_the_caller_comes_back():
    task = WaveTask()
    task.model.eval()
    run(task, steps=2)
    assert not task.model.training


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_reduced_precision_keeps_float32_weights(precision):
    task = WaveTask()
    seen = []
    task.model.head.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    run(task, steps=2, precision=precision, device="cpu")
    assert seen[0] == getattr(torch, precision)
    assert all(p.dtype == torch.float32 for p in task.model.parameters())


def test_tied_weights_are_trained_and_stored_once(tmp_path):
    class Tied(PointTask):
        def __init__(self):
            super().__init__()
            self.model["again"] = self.model["w"]

    task = Tied()
    run(task, folder=tmp_path, steps=3)
    assert task.model["again"] is task.model["w"]
    assert run(Tied(), folder=tmp_path, resume=True, steps=3).steps == 3


class Breaking(PointTask):
    """Its loss goes wrong in one step (counted from 1)."""

    def __init__(self, step: int, how: str) -> None:
        super().__init__()
        self.model["other"] = nn.Parameter(torch.zeros(2))
        self.bad_step, self.how = step, how

    def batch(self, step, rng):
        return step + 1 == self.bad_step

    def loss(self, batch, state):
        loss = super().loss(batch, state)[0] + 3.0 * self.model["other"].sum()
        if batch and self.how == "loss":
            loss = loss * math.nan
        if batch and self.how == "gradient":
            zero = self.model["other"][0] * 0.0
            loss = loss + zero.abs().pow(0.5) * 0.5 + zero.abs().sqrt()  # finite, with slope inf
        return loss, state


@pytest.mark.parametrize(
    ("how", "size"), [("loss", "loss is nan"), ("gradient", "largest gradient is nan")]
)
def test_divergence_names_step_rate_gradient_and_checkpoint(tmp_path, how, size):
    task = Breaking(8, how)
    settings = {"steps": 20, "learning_rate": 0.01, "warmup_steps": 0, "checkpoint_every_s": 0}
    with pytest.raises(DivergenceError) as caught:
        run(task, folder=tmp_path, **settings)
    message = str(caught.value)
    assert "diverged in step 8" in message
    assert "learning rate 0.01" in message
    assert size in message
    assert ("in 'other'" if how == "gradient" else "in 'w'") in message
    newest = tmp_path / "checkpoints" / "step-000000000007.safetensors"
    assert f"The last good checkpoint is {newest}." in message
    progress, tensors = CheckpointFolder(tmp_path / "checkpoints").load()
    assert progress.step == 7
    assert all(bool(t.isfinite().all()) for t in tensors.values())
    assert all(bool(t.isfinite().all()) for t in task.model.parameters())


def test_divergence_without_a_folder_says_what_is_left():
    with pytest.raises(DivergenceError, match="The model keeps its last good weights"):
        run(Breaking(1, "loss"), steps=2)


def test_validation_loss_that_is_nan_is_named_as_such():
    task = PointTask()
    task.answers = [math.nan]
    with pytest.raises(DivergenceError, match="validation loss is nan after step 5"):
        run(task, steps=10, validate_every=5)


def test_interrupt_saves_and_a_resume_ends_in_the_same_bits(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(step: int) -> None:
        if step == 13:
            signal.raise_signal(signal.SIGINT)

    settings = {"steps": 30, "validate_every": 7, "learning_rate": 1e-2}
    try:
        stopped = WaveTask(before=press)
        with pytest.raises(TrainingInterrupted) as caught:
            run(stopped, folder=tmp_path, **settings)
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.result.steps == 14
    assert caught.value.result.stopped == "interrupted"
    assert caught.value.result.best_step in (7, 14)

    resumed, whole = WaveTask(), WaveTask()
    second = run(resumed, folder=tmp_path, resume=True, **settings)
    first = run(whole, **settings)
    assert same_bits(weights(resumed.model), weights(whole.model))
    assert timeless(second.history) == timeless(first.history)


def test_folder_that_cannot_be_written_is_found_before_training(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    task = WaveTask(before=lambda step: pytest.fail("trained"))
    with pytest.raises(RunError, match="cannot write"):
        run(task, folder=tmp_path, steps=3)


def test_existing_checkpoints_are_not_overwritten(tmp_path):
    run(PointTask(), folder=tmp_path, steps=3)
    with pytest.raises(RunError, match="already holds checkpoints"):
        run(PointTask(), folder=tmp_path, steps=3)


def test_log_file_is_the_history(tmp_path):
    result = run(WaveTask(), folder=tmp_path, steps=30, log_every=10)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "neither steps nor minutes"),
        ({"steps": 1, "precision": "float16", "device": "cpu"}, "'float16' needs a CUDA device"),
    ],
)
def test_settings_that_cannot_work_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        run(PointTask(), **values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent_is_an_error():
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        run(PointTask(), steps=1, device="cuda")


def test_settings_changed_without_checking_are_checked():
    settings = TrainingSettings(steps=3).model_copy(update={"learning_rate": -1.0})
    with pytest.raises(ConfigError, match=r"learning_rate=-1.0"):
        train(PointTask(), settings, progress=False)


def test_loss_that_cannot_be_trained_on_is_explained():
    class Vector(PointTask):
        def loss(self, batch, state):
            return self.model["w"] * torch.ones(3), None

    class Detached(PointTask):
        def loss(self, batch, state):
            return self.model["w"].detach().sum(), None

    with pytest.raises(ShapeError, match=r"loss has shape \(3,\); expected a scalar"):
        run(Vector(), steps=1)
    with pytest.raises(ConfigError, match="does not depend on any trained parameter"):
        run(Detached(), steps=1)


def test_model_without_trainable_parameters_is_refused():
    task = PointTask()
    task.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        run(task, steps=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_cuda_training_learns_and_resumes(tmp_path, precision):
    settings = {"steps": 60, "learning_rate": 1e-2, "precision": precision, "device": "cuda"}

    def fail(step: int) -> None:
        if step == 31:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(WaveTask(before=fail), folder=tmp_path, checkpoint_every_s=0, **settings)
    task = WaveTask()
    result = run(task, folder=tmp_path, resume=True, checkpoint_every_s=0, **settings)
    assert result.steps == 60
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert next(task.model.parameters()).device.type == "cuda"
