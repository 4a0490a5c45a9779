from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import pytest
import torch

from recurra.errors import RunError
from recurra.runs import read_tensors, write_tensors
from recurra.training.checkpoint import CheckpointFolder, Progress, read_checkpoint


def make_progress(step: int, **values) -> Progress:
    fields = {
        "step": step,
        "elapsed_s": 1.5,
        "total_steps": None,
        "best_step": None,
        "best_loss": 0.1 + 0.2,
        "stale": 0,
        "stopped": None,
        "sums": {"loss": 1 / 3},
        "scaler": {"scale": 65536.0, "growth_interval": 2000},
        "clipper": {"seen": 7, "mean": 0.1 + 0.2},
        "state": "None",
        "trained": ["w"],
        "settings": {"steps": 3},
    }
    return Progress(**(fields | values))


TENSORS = {
    "weights/w": torch.arange(6.0).reshape(2, 3).t(),
    "weights/half": torch.ones(3, dtype=torch.bfloat16),
    "weights/flag": torch.tensor([True, False]),
    "weights/none": torch.zeros(0, 4),
    "state/0": torch.tensor(3, dtype=torch.int64),
}


def test_everything_comes_back_with_exact_numbers(tmp_path):
    progress = make_progress(7)
    path = CheckpointFolder(tmp_path).save(progress, TENSORS)
    back, tensors = read_checkpoint(path)
    assert back == progress
    assert isinstance(back.scaler["growth_interval"], int)
    assert isinstance(back.clipper["seen"], int)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_tensors_that_share_memory_are_stored_apart(tmp_path):
    whole = torch.arange(4.0)
    path = CheckpointFolder(tmp_path).save(make_progress(1), {"a": whole, "b": whole[1:]})
    _, tensors = read_checkpoint(path)
    assert tensors["a"].tolist() == [0, 1, 2, 3]
    assert tensors["b"].tolist() == [1, 2, 3]


def test_last_two_are_kept_and_a_damaged_later_one_is_removed(tmp_path):
    folder = CheckpointFolder(tmp_path)
    paths = [folder.save(make_progress(step), TENSORS) for step in (9, 10, 100)]
    assert sorted(tmp_path.iterdir()) == paths[1:]
    cut(paths[2])
    resumed = folder.save(make_progress(20), TENSORS)
    assert sorted(tmp_path.iterdir()) == [paths[1], resumed]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x10
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def edit(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b'\\"stale\\":0') == 1
    path.write_bytes(content.replace(b'\\"stale\\":0', b'\\"stale\\":5'))


@pytest.mark.parametrize("damage", [cut, flip, empty, edit])
def test_damaged_newest_gives_way_to_the_one_before_with_a_warning(tmp_path, capsys, damage):
    folder = CheckpointFolder(tmp_path)
    folder.save(make_progress(1), TENSORS)
    damage(folder.save(make_progress(2), TENSORS))
    assert folder.load()[0].step == 1
    warning = capsys.readouterr().err
    assert "step-000000000002.safetensors is damaged" in warning
    assert "Taking the checkpoint before it." in warning


def test_all_damaged_is_an_error_that_counts_them(tmp_path, capsys):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        cut(folder.save(make_progress(step), TENSORS))
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read, 2 are damaged"):
        folder.load()
    assert capsys.readouterr().err.count("warning:") == 2


def test_no_checkpoint_at_all_is_not_an_error(tmp_path):
    assert CheckpointFolder(tmp_path / "absent").load() is None


def test_checkpoint_of_another_format_is_refused(tmp_path):
    path = CheckpointFolder(tmp_path).save(make_progress(1), {})
    text = make_progress(1).model_dump_json().replace('"format":1', '"format":2')
    write_tensors(path, {}, {"training": text, "crc32": f"{zlib.crc32(text.encode()):08x}"})
    with pytest.raises(RunError, match=r"another version of recurra \(fields: format\)"):
        read_checkpoint(path)


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    folder = CheckpointFolder(tmp_path)
    kept = folder.save(make_progress(1), TENSORS)
    (tmp_path / f".{kept.name}.x1y2").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    folder.remove_leftovers()
    assert sorted(os.listdir(tmp_path)) == sorted([kept.name, "notes.txt"])


def test_full_disk_is_an_error_and_the_earlier_checkpoint_stays(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    kept = folder.save(make_progress(1), TENSORS)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RunError, match="No space left on device"):
            folder.save(make_progress(2), TENSORS)
    assert os.listdir(tmp_path) == [kept.name]
    assert read_tensors(kept)[0].keys() == TENSORS.keys()
    assert folder.load()[0].step == 1
