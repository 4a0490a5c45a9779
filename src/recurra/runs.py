"""The run folder: everything that belongs to one trained model, as plain checked files.

    config.json         what was trained and how, with the format version
    model.safetensors   weights and other tensors
    metrics.json        scores of the last evaluation
    log.jsonl           one JSON object per logged training step
    report.html         the report, when one was made
    checkpoints/        resumable training states

Files are written to a temporary name, flushed to the disk and renamed, so a reader sees the old
file or the new one and never a torn one. Loading reads JSON and safetensors only: no code runs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurra.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1


@contextlib.contextmanager
def explained(path: Path, action: str) -> Iterator[None]:
    """Turn an operating-system error on `path` into a RunError that says what to do."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(
            f"cannot {action} {path}: {reason}. Nothing that was there before has been changed; "
            "check free space and permissions, or choose another folder with --out."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: write, flush to disk, rename.

    Raises: RunError when the disk is full or the folder cannot be written; `path` is untouched.
    """
    with explained(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be opened (not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. NaN and infinities become null, as JSON has neither."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def finite(value: Any) -> Any:
    """Copy of a JSON value in which numbers that JSON cannot hold are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder.

    Raises: RunError when it is missing or is not JSON.
    """
    if not path.is_file():
        raise RunError(
            f"{path} is missing; expected it in a run folder made by `recurra ... train`."
        )
    with explained(path, "read"):
        raw = path.read_bytes()
    try:
        return json.loads(raw)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged: not valid JSON ({error}). Restore it from a copy or train again."
        ) from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors as safetensors, in one step."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata=dict(metadata or {})))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read (tensors, metadata) from a safetensors file.

    Raises: RunError when the file is missing, cut short or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunError(
            f"{path} is missing; expected it in a run folder made by `recurra ... train`."
        )
    try:
        with explained(path, "read"), safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({error}), {path.stat().st_size} bytes. "
            "Restore it from a copy or train again."
        ) from error


class RunFolder:
    """Paths and checked reads of one run folder.

    `RunFolder.create` makes a new one and refuses to overwrite; `RunFolder.open` checks that an
    existing one belongs to the task that asks.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.model_path = self.path / "model.safetensors"
        self.metrics_path = self.path / "metrics.json"
        self.log_path = self.path / "log.jsonl"
        self.report_path = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def create(cls, path: str | Path, *, force: bool = False, resume: bool = False) -> RunFolder:
        """Make the folder, or take it over with `force` (its run is removed) or `resume` (kept).

        Raises: RunError when it exists and is not empty, or cannot be written.
        """
        run = cls(path)
        if run.path.exists() and not run.path.is_dir():
            raise RunError(f"{run.path} is a file; a run needs a folder. Choose another --out.")
        if run.path.is_dir() and any(run.path.iterdir()) and not resume:
            run._check_replaceable(force)
            run._remove_run()
        with explained(run.path, "create"):
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            probe = tempfile.NamedTemporaryFile(dir=run.path)  # noqa: SIM115
            probe.close()
        return run

    def _check_replaceable(self, force: bool) -> None:
        if not force:
            raise RunError(
                f"{self.path} already holds files. Pass --force to replace that run, "
                "--resume to go on with it, or choose another --out."
            )
        if not self.config_path.is_file() and not self.checkpoints.is_dir():
            raise RunError(
                f"{self.path} is not a run folder, so --force will not clear it. Choose another "
                "--out."
            )

    def _remove_run(self) -> None:
        """Delete the files that a run consists of, and nothing else that lies in the folder."""
        with explained(self.path, "clear"):
            tensors = [*self.path.glob("*.safetensors"), *self.checkpoints.glob("*.safetensors")]
            for path in (*tensors, self.metrics_path, self.log_path, self.report_path):
                path.unlink(missing_ok=True)
            self.config_path.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: str | Path, task: str | None = None) -> RunFolder:
        """Open an existing run and check its config's format and task.

        Raises: RunError when it is no run folder, of another format version or another task.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise RunError(
                f"{run.path} is not a folder; expected a run made by `recurra ... train`."
            )
        config = run.read_config()
        if task is not None and config["task"] != task:
            raise RunError(
                f"{run.path} holds a {config['task']} run; expected a {task} run. "
                f"Use `recurra {config['task']} ...` or another folder."
            )
        return run

    def write_config(self, task: str, config: Mapping[str, Any]) -> None:
        """Write config.json: format version, task and the task's own validated settings."""
        write_json(
            self.config_path, {"format": FORMAT_VERSION, "task": task, "config": dict(config)}
        )

    def read_config(self) -> dict[str, Any]:
        """The whole config.json, with `format`, `task` and `config` checked."""
        value = read_json(self.config_path)
        if (
            not isinstance(value, dict)
            or not isinstance(value.get("task"), str)
            or not isinstance(value.get("config"), dict)
        ):
            raise RunError(
                f"{self.config_path} is not a run's config: expected the keys format, task, "
                "config. Restore it from a copy or train again."
            )
        if value.get("format") != FORMAT_VERSION:
            raise RunError(
                f"{self.config_path} has format {value.get('format')!r}; this version reads format "
                f"{FORMAT_VERSION}. Use the recurra version that wrote it, or train again."
            )
        return value
