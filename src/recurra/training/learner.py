"""One optimiser step, and everything that changes with it: weights, averages, moments, state."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurra.errors import ConfigError, DivergenceError, RunError, ShapeError, unknown
from recurra.training.averaging import AveragedWeights, TriggeredAverage
from recurra.training.bptt import detach_state
from recurra.training.clipping import gradient_norm, largest_gradient, make_clipper
from recurra.training.flow import gradient_flow
from recurra.training.flow_values import GradientFlow
from recurra.training.nested import describe, list_tensors, move, replace_tensors
from recurra.training.optimiser import (
    make_optimiser,
    optimiser_tensors,
    restore_optimiser,
    set_learning_rate,
)
from recurra.training.seeds import BATCH, MODEL, VALIDATION, seed_torch, step_seed
from recurra.training.settings import TrainingSettings
from recurra.training.task import RatedTask, TrainingTask

# Below this loss scale float16 gradients overflow because they diverge, not because of the scale.
_SMALLEST_SCALE = 2.0**-10


FLOW_STEPS = 32
"""Time steps that the gradient's flow is measured at while training, which has to stay cheap."""


class StepReport(NamedTuple):
    """What one step saw: the loss, the gradient's norm before clipping, and whether it clipped."""

    loss: float
    gradient_norm: float
    clipped: bool


def choose_device(settings: TrainingSettings) -> torch.device:
    """The device to train on.

    Raises: ConfigError when CUDA is asked for and absent, or float16 without CUDA.
    """
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise ConfigError(
            "device='cuda' is asked for, but torch sees no CUDA device. Use device='cpu' or "
            "'auto', or install a torch build with CUDA."
        )
    kind = ("cuda" if has_cuda else "cpu") if settings.device == "auto" else settings.device
    if settings.precision == "float16" and kind != "cuda":
        raise ConfigError(
            "precision='float16' needs a CUDA device, and this run is on the CPU. "
            "Use precision='float32' or 'bfloat16'."
        )
    return torch.device(kind)


