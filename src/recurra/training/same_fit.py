"""What a run was begun with, kept beside its checkpoints in fit.json until it is resumed.

A run goes on only with the settings and the data that it began with. Settings of the training loop
are left to the loop, which compares them with its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from recurra.errors import RunError
from recurra.runs import RunFolder, read_json, write_json


class Fingerprint(NamedTuple):
    """A hash of something that a run was trained on, None where there is nothing.

    otherwise   what to say when it is another one: "on other files; give ... the same"
    """

    name: str
    value: str | None
    otherwise: str


def free_folder(out: str | Path | None, *, force: bool, resume: bool) -> RunFolder | None:
    """The folder that a run is to be kept in, not changed yet; None for a run that is not kept.

    Raises: RunError for a folder in use, ConfigError for `force` together with `resume`.
    """
    if out is None:
        return None
    run = RunFolder(out)
    run.check_free(force=force, resume=resume)
    return run


def begin_run(
    run: RunFolder | None,
    settings: BaseModel,
    trained_on: Sequence[Fingerprint],
    *,
    force: bool,
    resume: bool,
) -> RunFolder | None:
    """The folder of a run that begins, or goes on; None for one that is not kept.

    To be called when nothing of the run can be refused any more: only now, with `force`, an old one
    goes.
    Raises: RunError for a folder in use, and for a resume with other settings or data.
    """
    if run is None:
        return None
    if resume:
        check_same_fit(run, settings, trained_on)
    made = RunFolder.create(run.path, force=force, resume=resume)
    note_fit(made, settings, trained_on)
    return made


def check_same_fit(run: RunFolder, settings: BaseModel, trained_on: Sequence[Fingerprint]) -> None:
    """Check that a run goes on with what it began with, if it began.

    Raises: RunError naming what differs.
    """
    path = run.checkpoints / "fit.json"
    if not path.is_file():
        return
    before = read_json(path)
    if not isinstance(before, dict) or not isinstance(before.get("settings"), dict):
        raise RunError(f"{path} is damaged; it cannot be resumed. Start anew with --force.")
    now, then = _comparable(settings), before["settings"]
    changed = [
        f"{name}={then.get(name)!r} (now {value!r})"
        for name, value in now.items()
        if then.get(name) != value
    ]
    if changed:
        raise RunError(
            f"{run.path} was trained with {', '.join(changed)}; --resume needs the same settings. "
            "Use them, or start anew with --force."
        )
    for name, value, otherwise in trained_on:
        if before.get(name) != value:
            raise RunError(f"{run.path} was trained {otherwise}, or start anew with --force.")


def note_fit(run: RunFolder, settings: BaseModel, trained_on: Sequence[Fingerprint]) -> None:
    """Write down what a run is trained on, for `check_same_fit`."""
    values = {name: value for name, value, _ in trained_on}
    write_json(run.checkpoints / "fit.json", {"settings": _comparable(settings), **values})


def _comparable(settings: BaseModel) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude={"training"})
