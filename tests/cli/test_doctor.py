"""`recurra doctor` tells the truth about this machine, also when parts are missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import recurra
from recurra.cli import doctor
from recurra.cli.main import main


def test_json_says_what_is_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "forecasting" / "weather"
    folder.mkdir(parents=True)
    (folder / "seattle-weather.csv").write_text("date\n")
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as leaving:
        main(["doctor", "--json"])
    assert leaving.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recurra"] == recurra.__version__
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert found["threads"]["torch"] == torch.get_num_threads()
    if hasattr(os, "sched_getaffinity"):
        assert found["threads"]["allowed"] == len(os.sched_getaffinity(0))
    assert found["cuda"]["present"] == torch.cuda.is_available()
    assert found["compiled_core"]["present"] == (
        importlib.util.find_spec("recurra._core") is not None
    )
    assert found["RECURRA_DATA"] == {"folder": str(tmp_path), "exists": True, "sets": 1}


def rows(found: dict[str, Any]) -> dict[str, str]:
    return {row[0]: row[1] for row in doctor.describe(found)}


def test_the_core_says_how_it_would_run() -> None:
    _core = pytest.importorskip("recurra._core")
    found = doctor.examine()
    core, levels = found["compiled_core"], _core.levels()
    assert list(core["levels"]) == levels
    assert core["level"] == levels[0]
    assert core["vector_bits"] == core["levels"][levels[0]] == _core.vector_bits(levels[0])
    assert core["threads"] == min(torch.get_num_threads(), _core.threads_usable())
    told = rows(found)
    assert (
        f"present, runs at {levels[0]}, {core['vector_bits']}-bit vectors"
        in (told["compiled core"])
    )
    assert told["core's threads"].startswith(f"{core['threads']}; ")
    if sys.platform == "linux":
        assert core["openmp"] == "shared"
        assert told["core's threads"].endswith("one OpenMP pool, shared with torch")


def test_a_core_without_openmp_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _core = pytest.importorskip("recurra._core")
    monkeypatch.setattr(_core, "threads_usable", lambda: 1)
    monkeypatch.setattr(_core, "threads_allowed", lambda: 4)
    found = doctor.examine()
    assert found["compiled_core"]["openmp"] == "none"
    assert rows(found)["core's threads"].startswith("1; built without OpenMP, so always 1")


def test_the_pool_is_told_from_the_runtimes_that_are_loaded() -> None:
    torchs, other = "/torch/lib/libgomp-a34b3233.so.1", "/usr/lib/libgomp.so.1"
    assert doctor._examine_openmp([torchs, "/lib/libc.so.6", torchs]) == "shared"
    assert doctor._examine_openmp([torchs, other]) == "separate"
    assert doctor._examine_openmp([]) == doctor._examine_openmp(None) == "unknown"


def test_a_missing_core_is_said_with_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    told = rows(doctor.examine())["compiled core"]
    assert told.startswith("missing:")
    assert "slower" in told
    assert "C++20 compiler" in told


def test_a_core_that_does_not_load_is_not_called_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "recurra._core", None)
    monkeypatch.delattr(recurra, "_core", raising=False)
    assert "cannot be loaded" in rows(doctor.examine())["compiled core"]


def test_a_missing_extra_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "forecasting", ("numpy", "no-such-package"))
    told = rows(doctor.examine())["extra forecasting"]
    assert told == "missing no-such-package: pip install 'recurra[forecasting]'"


def test_a_wrong_data_folder_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "absent"))
    assert rows(doctor.examine())["RECURRA_DATA"] == f"{tmp_path / 'absent'} is not a folder"
    monkeypatch.delenv("RECURRA_DATA")
    assert rows(doctor.examine())["RECURRA_DATA"].startswith("not set")


def test_the_extras_are_those_of_the_project() -> None:
    import tomllib

    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    listed = tomllib.loads(project.read_text())["project"]
    required = {name.split(">")[0] for name in listed["dependencies"]}
    assert required == set(doctor.REQUIRED)
    extras = listed["optional-dependencies"]
    for extra, packages in doctor.EXTRAS.items():
        named = {n.split(">")[0] for n in extras[extra] if not n.startswith("recurra[")}
        assert named == set(packages)
    everything = extras["all"][0].removeprefix("recurra[").removesuffix("]").split(",")
    assert set(everything) == set(extras) - {"all", "dev", "bench"} == set(doctor.EXTRAS)
