"""Checkpoints: everything needed to go on with a run bit for bit, one safetensors file each.

    checkpoints/step-000000001200.safetensors

Tensors, by name:

    weights/NAME            parameters and buffers of the model
    averaged/NAME           moving average of the trained parameters
    best/NAME               weights of the best validation
    optimiser/FIELD/NAME    state of the optimiser for one parameter
    state/I                 I-th tensor of the carried recurrent state

Metadata: `training` is a JSON object with the fields of `Progress`; `crc32` is the checksum of that
text and of all tensors. Files are replaced atomically, the last two are kept, and a damaged newest
one gives way to the one before it.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from recurra.errors import RunError
from recurra.runs import explained, read_tensors, write_tensors
from recurra.training.settings import TrainingSettings

_KEPT = 2
# Settings that a resumed run may change: they do not touch its weights.
_CHANGEABLE = ("checkpoint_every_s", "gradient_flow_every")

Stopped = Literal["steps", "minutes", "patience", "target"]


class Progress(BaseModel):
    """How far a run is: all that a checkpoint holds besides tensors.

    `stopped` is None for a run that can go on; `sums` are the running sums of the next log entry;
    `scaler`, `clipper` and `averaging` are the running numbers of loss scaling, of clipping and of
    a mean that begins late; `state` is the form of the carried state; `trained` names the
    parameters with a gradient.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    step: int
    elapsed_s: float
    total_steps: int | None
    best_step: int | None
    best_loss: float | None
    stale: int
    stopped: Stopped | None
    sums: dict[str, float]
    scaler: dict[str, int | float] | None
    clipper: dict[str, int | float] | None
    averaging: dict[str, int | float] | None = None
    trained: list[str]
    state: str
    settings: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def newest(self) -> Path | None:
        """The newest checkpoint file, None when there is none."""
        files = self._files()
        return files[-1] if files else None

    def save(self, progress: Progress, tensors: Mapping[str, Tensor]) -> Path:
        """Write a checkpoint, then remove all but the last two.

        Raises: RunError when the disk is full or the folder cannot be written.
        """
        path = self.path / f"step-{progress.step:012d}.safetensors"
        # Copies: tied weights and views would share memory, which the format does not allow.
        plain = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
        text = progress.model_dump_json()
        write_tensors(path, plain, {"training": text, "crc32": _checksum(text, plain)})
        earlier = [other for other in self._files() if other < path]
        # Later ones belong to a course of the run that was given up, damaged ones mostly.
        later = [other for other in self._files() if other > path]
        with explained(self.path, "clear"):
            for stale in [*earlier[: 1 - _KEPT], *later]:
                stale.unlink(missing_ok=True)
        return path

    def load(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """The newest checkpoint that is whole; None when there are none at all.

        Says on stderr which damaged ones were passed over.

        Raises: RunError when all are damaged.
        """
        files = self._files()
        for path in reversed(files):
            try:
                return read_checkpoint(path)
            except RunError as error:
                going_on = " Taking the checkpoint before it." if path != files[0] else ""
                print(f"warning: {error}{going_on}", file=sys.stderr)
        if files:
            raise RunError(
                f"no checkpoint in {self.path} can be read, {len(files)} are damaged. "
                "Train again without --resume, with --force or into another --out."
            )
        return None

    def remove_leftovers(self) -> None:
        """Remove half-written files of a process that was killed while it saved."""
        for path in self.path.glob(".step-*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("step-*.safetensors"))


def read_checkpoint(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Read and check one checkpoint file.

    Raises: RunError when it is missing or damaged.
    """
    tensors, metadata = read_tensors(path)
    text = metadata.get("training", "")
    if metadata.get("crc32") != _checksum(text, tensors):
        raise RunError(f"{path} is damaged: its checksum does not match its content.")
    try:
        return Progress.model_validate_json(text), tensors
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise RunError(
            f"{path} was written by another version of recurra (fields: {fields})."
        ) from None


def check_same_settings(progress: Progress, settings: TrainingSettings, path: Path) -> None:
    """Check that a run goes on with the settings it began with.

    Raises: RunError naming the first setting that differs, with both values.
    """
    new = settings.model_dump(mode="json")
    for key in sorted(new.keys() | progress.settings.keys()):
        old_value, new_value = progress.settings.get(key), new.get(key)
        if old_value != new_value and key not in _CHANGEABLE:
            raise RunError(
                f"cannot resume from {path}: it was trained with {key}={old_value!r}, but now "
                f"{key}={new_value!r} is asked for. Resume with the same settings, or start a new "
                "run in another folder."
            )


def check_same_model(
    progress: Progress,
    stored: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    trained: Iterable[str],
    path: Path,
) -> None:
    """Check that stored weights fit the model, and that the same ones are trained.

    Raises: RunError naming the first tensor that is missing, extra or of another shape or dtype,
    or that was frozen or unfrozen.
    """
    for name in sorted(stored.keys() | wanted.keys()):
        old, new = (_form(weights.get(name)) for weights in (stored, wanted))
        if old != new:
            raise RunError(
                f"cannot resume from {path}: {name!r} is {old} in the checkpoint but {new} in the "
                "model. Resume with the model the run began with, or start a new run in another "
                "folder."
            )
    for name in sorted(set(progress.trained) ^ set(trained)):
        then = "trained" if name in progress.trained else "frozen"
        raise RunError(
            f"cannot resume from {path}: {name!r} was {then} when the run began, and is not now. "
            "Set its requires_grad as it was, or start a new run in another folder."
        )


def _form(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        raw = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        value = zlib.crc32(raw.numpy().data, zlib.crc32(name.encode(), value))
    return f"{value:08x}"
