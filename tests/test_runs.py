"""The run folder: files appear whole or not at all, reads are checked, nothing foreign is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from recurra.errors import ConfigError, RunError
from recurra.runs import (
    FORMAT_VERSION,
    RunFolder,
    checksum,
    explained,
    finite,
    read_json,
    read_tensors,
    write_bytes,
    write_json,
    write_tensors,
)


def names(folder: Path) -> list[str]:
    """Everything below a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fill(folder: Path) -> Path:
    """A finished run with a file of every kind."""
    run = RunFolder.create(folder)
    write_tensors(run.model_path, {"w": torch.ones(2)})
    write_tensors(run.state_path, {"h": torch.zeros(2)})
    write_json(run.metrics_path, {})
    write_bytes(run.log_path, b"{}\n")
    write_bytes(run.report_path, b"<html>")
    write_json(run.checkpoints / "fit.json", {})
    write_tensors(run.checkpoints / "step-000000000007.safetensors", {})
    run.write_config("juggling", {"balls": 3}, (run.model_path, run.state_path))
    return folder


# Writing


def test_written_bytes_are_read_back_in_a_new_folder_and_leave_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_bytes(path, b"first")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["a", "a/b", "a/b/file"]


def fail_with(code: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


class FullFile:
    """A file on a disk that is full: some bytes are taken, the rest is refused."""

    def __init__(self, handle: int, mode: str) -> None:
        self.handle = handle

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)

    def write(self, content: bytes) -> None:
        os.write(self.handle, content[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "fdopen", "replace", "chmod"])
@pytest.mark.parametrize("there", [True, False])
def test_a_write_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, there: bool
) -> None:
    path = tmp_path / "config.json"
    if there:
        path.write_bytes(b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, FullFile if call == "fdopen" else fail_with(errno.ENOSPC))
        with pytest.raises(RunError) as caught:
            write_bytes(path, b"after that")
    message = str(caught.value)
    assert message.startswith(f"cannot write {path}: No space left on device. ")
    assert "free space" in message
    assert "Nothing that was there before has been changed" in message
    assert names(tmp_path) == (["config.json"] if there else [])
    assert not there or path.read_bytes() == b"before"


def test_ctrl_c_in_the_middle_of_a_write_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(tmp_path / "file", b"x")
    assert names(tmp_path) == []


def test_content_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        calls.append(("fsync", os.fstat(handle).st_size if not path.exists() else "folder"))
        fsync(handle)

    def replaced(source: str, target: Path) -> None:
        calls.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_bytes(path, b"seven b")
    assert calls[:2] == [("fsync", 7), ("replace", "file")]
    assert calls[2:] in ([("fsync", "folder")], [])


