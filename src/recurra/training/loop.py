"""The training loop that all tasks share."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from recurra.errors import DivergenceError, RunError
from recurra.training.best import BestWeights
from recurra.training.budget import Budget
from recurra.training.checkpoint import (
    CheckpointFolder,
    Progress,
    Stopped,
    check_same_model,
    check_same_settings,
)
from recurra.training.flow_log import FlowLog
from recurra.training.interrupt import InterruptWatch
from recurra.training.learner import Learner
from recurra.training.log import TrainingLog
from recurra.training.progress import ProgressDisplay
from recurra.training.schedule import rate_factor
from recurra.training.settings import TrainingSettings
from recurra.training.task import TrainingTask


@dataclass(frozen=True)
class TrainingResult:
    """What a run did.

    steps, seconds       done, including those before a resume
    best_step, best_loss of the best validation; None without validation
    history              one dict per entry: step, loss, learning_rate, gradient_norm, clipped (the
                         share of steps that were), steps_per_s and, where there was a validation,
                         validation
    total_steps          the planned length; `steps=total_steps` repeats the run exactly. None when
                         the run ended before the clock had fixed it
    stopped              what ended the run
    """

    steps: int
    seconds: float
    best_step: int | None
    best_loss: float | None
    history: list[dict[str, Any]] = field(repr=False)
    total_steps: int | None
    stopped: Literal["steps", "minutes", "patience", "target", "interrupted"]

    def record(self, settings: TrainingSettings, **more: Any) -> dict[str, Any]:
        """What a run's config keeps: the settings, and `result`, this without its history."""
        ended = {name: value for name, value in asdict(self).items() if name != "history"}
        return {**settings.model_dump(mode="json"), "result": {**ended, **more}}


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C ended training after a checkpoint was saved; `result` says how far it came."""

    def __init__(self, result: TrainingResult) -> None:
        super().__init__(f"training was interrupted after step {result.steps}")
        self.result = result


def train(
    task: TrainingTask,
    settings: TrainingSettings,
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train `task.model` and leave the best weights in it.

    These are the averaged weights of the best validation, or the last averaged ones of a task
    without validation; also after Ctrl-C and after an error.

    folder     run folder for log.jsonl, gradients.jsonl where gradients are measured, and
               checkpoints/; None keeps nothing on disk
    resume     go on from the newest checkpoint in `folder`; begins anew when there is none yet.
               On the same CPU, threads and versions the weights end up the same, bit for bit, as
               without the interruption
    progress   show a bar or lines on stderr

    torch's global random state is the same after the call as before it.

    Raises: ConfigError for settings that cannot work here; RunError for a folder that cannot be
    written, already holds checkpoints, or does not fit `resume`; DivergenceError when the loss or
    a gradient becomes NaN or infinite; TrainingInterrupted (a KeyboardInterrupt) after Ctrl-C.
    """
    settings = TrainingSettings(**settings.model_dump())  # model_copy(update=...) checks nothing
    settings.require_budget()
    if resume and folder is None:
        raise RunError("resume=True needs the folder of the run to go on with; pass folder=...")
    budget = Budget(settings)
    learner = Learner(task, settings)
    devices = [torch.cuda.current_device()] if learner.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        return _Run(learner, settings, budget, folder, progress).go(resume)