class Learner:
    """The model of a task under training; `step` does one update, deterministically.

    Its whole state is in `tensors()`, `scaler_state`, `clipper_state` and `state_form`: two
    learners that agree in these make the same next steps, bit for bit on the same CPU and number of
    threads.
    """

    def __init__(self, task: TrainingTask, settings: TrainingSettings) -> None:
        self.task = task
        self.device = choose_device(settings)
        self._settings = settings
        self.model = task.model.to(self.device)
        named = self.model.named_parameters()
        self.parameters = {name: p for name, p in named if p.requires_grad}
        if not self.parameters:
            raise ConfigError(
                f"the model {type(self.model).__name__} has no parameter that requires a gradient, "
                "so there is nothing to train. Unfreeze at least one with requires_grad_(True)."
            )
        self.state: Any = None
        self.state_form = "None"
        self._rng = torch.Generator()
        self._factor = task.rate_factor if isinstance(task, RatedTask) else None
        self._optimiser = make_optimiser(self.parameters, settings, apart=self._factor is not None)
        self._clipper = None
        if settings.clip is not None:
            self._clipper = make_clipper(settings.clip, settings.clip_limit)
        self._to_clip = _leave_out(self.parameters, settings.clip_skip)
        self._averaged: AveragedWeights | None = None
        if settings.ema_decay is not None:
            self._averaged = AveragedWeights(self.parameters, settings.ema_decay)
        elif settings.average_after is not None:
            self._averaged = TriggeredAverage(self.parameters, settings.average_after)
        self._scaler: torch.amp.GradScaler | None = None
        if settings.precision == "float16":
            self._scaler = torch.amp.GradScaler(self.device.type)

    def step(self, step: int, learning_rate: float) -> StepReport:
        """Forward, backward, check, clip, update, average.

        Raises: DivergenceError when the loss or a gradient is not finite; the weights are then
        still those of the step before.
        """
        for parameter in self.parameters.values():
            parameter.grad = None
        loss, state = self._forward(step, self.state)
        if not loss.requires_grad:
            raise ConfigError(
                "the task's loss does not depend on any trained parameter. Compute it from the "
                "model's output, without detach() or no_grad()."
            )
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]
        if self._scaler is not None:
            self._scaler.unscale_(self._optimiser)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        total_norm = gradient_norm(gradients)
        # The only wait for the device in a step, but for those of "value" and "adaptive".
        both = (loss.detach().double(), total_norm.to(loss.device, torch.float64))
        loss_size, norm = torch.stack(both).tolist()
        report = StepReport(loss_size, norm, clipped=False)
        if not (math.isfinite(report.loss) and math.isfinite(report.gradient_norm)):
            self._check_overflow(step, learning_rate, report)
        elif self._clipper is not None:
            clip = self._clipper.apply(self._to_clip, report.gradient_norm)
            report = report._replace(clipped=clip.triggered)
        factor = self._factor
        at_step = None if factor is None else lambda name: factor(name, step)
        set_learning_rate(self._optimiser, learning_rate, at_step)
        if self._scaler is None:
            self._optimiser.step()
        else:
            self._scaler.step(self._optimiser)  # leaves the step out when gradients overflowed
            self._scaler.update()
        if self._averaged is not None:
            self._averaged.update(step)
        self.state_form = describe(state)
        self.state = detach_state(state)
        return report

    def gradient_flow(self, step: int) -> GradientFlow:
        """How the gradient of this step's loss flows back; nothing that training uses changes."""
        # Gradients of float16 need the scale that training gives them.
        scale = 1.0 if self._scaler is None else self._scaler.get_scale()
        return gradient_flow(
            self.model,
            step,
            lambda _, step: self._forward(step, self.state)[0],
            scale=scale,
            steps=FLOW_STEPS,
        )

    def _forward(self, step: int, state: Any) -> tuple[Tensor, Any]:
        seed = self._settings.seed
        self._rng.manual_seed(step_seed(seed, step, BATCH))
        batch = self.task.batch(step, self._rng)
        if self.device.type != "cpu":
            batch = move(batch, self.device)
        seed_torch(step_seed(seed, step, MODEL), self.device)
        with self._autocast():
            loss, state = self.task.loss(batch, state)
        if loss.dim() != 0:
            raise ShapeError(
                f"the task's loss has shape {tuple(loss.shape)}; expected a scalar. "
                "Take its mean or sum before returning it."
            )
        return loss, state

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._settings.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self._settings.precision))

    def _check_overflow(self, step: int, learning_rate: float, report: StepReport) -> None:
        overflowed = self._scaler is not None and math.isfinite(report.loss)
        if overflowed and self._scaler.get_scale() > _SMALLEST_SCALE:  # type: ignore[union-attr]
            return  # the scaler leaves this step out and halves the scale
        name, size = largest_gradient(self.parameters)
        raise DivergenceError(
            f"training diverged in step {step + 1}: the loss is {report.loss:.4g}, the gradient "
            f"norm {report.gradient_norm:.4g}, at learning rate {learning_rate:.3g}; the largest "
            f"gradient is {size:.4g}, in {name!r}. Try a smaller learning_rate or clip_limit."
        )

    def validate(self, step: int) -> float | None:
        """The task's validation loss under the averaged weights."""
        seed_torch(step_seed(self._settings.seed, step, VALIDATION), self.device)
        self.model.eval()
        try:
            with torch.no_grad(), self.averaged_in_place():
                loss = self.task.validate()
        finally:
            self.model.train()
        if loss is not None and isinstance(self._averaged, TriggeredAverage):
            self._averaged.judge(float(loss))
        return None if loss is None else float(loss)

    def averaged_in_place(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the model holds the averaged weights."""
        return contextlib.nullcontext() if self._averaged is None else self._averaged.in_place()

    def averaged_weights(self) -> dict[str, Tensor]:
        """The weights that are validated: averages where there are any, and all buffers."""
        averaged = {} if self._averaged is None else self._averaged.tensors
        return self.weights() | averaged

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, each once however often it is shared."""
        return dict(self._named_weights())

    def _named_weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.model.named_parameters():
            yield name, parameter.detach()
        yield from self.model.named_buffers()

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite the model's parameters and buffers."""
        for name, tensor in self.weights().items():
            tensor.copy_(weights[name])

    @property
    def scaler_state(self) -> dict[str, int | float] | None:
        """The float16 loss scale and its bookkeeping; None in other precisions."""
        return None if self._scaler is None else self._scaler.state_dict()

    @property
    def clipper_state(self) -> dict[str, int | float] | None:
        """The running numbers of the clipper; None without one."""
        return None if self._clipper is None else self._clipper.state

    @property
    def averaging_state(self) -> dict[str, int | float] | None:
        """The running numbers of a mean that begins late; None without one."""
        averaged = self._averaged
        return averaged.numbers if isinstance(averaged, TriggeredAverage) else None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a checkpoint needs, named as `checkpoint.py` lists them."""
        averaged = {} if self._averaged is None else self._averaged.tensors
        moments = optimiser_tensors(self._optimiser, self.parameters)
        carried = {str(i): tensor for i, tensor in enumerate(list_tensors(self.state))}
        parts = {
            "weights": self.weights(),
            "averaged": averaged,
            "optimiser": moments,
            "state": carried,
        }
        return {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}

    def restore(
        self,
        step: int,
        parts: Mapping[str, Mapping[str, Tensor]],
        state_form: str,
        scaler: dict[str, int | float] | None,
        clipper: dict[str, int | float] | None,
        averaging: dict[str, int | float] | None = None,
    ) -> None:
        """Go back to what `tensors()` was after `step` steps; `parts` has them by part and name.

        Raises: RunError when the task's recurrent state is nested otherwise than the stored one.
        """
        carried = parts.get("state", {})
        if state_form != "None":
            self.state = self._restored_state(step, carried, state_form)
            self.state_form = state_form
        self.set_weights(parts["weights"])
        if self._averaged is not None:
            for name, tensor in self._averaged.tensors.items():
                tensor.copy_(parts["averaged"][name])
        restore_optimiser(self._optimiser, self.parameters, parts.get("optimiser", {}))
        if self._scaler is not None and scaler is not None:
            self._scaler.load_state_dict(scaler)
        if self._clipper is not None and clipper is not None:
            self._clipper.restore(clipper)
        if isinstance(self._averaged, TriggeredAverage) and averaging is not None:
            self._averaged.restore(averaging)

    def _restored_state(self, step: int, carried: Mapping[str, Tensor], form: str) -> Any:
        """The carried state, in the nesting that the task itself gives it.

        A file should not name Python classes to make, so the last step's forward pass runs once
        more, from a fresh state, and its result is the mould for the stored tensors.
        """
        with torch.no_grad():
            _, mould = self._forward(step - 1, None)
        if describe(mould) != form:
            raise RunError(
                f"cannot resume: the task's recurrent state is {describe(mould)}, but the "
                f"checkpoint holds {form}. Resume with the task the run began with."
            )
        stored = [carried[str(i)] for i in range(len(carried))]
        return detach_state(replace_tensors(mould, [t.to(self.device) for t in stored]))


def _leave_out(parameters: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
    """The parameters but those that are named, or are in a module that is."""
    out: set[str] = set()
    for name in names:
        found = [p for p in parameters if p == name or p.startswith(f"{name}.")]
        if not found:
            known = {part for p in parameters for part in (p, p.rpartition(".")[0]) if part}
            raise ConfigError(unknown("parameter or module in clip_skip", name, known))
        out.update(found)
    return [parameter for name, parameter in parameters.items() if name not in out]
