"""The settings of one training run, checked when they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recurra.errors import ConfigError, unknown

Schedule = Literal["cooldown", "cosine", "one_cycle"]
Precision = Literal["float32", "bfloat16", "float16"]
Clip = Literal["norm", "value", "adaptive", "zscore"]
Device = Literal["auto", "cpu", "cuda"]
DEFAULT_MINUTES = 10.0
"""How long a task trains that is not told how long."""


class TrainingSettings(BaseModel):
    """How a model is trained, whatever the task.

    Either `steps` or `minutes` says when training ends; `train` refuses settings with neither.

    steps, minutes       length of the run, in optimiser steps or on the clock
    learning_rate        the rate at its highest; see `schedule.py` for its course
    betas, weight_decay  AdamW; the decay acts on matrices only, never on biases or gains
    warmup_steps         linear rise at the start (`one_cycle` brings its own rise); a run shorter
                         than this never reaches the full rate
    cooldown_share       last part of the run in which `cooldown` falls linearly to 0
    clip, clip_limit     how gradients are clipped, see `clipping.py`, and the number that it must
                         not exceed: of all gradients together ("norm", 1.0), of a single entry
                         ("value", 1.0), of a unit's beside its weights ("adaptive", 0.01), of
                         deviations above the usual norm ("zscore", 2.5). In brackets what a
                         clip_limit of None means. clip None leaves gradients as they are
    clip_skip            names of parameters, or of modules, that "adaptive" leaves alone; its
                         authors name the last linear layer
    ema_decay            decay of the weight average; None validates and keeps the plain weights
    average_after        instead of ema_decay: the plain mean of all weights from the moment on when
                         a validation is no better than the best of those more than so many
                         validations ago (NT-ASGD), and until then the plain weights
    precision            "bfloat16" and "float16" compute the loss under autocast; weights stay
                         float32, "float16" needs CUDA
    validate_every       steps between validations
    validate_start       validate before the first step too, so that weights which were good from
                         the start are kept where training makes them worse
    patience             validations without a better one after which training stops
    target_loss          validation loss below which the task is solved, and training stops
    checkpoint_every_s   seconds between checkpoints; this setting and `gradient_flow_every` are the
                         ones that a resume may change
    log_every            steps between entries of the history
    gradient_flow_every  steps between measurements of how the gradient flows back through the
                         recurrent layers, see `flow.py`, into gradients.jsonl; they change nothing
                         in the run but its time. None measures nothing

    Raises: ConfigError naming every setting that is unknown, out of range or contradictory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(50, ge=0)
    schedule: Schedule = "cooldown"
    cooldown_share: float = Field(0.3, ge=0, le=0.99)
    clip: Clip | None = "norm"
    clip_limit: float | None = Field(None, gt=0)
    clip_skip: tuple[str, ...] = ()
    ema_decay: float | None = Field(0.995, gt=0, lt=1)
    average_after: int | None = Field(None, ge=1)
    precision: Precision = "float32"
    seed: int = Field(0, ge=0, lt=2**63)
    validate_every: int = Field(100, ge=1)
    validate_start: bool = False
    patience: int | None = Field(None, ge=1)
    target_loss: float | None = None
    checkpoint_every_s: float = Field(30.0, ge=0)
    log_every: int = Field(20, ge=1)
    gradient_flow_every: int | None = Field(None, ge=1)
    device: Device = "auto"

    # Hidden from type checkers, which know the keyword arguments from the fields above.
    if not TYPE_CHECKING:

        def __init__(self, /, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ConfigError(_explain(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _choose_average(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("average_after") is not None:
            return {"ema_decay": None, **values}
        return values

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.steps is not None and self.minutes is not None:
            raise ValueError(
                f"steps={self.steps} and minutes={self.minutes:g} are both given; "
                "expected one of them, drop the other"
            )
        if self.minutes is not None and self.schedule != "cooldown":
            raise ValueError(
                f"schedule={self.schedule!r} needs to know the number of steps from the start; "
                "give steps instead of minutes, or use schedule='cooldown'"
            )
        if self.clip is None and self.clip_limit is not None:
            raise ValueError(
                f"clip_limit={self.clip_limit:g} has nothing to limit, because clip is None; "
                "drop it, or choose a clip, such as clip='norm'"
            )
        if self.clip_skip and self.clip != "adaptive":
            raise ValueError(
                f"clip_skip={self.clip_skip} works with clip='adaptive' only, and clip is "
                f"{self.clip!r}, which takes all gradients together; drop it"
            )
        if self.average_after is not None and self.ema_decay is not None:
            raise ValueError(
                f"average_after={self.average_after} and ema_decay={self.ema_decay:g} are two ways "
                "to average the weights; expected one of them, drop the other"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas} must both lie in [0, 1)")
        return self

    def require_budget(self) -> None:
        """Check that the settings say when training ends.

        Raises: ConfigError when neither steps nor minutes is given.
        """
        if self.steps is None and self.minutes is None:
            raise ConfigError(
                "training settings give neither steps nor minutes, so training would never end. "
                "Set one of them, for example minutes=10."
            )


class TaskSettings(Protocol):
    """What the settings of every task have of the training loop's."""

    @property
    def minutes(self) -> float | None: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> Device: ...
    @property
    def patience(self) -> int | None: ...


def common_values(settings: TaskSettings, minutes: float = DEFAULT_MINUTES) -> dict[str, Any]:
    """Those values by name, with a length of `minutes` where the settings give none."""
    is_endless = settings.minutes is None and settings.steps is None
    return {
        "minutes": minutes if is_endless else settings.minutes,
        "steps": settings.steps,
        "seed": settings.seed,
        "device": settings.device,
        "patience": settings.patience,
    }


def _explain(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            parts.append(unknown("training setting", name, TrainingSettings.model_fields))
        elif not name:
            parts.append(problem["msg"].removeprefix("Value error, ") + ".")
        else:
            wanted = problem["msg"].removeprefix("Input should be ")
            parts.append(f"training setting {name}={problem['input']!r}: expected {wanted}.")
    return " ".join(parts)
