"""`recurra reproduce` for comparisons: the cases of a recipe, their files, the page of all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tasks.longlag.fakes import install_digits

from recurra.cli.main import main
from recurra.data import recipe as recipes
from recurra.data.recipe import Recipe
from recurra.errors import ConfigError, DataError
from recurra.report.results import KEYS
from recurra.tasks.longlag.model import VARIANTS
from recurra.tasks.longlag.reproduce import Case, plan, read_section, training_settings
from recurra.tasks.longlag.reproduce import make_problem as problem_of
from recurra.tasks.longlag.reproduce import run as run_case

TINY = """
name = "{name}"
task = "longlag"
description = "Tiny."
seeds = [0, 1]
[longlag]
problem = "{name}"
steps = 4
hidden_size = 5
batch_size = 3
learning_rate = 0.01
clip_limit = 1e-9
validate_every = 2
"""
LENGTHS = {"adding": 12, "copy": 3, "parity": 9}
RECIPES = ("adding", "copy", "parity", "digits", "digits-permuted")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`recurra reproduce` with tiny recipes and outcomes in tmp_path / "out"."""
    (tmp_path / "recipes").mkdir()
    for name in RECIPES:
        length = f"length = {LENGTHS[name]}\n" if name in LENGTHS else ""
        (tmp_path / "recipes" / f"{name}.toml").write_text(TINY.format(name=name) + length)
    monkeypatch.setattr(recipes, "recipes_folder", lambda: tmp_path / "recipes")

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main(["reproduce", *words, "--out", str(tmp_path / "out")])
        out, err = capsys.readouterr()
        return int(leaving.value.code or 0), out, err

    return call


def recipe(**changes: object) -> Recipe:
    section = {"problem": "adding", "length": 12, "steps": 4, "hidden_size": 5, "batch_size": 3}
    section |= {"learning_rate": 0.01} | changes
    return Recipe(name="adding", task="longlag", description="Tiny.", section=section)


