"""The run folder: everything that belongs to one trained model, as plain checked files.

    config.json         what was trained and how; the seal, written last (see `write_config`)
    model.safetensors   weights and other tensors
    state.safetensors   where each training series stood at its end, for tasks that go on from there
    tokenizer.json      how text becomes numbers, for tasks on text
    metrics.json        scores of the last evaluation
    log.jsonl           one JSON object per logged training step
    gradients.jsonl     one JSON object per measurement of the gradient's flow, where asked for
    samples.jsonl       texts that a language model wrote while it was trained
    report.html         the report, when one was made
    checkpoints/        resumable training states
    members/            the same of an ensemble's further networks: log.jsonl, checkpoints/

Files are written to a temporary name, flushed to the disk and renamed, so a reader sees the old
file or the new one and never a torn one. Loading reads JSON and safetensors only: no code runs.
config.json holds the checksums of itself and of the files it belongs to, so a changed byte, an edit
or a file of another run is an error and never another forecast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurra.errors import ConfigError, RunError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
MOST_MEMBERS = 64
"""Networks that one run may hold."""

_OURS = (
    "model.safetensors",
    "state.safetensors",
    "tokenizer.json",
    "metrics.json",
    "log.jsonl",
    "gradients.jsonl",
    "samples.jsonl",
    "report.html",
    "config.json",  # last: what is left of a run while it is cleared still says that it is one
)
_OUR_CHECKPOINTS = ("fit.json", f"step-{'[0-9]' * 12}.safetensors")
_ADVICE = {
    "read": "Check that it is there and that you may read it.",
    "clear": "Check the permissions, or choose another folder with --out.",
}
_WRITE_ADVICE = (
    "Nothing that was there before has been changed; check free space and permissions, or choose "
    "another folder with --out."
)
# The commands of tasks that are not called like their task.
_COMMANDS = {"forecasting": "forecast", "language": "lm"}
_RESTORE = "Restore it from a copy or train again."


@contextlib.contextmanager
def explained(path: Path, action: str) -> Iterator[None]:
    """Turn an operating-system error on `path` into a RunError that says what to do."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        advice = _ADVICE.get(action, _WRITE_ADVICE)
        raise RunError(f"cannot {action} {path}: {reason}. {advice}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, see `write_pieces`."""
    write_pieces(path, (content,))


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """Replace `path` by these bytes in one step: write, flush to disk, rename.

    Raises: RunError when the disk is full or the folder cannot be written; `path` is untouched.
    """
    with explained(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    file.write(piece)
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
    """Make the rename itself durable, where the system can: not on Windows, nor on every drive."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):  # the file is whole and in its place whatever happens here
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
    _check_there(path)
    with explained(path, "read"):
        raw = path.read_bytes()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise RunError(f"{path} is damaged: not valid JSON ({error}). {_RESTORE}") from error


def _check_there(path: Path) -> None:
    with explained(path, "read"):
        if not path.is_file():
            raise RunError(
                f"{path} is missing; expected it in a run folder made by `recurra ... train`."
            )


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors as safetensors, in one step."""
    from safetensors.torch import save

    # Copies: tied weights share memory, which the format does not allow.
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    write_bytes(path, save(plain, metadata=dict(metadata or {})))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read (tensors, metadata) from a safetensors file.

    Raises: RunError when the file is missing, cut short or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    _check_there(path)
    try:
        with explained(path, "read"), safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({error}), {path.stat().st_size} bytes. {_RESTORE}"
        ) from error


def checksum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    Raises: RunError when it is missing or cannot be read.
    """
    _check_there(path)
    with explained(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_checksum(value: Any) -> str:
    """SHA-256 of a JSON value: the same after it was written and read, whatever the spacing."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class RunFolder:
    """Paths and checked reads of one run folder.

    `RunFolder.create` makes a new one and refuses to overwrite; `RunFolder.open` checks that an
    existing one belongs to the task that asks.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.model_path = self.path / "model.safetensors"
        self.state_path = self.path / "state.safetensors"
        self.tokenizer_path = self.path / "tokenizer.json"
        self.metrics_path = self.path / "metrics.json"
        self.log_path = self.path / "log.jsonl"
        self.gradients_path = self.path / "gradients.jsonl"
        self.samples_path = self.path / "samples.jsonl"
        self.report_path = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"

    def member(self, number: int) -> RunFolder:
        """Where network `number` of an ensemble keeps log and checkpoints; the first one here."""
        return RunFolder(self.path / "members" / str(number)) if number else self

    def make(self) -> Path:
        """The folder itself, made when it is not there yet."""
        with explained(self.path, "create"):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        return self.path

    @classmethod
    def create(cls, path: str | Path, *, force: bool = False, resume: bool = False) -> RunFolder:
        """Make the folder, or take it over with `force` (its run is removed) or `resume` (kept).

        Raises: RunError when it exists and is not empty, or cannot be written; ConfigError when
        both `force` and `resume` are asked for.
        """
        run = cls(path)
        run.check_free(force=force, resume=resume)
        run._remove(_OURS if force else (), _OUR_CHECKPOINTS if force else ())
        for number in range(1, MOST_MEMBERS if force else 0):
            run.member(number)._remove_member()
        with explained(run.path, "create"):
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=run.path):  # nameless: gone if killed here
                pass
        return run

    def check_free(self, *, force: bool = False, resume: bool = False) -> None:
        """Check that a run may be written here, without changing anything; raises as `create`."""
        if force and resume:
            raise ConfigError(
                "force and resume contradict each other: one replaces the run, the other goes on "
                "with it. Give one of them."
            )
        with explained(self.path, "create"):
            if self.path.exists() and not self.path.is_dir():
                raise RunError(
                    f"{self.path} is a file; a run needs a folder. Choose another --out."
                )
            if not self.path.is_dir() or not any(self.path.iterdir()):
                return
        if not force and not resume:
            raise RunError(
                f"{self.path} already holds files. Pass --force to replace that run, "
                "--resume to go on with it, or choose another --out."
            )
        if not self._is_run():
            raise RunError(
                f"{self.path} holds files but no run, so --{'force' if force else 'resume'} will "
                "not touch it. Choose another --out, or clear it by hand."
            )

    def _is_run(self) -> bool:
        """Whether a run lies here, finished or begun: other software uses some of the same names.

        A config.json that cannot be read is not held against a folder with our checkpoints.
        """
        with contextlib.suppress(RunError):
            value = read_json(self.config_path)
            return isinstance(value, dict) and {"format", "task", "config"} <= value.keys()
        with explained(self.path, "read"):
            begun = any(_found(self.checkpoints, _OUR_CHECKPOINTS, _OUR_CHECKPOINTS))
            entries = [*self.path.iterdir(), *self.checkpoints.glob("*")]
            return begun or entries == [self.checkpoints]

    def _remove(self, names: Iterable[str], checkpoints: Iterable[str]) -> None:
        """Delete these files, and what killed processes left half-written; nothing else."""
        with explained(self.path, "clear"):
            for path in _found(self.checkpoints, checkpoints, _OUR_CHECKPOINTS):
                path.unlink(missing_ok=True)
            for path in _found(self.path, names, _OURS):
                path.unlink(missing_ok=True)

    def _remove_member(self) -> None:
        """Delete what an ensemble's network kept, and its folders where nothing else is there."""
        if not self.path.is_dir():
            return
        self._remove(("log.jsonl", "gradients.jsonl"), _OUR_CHECKPOINTS)
        for folder in (self.checkpoints, self.path, self.path.parent):
            with contextlib.suppress(OSError):  # holds files that are not ours
                folder.rmdir()

    @classmethod
    def open(cls, path: str | Path, task: str | None = None) -> RunFolder:
        """Open an existing run and check its config's format and task.

        Raises: RunError when it is no run folder, of another format version or another task.
        """
        run = cls(path)
        with explained(run.path, "read"):
            if not run.path.is_dir():
                raise RunError(
                    f"{run.path} is not a folder; expected a run made by `recurra ... train`."
                )
        config = run.read_config()
        if task is not None and config["task"] != task:
            raise RunError(
                f"{run.path} holds a {config['task']} run; expected a {task} run. "
                f"Use `recurra {_COMMANDS.get(config['task'], config['task'])} ...` or another "
                "folder."
            )
        return run

    def write_config(
        self, task: str, config: Mapping[str, Any], files: Iterable[Path] = ()
    ) -> None:
        """Write config.json, the seal of a run, after all of its `files` are there.

        {"format", "task", "config": the task's own validated settings, "files": {name: checksum},
        "checksum": of all the rest}
        """
        sealed = {
            "format": FORMAT_VERSION,
            "task": task,
            "config": finite(dict(config)),
            "files": {path.name: checksum(path) for path in files},
        }
        write_json(self.config_path, {**sealed, "checksum": _json_checksum(sealed)})

    def read_config(self) -> dict[str, Any]:
        """The whole config.json, its form and its checksum checked.

        Raises: RunError when it is missing, damaged, edited or of another format version.
        """
        with explained(self.config_path, "read"):
            begun = not self.config_path.is_file() and any(_found(self.checkpoints, ("step-*",)))
        if begun:
            raise RunError(
                f"{self.config_path} is missing: the training of this run has not ended. "
                "Give its train command again with --resume."
            )
        value = read_json(self.config_path)
        if (
            not isinstance(value, dict)
            or not isinstance(value.get("task"), str)
            or not isinstance(value.get("config"), dict)
        ):
            raise RunError(
                f"{self.config_path} is not a run's config: expected the keys format, task, "
                f"config. {_RESTORE}"
            )
        if value.get("format") != FORMAT_VERSION:
            raise RunError(
                f"{self.config_path} has format {value.get('format')!r}; this version reads format "
                f"{FORMAT_VERSION}. Use the recurra version that wrote it, or train again."
            )
        sealed = {key: entry for key, entry in value.items() if key != "checksum"}
        if value.get("checksum") != _json_checksum(sealed):
            raise RunError(
                f"{self.config_path} is damaged or was edited: its checksum is not that of its "
                f"content. {_RESTORE} Settings are chosen when a run is trained."
            )
        return value

    def check_files(self, config: Mapping[str, Any]) -> None:
        """Check that the files beside config.json are those that `read_config` lists.

        Raises: RunError naming the first one that is missing, damaged or of another run.
        """
        files = config.get("files")
        if not isinstance(files, dict) or not files.keys() <= set(_OURS):
            raise RunError(f"{self.config_path} does not list the run's files. {_RESTORE}")
        for name, wanted in files.items():
            path = self.path / name
            if checksum(path) != wanted:
                raise RunError(
                    f"{path} is damaged or belongs to another run: its checksum is not the one in "
                    f"{self.config_path}. {_RESTORE}"
                )


def _found(folder: Path, names: Iterable[str], half_written: Iterable[str] = ()) -> Iterator[Path]:
    """Files of `folder` with these names or patterns, and temporary files of `write_bytes`."""
    for name in (*names, *(f".{name}.????????" for name in half_written)):
        yield from folder.glob(name)