class _Run:
    """One call of `train`: the learner's steps, and what is done between them."""

    def __init__(
        self,
        learner: Learner,
        settings: TrainingSettings,
        budget: Budget,
        folder: Path | None,
        progress: bool,
    ) -> None:
        self.learner = learner
        self.settings = settings
        self.budget = budget
        self.checkpoints = None if folder is None else CheckpointFolder(folder / "checkpoints")
        self.log = TrainingLog(None if folder is None else folder / "log.jsonl")
        self.flows = None
        if settings.gradient_flow_every is not None:
            self.flows = FlowLog(None if folder is None else folder / "gradients.jsonl")
        self.display = ProgressDisplay(progress)
        self.best = BestWeights()
        self.done = 0  # steps
        self.stopped: Stopped | None = None
        self._saved_at_s = 0.0
        # Durations of what was done last, to judge whether another step still fits the clock.
        self._step_s = self._validate_s = self._save_s = 0.0
        self._entry_step, self._entry_s = 0, 0.0

    def go(self, resume: bool) -> TrainingResult:
        try:
            self._begin(resume)
            return self._train()
        finally:
            self.log.close()
            if self.flows is not None:
                self.flows.close()

    def _train(self) -> TrainingResult:
        self._entry_step, self._entry_s = self.done, self.budget.elapsed_s()
        was_training = self.learner.model.training
        self.learner.model.train()
        try:
            with InterruptWatch() as watch:
                self.display.start()
                while self.stopped is None:
                    if watch.requested:
                        self._save()
                        raise TrainingInterrupted(self._result("interrupted"))
                    self._advance()
        except DivergenceError as error:
            raise DivergenceError(f"{error} {self._what_is_left()}") from None
        finally:
            self.display.stop()
            self.learner.set_weights(self.best.tensors or self.learner.averaged_weights())
            self.learner.model.train(was_training)
        return self._result(self.stopped)

    def _begin(self, resume: bool) -> None:
        if self.checkpoints is None:
            self._validate_start()
            return
        newest = self.checkpoints.newest()
        if newest is not None and not resume:
            raise RunError(
                f"{newest.parent} already holds checkpoints. Resume that run (--resume), replace "
                "it (--force), or choose another folder."
            )
        self.checkpoints.remove_leftovers()
        loaded = self.checkpoints.load() if resume else None
        if loaded is not None:
            self._restore(*loaded)
        self.log.open(self.done, None if loaded is None else loaded[0].sums)
        if self.flows is not None:
            self.flows.open(self.done)
        if loaded is None:
            self._validate_start()
            self._save()  # finds out now, not in half an hour, whether the folder can be written

    def _validate_start(self) -> None:
        if self.settings.validate_start:
            self._validate()

    def _restore(self, progress: Progress, tensors: dict[str, Tensor]) -> None:
        assert self.checkpoints is not None
        check_same_settings(progress, self.settings, self.checkpoints.path)
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, tensor in tensors.items():
            part, name = key.split("/", 1)
            parts[part][name] = tensor
        learner = self.learner
        check_same_model(
            progress,
            parts["weights"],
            learner.weights(),
            learner.parameters,
            self.checkpoints.path,
        )
        learner.restore(
            progress.step,
            parts,
            progress.state,
            progress.scaler,
            progress.clipper,
            progress.averaging,
        )
        self.best.step, self.best.loss = progress.best_step, progress.best_loss
        self.best.stale = progress.stale
        self.best.tensors = {name: t.to(learner.device) for name, t in parts["best"].items()}
        self.budget = Budget(
            self.settings, elapsed_s=progress.elapsed_s, total=progress.total_steps
        )
        self.done, self.stopped = progress.step, progress.stopped
        self._saved_at_s = progress.elapsed_s

    def _advance(self) -> None:
        """One step, then whatever is due after it."""
        began_s = self.budget.elapsed_s()
        total = self.budget.total
        rate = self.settings.learning_rate * rate_factor(self.settings, self.done, total)
        self._measure_flow()
        report = self.learner.step(self.done, rate)
        self.done += 1
        self.log.add(*report)
        # A slow step counts for a while; the first one, with all its preparations, is outlived.
        self._step_s = max(0.95 * self._step_s, self.budget.elapsed_s() - began_s)

        just_fixed = self.budget.fix_total(self.done)
        stopped = self._ending()
        validation = None
        if stopped is not None or self.done % self.settings.validate_every == 0:
            validation = self._validate()
            stopped = self._judge(validation, stopped)
        entry_due = self.done % self.settings.log_every == 0
        if entry_due or validation is not None or stopped is not None:
            self.log.write(self.done, rate, self._speed(), validation)
            self._entry_step, self._entry_s = self.done, self.budget.elapsed_s()
        if self.display.due(ending=stopped is not None):
            self._show(report.loss)
        self.stopped = stopped
        due = self.budget.elapsed_s() - self._saved_at_s >= self.settings.checkpoint_every_s
        if due or just_fixed or stopped is not None:
            self._save()

    def _measure_flow(self) -> None:
        """Before an update, so that what is measured belongs to the weights and batch of it."""
        every = self.settings.gradient_flow_every
        if self.flows is not None and every is not None and self.done % every == 0:
            self.flows.add(self.done, self.learner.gradient_flow(self.done))

    def _ending(self) -> Stopped | None:
        """Why the run ends after this step, None when it goes on."""
        # What would follow: a slow step, the last validation and the last checkpoint.
        reserve_s = self._step_s + self._validate_s + self._save_s
        if self.done == self.budget.total or self.budget.is_spent(reserve_s):
            return "steps" if self.settings.minutes is None else "minutes"
        return None

    def _judge(self, validation: float | None, stopped: Stopped | None) -> Stopped | None:
        """Why the run ends after this validation, `stopped` when it gives no reason."""
        target, patience = self.settings.target_loss, self.settings.patience
        if target is not None and validation is not None and validation < target:
            return "target"
        if stopped is None and patience is not None and self.best.stale >= patience:
            return "patience"
        return stopped

    def _validate(self) -> float | None:
        began_s = self.budget.elapsed_s()
        loss = self.learner.validate(self.done)
        if loss is not None:
            self.best.consider(self.done, loss, self.learner.averaged_weights())
        self._validate_s = self.budget.elapsed_s() - began_s
        return loss

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        began_s = self.budget.elapsed_s()
        self.log.sync()
        if self.flows is not None:
            self.flows.sync()
        progress = Progress(
            step=self.done,
            elapsed_s=began_s,
            total_steps=self.budget.total,
            best_step=self.best.step,
            best_loss=self.best.loss,
            stale=self.best.stale,
            stopped=self.stopped,
            sums=self.log.sums,
            scaler=self.learner.scaler_state,
            clipper=self.learner.clipper_state,
            averaging=self.learner.averaging_state,
            state=self.learner.state_form,
            trained=list(self.learner.parameters),
            settings=self.settings.model_dump(mode="json"),
        )
        best = {f"best/{name}": tensor for name, tensor in self.best.tensors.items()}
        self.checkpoints.save(progress, self.learner.tensors() | best)
        self._saved_at_s = self.budget.elapsed_s()
        self._save_s = self._saved_at_s - began_s

    def _speed(self) -> float:
        """Steps per second since the last entry of the log."""
        return (self.done - self._entry_step) / max(1e-9, self.budget.elapsed_s() - self._entry_s)

    def _show(self, loss: float) -> None:
        speed = self._speed()
        if self._entry_step == self.done and self.log.history:
            speed = self.log.history[-1]["steps_per_s"]
        share = self.budget.share_done(self.done)
        left_s = self.budget.left_s(self.done, speed)
        clipped = None if self.settings.clip is None else self.log.clipped_share()
        self.display.show(self.done, self.budget.total, loss, clipped, speed, share, left_s)

    def _what_is_left(self) -> str:
        newest = None if self.checkpoints is None else self.checkpoints.newest()
        if newest is None:
            return "The model keeps its last good weights."
        return f"The last good checkpoint is {newest}."

    def _result(
        self, stopped: Literal["steps", "minutes", "patience", "target", "interrupted"]
    ) -> TrainingResult:
        return TrainingResult(
            steps=self.done,
            seconds=self.budget.elapsed_s(),
            best_step=self.best.step,
            best_loss=self.best.loss,
            history=self.log.history,
            total_steps=self.budget.total,
            stopped=stopped,
        )