def test_a_folder_that_cannot_be_synced_does_not_undo_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network drives refuse it; the file is already in place by then."""
    fsync = os.fsync

    def synced(handle: int) -> None:
        if (tmp_path / "file").exists():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    write_bytes(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB; the test is skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no small disk can be mounted here ({error})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, capture_output=True, timeout=10)


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    run = RunFolder.create(tiny_disk / "run")
    write_tensors(run.model_path, {"w": torch.zeros(100)})
    before, listed = run.model_path.read_bytes(), names(tiny_disk)
    with pytest.raises(RunError, match=r"cannot write .*model\.safetensors: No space left"):
        write_tensors(run.model_path, {"w": torch.zeros(100_000)})
    assert run.model_path.read_bytes() == before
    assert names(tiny_disk) == listed


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process may read but not write, even when it is root's."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with tempfile.TemporaryDirectory() as place:  # root's tmp_path is closed to others
        folder = Path(place) / "shut"
        fill(folder)
        os.chmod(place, 0o755)
        for path in (folder, folder / "checkpoints"):
            path.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            if os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                pytest.skip("this system lets the test write everywhere")
            yield folder
        finally:
            if root:
                os.seteuid(0)
            for path in (folder, folder / "checkpoints"):
                path.chmod(0o755)


def test_an_unwritable_folder_is_said_and_keeps_what_it_has(unwritable: Path) -> None:
    listed = names(unwritable)
    for call in (
        lambda: write_bytes(unwritable / "config.json", b"x"),
        lambda: write_bytes(unwritable / "new" / "file", b"x"),
        lambda: RunFolder.create(unwritable, force=True),
        lambda: RunFolder.create(unwritable, resume=True),
        lambda: RunFolder.create(unwritable / "below"),
    ):
        with pytest.raises(RunError, match="Permission denied") as caught:
            call()
        assert str(unwritable) in str(caught.value)
        assert "permissions" in str(caught.value)
    assert names(unwritable) == listed
    assert RunFolder.open(unwritable, "juggling").read_config()["config"] == {"balls": 3}


def test_a_folder_below_a_file_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"Not a directory|File exists"):
        RunFolder.create(tmp_path / "file" / "run")
    with pytest.raises(RunError, match=r"file is a file; a run needs a folder\. Choose another"):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(RunError, match=r"cannot create .*File name too long"):
        RunFolder.create(tmp_path / ("n" * 300))


def test_explained_keeps_its_own_messages() -> None:
    with pytest.raises(RunError, match=r"^as it was$"), explained(Path("x"), "write"):
        raise RunError("as it was")


# JSON


def test_json_is_read_back_with_null_for_what_json_has_not(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, float("nan")], "ü": {"b": (float("inf"), None, True)}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == {"a": [1, 2.5, None], "ü": {"b": [None, None, True]}}
    assert "ü" in (tmp_path / "x.json").read_text(encoding="utf-8")
    assert finite(-float("inf")) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a": 1',
        b"\x80\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b"\x00" * 40,
        b"{'a': 1}",
    ],
    ids=["empty", "brace", "cut", "bytes", "deep", "deep objects", "digits", "zeros", "quotes"],
)
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path} is damaged: not valid JSON (")
    assert str(caught.value).endswith("Restore it from a copy or train again.")


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (read_json, read_tensors, checksum):
        with pytest.raises(RunError, match=r"gone is missing; expected it in a run folder made by"):
            read(tmp_path / "gone")
        with pytest.raises(RunError, match="is missing"):
            read(tmp_path)  # a folder is no file


# Tensors


def test_tensors_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "f": torch.tensor([1.5, -0.0, float("nan")]),
        "d": torch.arange(6, dtype=torch.float64).view(2, 3).t(),
        "i": torch.tensor(7),
        "none": torch.zeros(0, 4),
    }
    write_tensors(tmp_path / "x", tensors, {"names": "ä"})
    again, metadata = read_tensors(tmp_path / "x")
    assert metadata == {"names": "ä"}
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name].nan_to_num(9.0), tensor.nan_to_num(9.0))


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    write_tensors(tmp_path / "x", {"in": tied, "out": tied.view(2, 2)})
    again, _ = read_tensors(tmp_path / "x")
    assert torch.equal(again["in"], tied)
    assert torch.equal(again["out"], tied.view(2, 2))


WHOLE = save({"w": torch.arange(12.0).view(3, 4), "b": torch.ones(3)}, metadata={"a": "b"})


def read_damaged(content: bytes) -> str | None:
    """Read a damaged file: what the RunError says, None when there was none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        try:
            read_tensors(path)
        except RunError as error:
            return str(error).replace(str(path), "PATH")
    return None


def is_told(message: str | None, content: bytes) -> bool:
    form = rf"PATH is damaged \(.+\), {len(content)} bytes\. Restore it .*train again\."
    return message is not None and re.fullmatch(form, message, re.DOTALL) is not None


@given(st.integers(0, len(WHOLE) - 1))
def test_a_cut_safetensors_file_is_named(length: int) -> None:
    assert is_told(read_damaged(WHOLE[:length]), WHOLE[:length])


@given(st.binary(max_size=200))
def test_garbage_is_no_safetensors_file(content: bytes) -> None:
    assert is_told(read_damaged(b"\x01" + content), b"\x01" + content)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1))