@pytest.mark.parametrize("name", RECIPES)
def test_each_problem_from_one_command(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_digits(monkeypatch)
    status, out, err = run(name, "--cell", "gru", "--seed", "7")
    assert (status, "1 of 2" in err, "2 of 2" in err) == (0, True, True)
    stem = f"length-{LENGTHS[name]}-gru" if name in LENGTHS else "gru"
    files = sorted(path.name for path in (tmp_path / "out" / name).iterdir())
    assert files == [f"{stem}-none-seed-7.json", f"{stem}-norm-seed-7.json"]
    outcome = json.loads((tmp_path / "out" / name / files[1]).read_text())
    assert set(KEYS) < set(outcome)
    assert outcome["training"]["steps_done"] == 4
    assert outcome["training"]["stopped"] == "steps"
    assert outcome["training"]["clipped"] == 1.0
    assert outcome["training"]["cpu_seconds"] > 0
    assert "GRU" in out
    page = (tmp_path / "out" / f"{name}.md").read_text()
    assert page.count("| GRU |") == 2
    assert ("not in 4" in page) == (name in LENGTHS)


def test_what_is_there_is_kept_and_the_rest_is_run(run: Run, tmp_path: Path) -> None:
    words = ("adding", "--clip", "none", "--cell", "elman")
    assert run(*words, "--seed", "1")[0] == 0
    path = tmp_path / "out" / "adding" / "length-12-elman-none-seed-1.json"
    before = path.stat().st_mtime_ns
    status, out, err = run(*words, "--json")
    assert status == 0
    assert "seed-0\n" in err
    assert "seed-1, kept" in err
    assert path.stat().st_mtime_ns == before
    seeds = [outcome["case"]["seed"] for outcome in json.loads(out)["outcomes"]]
    assert seeds == [0, 1]
    assert "0, 1" in (tmp_path / "out" / "adding.md").read_text()
    run(*words, "--seed", "1", "--force")
    assert path.stat().st_mtime_ns > before


def test_another_length_has_files_and_a_table_of_its_own(run: Run, tmp_path: Path) -> None:
    words = ("copy", "--cell", "elman", "--clip", "norm", "--seed", "0")
    run(*words)
    run(*words, "--length", "5")
    page = (tmp_path / "out" / "copy.md").read_text()
    assert page.index("## copy, T = 3") < page.index("## copy, T = 5")


def test_the_table_alone_runs_nothing(run: Run, tmp_path: Path) -> None:
    status, _, err = run("parity", "--table")
    assert (status, "holds no outcome" in err) == (1, True)
    run("parity", "--cell", "lstm", "--clip", "norm", "--seed", "0")
    page = tmp_path / "out" / "parity.md"
    before = page.read_bytes()
    page.unlink()
    assert run("parity", "--table") == (0, f"{page}\n", "")
    assert page.read_bytes() == before


def test_the_same_case_gives_the_same_numbers(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out" / "adding" / "length-12-lstm-chrono-norm-seed-3.json"
    found = []
    for _ in range(2):
        run("adding", "--cell", "lstm-chrono", "--clip", "norm", "--seed", "3", "--force")
        found.append(json.loads(path.read_text())["results"])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("adding", "--cell", "lsmt"), "unknown cell 'lsmt'; did you mean 'lstm'"),
        (("adding", "--clip", "nrom"), "unknown way of clipping 'nrom'; did you mean 'norm'"),
        (("adding", "--length", "1"), "length=1; expected 2 steps or more"),
        (("digits", "--length", "9"), "--length 9 is asked for"),
    ],
)
def test_a_wrong_choice_is_found_before_the_work(
    words: tuple[str, ...], told: str, run: Run, tmp_path: Path
) -> None:
    status, _, err = run(*words)
    assert (status, told in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_missing_scikit_learn_is_found_before_the_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    status, _, err = run("digits")
    assert (status, "recurra[digits]" in err) == (1, True)
    assert not (tmp_path / "out").exists()


def test_all_cells_and_both_ways_of_clipping_are_planned() -> None:
    cases = plan(recipe(), (0, 5), {})
    assert len(cases) == len(set(cases)) == 2 * 2 * len(VARIANTS)
    assert len({case.name for case in cases}) == len(cases)
    assert {case.clip for case in cases} == {"none", "norm"}
    chosen = plan(recipe(), (2,), {"cell": ["gru", "gru"], "clip": ["norm"], "length": 30})
    assert chosen == [Case("gru", 30, "norm", 2)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 0}, r"\[longlag\]: steps: Input should be greater"),
        ({"stepps": 9}, "stepps: Extra inputs"),
        ({"problem": "adding", "hidden_size": "many"}, "hidden_size"),
    ],
)
def test_a_wrong_recipe_is_named(changes: dict[str, object], told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_section(recipe(**changes))


def test_a_problem_that_is_unknown_or_has_no_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown problem 'adidng'; did you mean 'adding'"):
        problem_of("adidng", 9)
    with pytest.raises(ConfigError, match="'copy' needs a length"):
        problem_of("copy", None)


def test_cases_differ_in_their_clipping_only() -> None:
    section = read_section(recipe(clip_limit=0.5))
    problem = problem_of("adding", 12)
    free, clipped = (
        training_settings(section, problem, Case("gru", 12, clip, 3)).model_dump()
        for clip in ("none", "norm")
    )
    assert free | {"clip": "norm", "clip_limit": 0.5} == clipped
    assert (free["clip"], free["clip_limit"], free["seed"]) == (None, None, 3)
    assert (free["target_loss"], free["cooldown_share"], free["ema_decay"]) == (0.01, 0.0, None)


def test_seeds_begin_with_different_weights() -> None:
    still = recipe(learning_rate=1e-30)
    scores = [
        run_case(still, Case("gru", 12, "none", seed), progress=False)["results"][0]["metrics"][
            "mse"
        ]
        for seed in (0, 0, 1)
    ]
    assert scores[0] == scores[1] != scores[2]
