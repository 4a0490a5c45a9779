"""A run goes on only with what it began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from recurra.errors import RunError
from recurra.runs import RunFolder, write_json
from recurra.training.same_fit import (
    Fingerprint,
    begin_run,
    check_same_fit,
    free_folder,
    note_fit,
)


class Settings(BaseModel):
    hidden_size: int = 8
    dropout: float = 0.1
    training: dict[str, Any] = {}


FILES = Fingerprint("files", "a1", "on other files; give the same")
START = Fingerprint("start", None, "from other weights; begin from the same run")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "run", force=False, resume=False)
    note_fit(made, Settings(), (FILES, START))
    return made


def test_the_same_settings_and_files_go_on_whatever_the_training_loop_is_asked_for(
    run: RunFolder,
) -> None:
    check_same_fit(run, Settings(training={"learning_rate": 1e-3}), (FILES, START))


def test_a_run_that_has_not_begun_may_be_anything(tmp_path: Path) -> None:
    check_same_fit(RunFolder(tmp_path / "none"), Settings(hidden_size=9), (FILES,))


def test_other_settings_are_named_with_both_values(run: RunFolder) -> None:
    with pytest.raises(RunError, match=r"hidden_size=8 \(now 9\), dropout=0.1 \(now 0.2\)"):
        check_same_fit(run, Settings(hidden_size=9, dropout=0.2), (FILES, START))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (FILES._replace(value="b2"), "trained on other files; give the same, or start anew"),
        (START._replace(value="c3"), "trained from other weights; begin from the same run, or"),
    ],
)
def test_anything_else_to_train_on_is_refused(
    run: RunFolder, other: Fingerprint, words: str
) -> None:
    kept = [one for one in (FILES, START) if one.name != other.name]
    with pytest.raises(RunError, match=words):
        check_same_fit(run, Settings(), (*kept, other))


@pytest.mark.parametrize("damaged", [[], {}, {"settings": 3}])
def test_a_damaged_note_is_no_reason_to_go_on(run: RunFolder, damaged: Any) -> None:
    write_json(run.checkpoints / "fit.json", damaged)
    with pytest.raises(RunError, match=r"fit\.json is damaged"):
        check_same_fit(run, Settings(), (FILES, START))


def test_an_old_run_goes_only_where_a_new_one_begins(run: RunFolder) -> None:
    run.write_config("language", {"old": True})
    with pytest.raises(RunError, match=r"hidden_size=8 \(now 9\)"):
        begin_run(run, Settings(hidden_size=9), (FILES, START), force=False, resume=True)
    assert run.config_path.is_file()
    made = begin_run(run, Settings(hidden_size=9), (FILES,), force=True, resume=False)
    assert made is not None
    assert not run.config_path.exists()
    check_same_fit(made, Settings(hidden_size=9), (FILES,))
    assert begin_run(None, Settings(), (FILES,), force=False, resume=True) is None


def test_a_folder_is_looked_at_before_work_and_left_as_it_is(run: RunFolder) -> None:
    assert free_folder(None, force=False, resume=False) is None
    with pytest.raises(RunError, match="already holds files"):
        free_folder(run.path, force=False, resume=False)
    assert free_folder(str(run.path), force=True, resume=False) is not None
    assert (run.checkpoints / "fit.json").is_file()