def test_changed_bytes_never_give_another_error(changes: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for position, value in changes:
        content[position] = value
    message = read_damaged(bytes(content))
    assert message is None or is_told(message, content)


# The run folder


def test_a_run_is_sealed_and_opened(tmp_path: Path) -> None:
    run = RunFolder.open(fill(tmp_path / "run"), "juggling")
    config = run.read_config()
    assert (config["format"], config["task"]) == (FORMAT_VERSION, "juggling")
    assert list(config["files"]) == ["model.safetensors", "state.safetensors"]
    run.check_files(config)


def test_numbers_that_json_has_not_are_sealed_as_null(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write_config("juggling", {"loss": float("nan"), "pair": (1, 2), "ü": {"b": 1, "a": 0.1}})
    assert run.read_config()["config"] == {"loss": None, "pair": [1, 2], "ü": {"a": 0.1, "b": 1}}


def test_files_that_the_seal_does_not_know_are_named(tmp_path: Path) -> None:
    run, other = RunFolder(fill(tmp_path / "run")), RunFolder(fill(tmp_path / "other"))
    write_tensors(other.model_path, {"w": torch.tensor([1.0, 2.0])})
    run.model_path.write_bytes(other.model_path.read_bytes())
    with pytest.raises(RunError) as caught:
        run.check_files(run.read_config())
    assert str(caught.value).startswith(f"{run.model_path} is damaged or belongs to another run")
    assert str(run.config_path) in str(caught.value)
    run.model_path.unlink()
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        run.check_files(run.read_config())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("task"), "expected the keys format, task, config"),
        (lambda c: c.pop("config"), "expected the keys format, task, config"),
        (lambda c: c.update(task=3), "expected the keys format, task, config"),
        (lambda c: c.update(config=[1]), "expected the keys format, task, config"),
        (lambda c: c.pop("format"), "has format None; this version reads format 1"),
        (lambda c: c.update(format=2), "has format 2; this version reads format 1"),
        (lambda c: c.update(format="1"), "has format '1'; this version"),
        (lambda c: c.pop("checksum"), "is damaged or was edited"),
        (lambda c: c.pop("files"), "is damaged or was edited"),
        (lambda c: c.update(more=1), "is damaged or was edited"),
        (lambda c: c["config"].update(balls=4), "is damaged or was edited"),
        (lambda c: c["config"].update(balls=3.0), "is damaged or was edited"),
        (lambda c: c["config"].update(balls=True), "is damaged or was edited"),
        (lambda c: c["config"].update(balls="\ud800"), "is damaged or was edited"),
        (lambda c: c["files"].clear(), "is damaged or was edited"),
    ],
)
def test_an_edited_config_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], words: str
) -> None:
    run = RunFolder(fill(tmp_path / "run"))
    content = json.loads(run.config_path.read_bytes())
    change(content)
    run.config_path.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        RunFolder.open(run.path)
    assert str(caught.value).startswith(str(run.config_path))
    assert words in str(caught.value)
    assert "train again" in str(caught.value)


@pytest.mark.parametrize("content", [b"[]", b"null", b'"text"', b"3", b"{}"])
def test_a_config_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(fill(tmp_path / "run"))
    run.config_path.write_bytes(content)
    with pytest.raises(RunError, match=r"is not a run's config: expected the keys"):
        RunFolder.open(run.path)


def test_other_spacing_of_the_same_config_is_the_same_config(tmp_path: Path) -> None:
    run = RunFolder(fill(tmp_path / "run"))
    before = run.read_config()
    run.config_path.write_text(json.dumps(before, separators=(",", ":"), sort_keys=True))
    assert run.read_config() == before


def test_a_run_of_another_task_is_named_with_its_command(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds a juggling run; expected a forecasting run") as e:
        RunFolder.open(fill(tmp_path / "run"), "forecasting")
    assert "`recurra juggling ...`" in str(e.value)


def test_what_is_no_run_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(RunError, match=r"is not a folder; expected a run made by"):
            RunFolder.open(path)
    with pytest.raises(RunError, match=r"config\.json is missing; expected it in a run folder"):
        RunFolder.open(tmp_path)


def test_a_run_whose_training_has_not_ended_says_how_to_go_on(tmp_path: Path) -> None:
    run = RunFolder(fill(tmp_path / "run"))
    run.config_path.unlink()
    with pytest.raises(RunError, match=r"the training of this run has not ended.*--resume"):
        RunFolder.open(run.path)


# Create, force, resume


def test_a_new_folder_and_an_empty_one_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "deep" / "new", tmp_path / "empty"):
        assert RunFolder.create(path).path == path
        assert names(path) == ["checkpoints"]


def test_a_run_is_kept_without_force_and_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run")
    before = names(folder)
    with pytest.raises(RunError, match=r"run already holds files\. Pass --force .* --resume"):
        RunFolder.create(folder)
    assert names(folder) == before


def test_resume_keeps_everything(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run")
    before = {name: (folder / name).read_bytes() for name in names(folder) if "." in name}
    RunFolder.create(folder, resume=True)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert len(names(folder)) == len(before) + 1  # and the folder of checkpoints


FOREIGN = [
    "notes.txt",
    "other.safetensors",
    "model.safetensors.bak",
    ".hidden",
    "data/model.safetensors",
    "checkpoints/mine.safetensors",
    "checkpoints/step-7.safetensors",
    "checkpoints/.keep",
    "checkpoints/config.json",
]


def test_force_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run")
    (folder / "data").mkdir()
    for name in FOREIGN:
        (folder / name).write_text("mine")
    (folder / ".model.safetensors.ab12_xyz").write_text("half-written")
    (folder / "checkpoints" / ".step-000000000009.safetensors.ab12_xyz").write_text("half-written")
    RunFolder.create(folder, force=True)
    assert names(folder) == sorted([*FOREIGN, "data", "checkpoints"])
    assert all((folder / name).read_text() == "mine" for name in FOREIGN)


def test_resume_removes_what_a_killed_process_left_half_written(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run")
    before = names(folder)
    (folder / ".config.json.ab12_xyz").write_text("half-written")
    RunFolder.create(folder, resume=True)
    assert names(folder) == before


MODEL_OF_OTHERS = {
    "config.json": '{"architectures": ["Other"]}',
    "model.safetensors": "weights of a week",
    "checkpoints/step-100.safetensors": "more",
}


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "mine"},
        MODEL_OF_OTHERS,
        {**MODEL_OF_OTHERS, "config.json": "{ // damaged"},
        {name: text for name, text in MODEL_OF_OTHERS.items() if name != "config.json"},
        {"checkpoints/.keep": ""},
        {"config.json": "[1]", "model.safetensors": "x"},
    ],
)
@pytest.mark.parametrize("how", ["force", "resume"])
def test_a_folder_of_something_else_is_never_touched(
    tmp_path: Path, files: dict[str, str], how: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = names(tmp_path)
    with pytest.raises(RunError, match=re.escape(f"holds files but no run, so --{how} will")):
        RunFolder.create(tmp_path, **{how: True})
    assert names(tmp_path) == before
    assert all((tmp_path / name).read_text() == text for name, text in files.items())


@pytest.mark.parametrize(
    "gone",
    [
        ["config.json"],
        ["config.json", "model.safetensors", "state.safetensors", "metrics.json", "report.html"],
        ["checkpoints/fit.json", "checkpoints/step-000000000007.safetensors"],
    ],
)
@pytest.mark.parametrize("how", ["force", "resume"])
def test_what_is_left_of_a_run_is_still_a_run(tmp_path: Path, gone: list[str], how: str) -> None:
    folder = fill(tmp_path / "run")
    for name in gone:
        (folder / name).unlink()
    RunFolder.create(folder, **{how: True})


@pytest.mark.parametrize("how", ["force", "resume"])
def test_a_run_killed_at_birth_and_one_with_a_damaged_config_can_be_taken_over(
    tmp_path: Path, how: str
) -> None:
    RunFolder.create(tmp_path / "born")
    RunFolder.create(tmp_path / "born", **{how: True})
    run = RunFolder(fill(tmp_path / "damaged"))
    run.config_path.write_bytes(run.config_path.read_bytes()[:20])
    RunFolder.create(run.path, **{how: True})


def test_force_killed_in_the_middle_can_be_forced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was removed last, the folder still says that it is a run."""
    unlink = Path.unlink
    for kept in range(9):
        folder, left = fill(tmp_path / str(kept)), kept

        def limited(path: Path, missing_ok: bool = False) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(Path, "unlink", limited)
            RunFolder.create(folder, force=True)
        RunFolder.create(folder, force=True)
        assert names(folder) == ["checkpoints"]


def test_force_and_resume_together_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run")
    before = names(folder)
    with pytest.raises(ConfigError, match="force and resume contradict each other"):
        RunFolder.create(folder, force=True, resume=True)
    assert names(folder) == before
