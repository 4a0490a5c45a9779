"""`recurra reproduce`: calls the task, keeps a file for each seed, makes the table of those."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recurra.cli.main import main
from recurra.data import recipe as recipes
from recurra.report import results

RECIPE = """
name = "toy"
task = "juggling"
dataset = "stocks"
description = '''
A toy,
of 3 balls. What was tried with it before.
'''
seeds = [0, 1]
published = [{ model = "Them", source = "Them 2020, table 1", metrics = { mase = 0.9 } }]
[juggling]
balls = 3
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """A recipe `toy` with data, for a task that measures mase = seed + 1; the seeds asked for."""
    asked: list[int] = []
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "toy.toml").write_text(RECIPE)
    monkeypatch.setattr(recipes, "recipes_folder", lambda: tmp_path / "recipes")
    stocks = tmp_path / "data" / "forecasting" / "stocks" / "stocks.csv"
    stocks.parent.mkdir(parents=True)
    stocks.write_text("symbol\n")
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))

    def reproduce(recipe: recipes.Recipe, seed: int) -> dict[str, Any]:
        asked.append(seed)
        assert recipe.section == {"balls": 3}
        rows = [
            results.make_result("naive", {"mase": 1.0}),
            results.make_result("recurra", {"mase": seed + 1.0}),
        ]
        return results.make_outcome("juggling", "toy data", rows, seconds=2.0)

    package = types.ModuleType("recurra.tasks.juggling")
    package.__path__ = []
    module = types.ModuleType("recurra.tasks.juggling.reproduce")
    module.__spec__ = types.SimpleNamespace(name=module.__name__)  # type: ignore[assignment]
    module.reproduce = reproduce  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main(["reproduce", *words])
        out, err = capsys.readouterr()
        return int(leaving.value.code or 0), out, err

    return call


def test_one_seed_is_one_file_with_the_published_row(
    calls: list[int], run: Run, tmp_path: Path
) -> None:
    status, out, _ = run("toy", "--seed", "3", "--json", "--out", str(tmp_path / "out"))
    assert (status, calls) == (0, [3])
    outcome = json.loads(out)
    assert set(outcome) == set(results.KEYS)
    assert outcome == json.loads((tmp_path / "out" / "toy" / "seed-3.json").read_text())
    assert [(row["model"], row["source"], row["metrics"]) for row in outcome["results"]] == [
        ("naive", "measured", {"mase": 1.0}),
        ("recurra", "measured", {"mase": 4.0}),
        ("Them (Them 2020, table 1)", "published", {"mase": 0.9}),
    ]


def test_all_seeds_are_run_and_combined(calls: list[int], run: Run, tmp_path: Path) -> None:
    status, out, err = run("toy", "--json", "--out", str(tmp_path / "out"))
    assert (status, calls) == (0, [0, 1])
    ours = json.loads(out)["results"][1]["metrics"]["mase"]
    assert ours == {"mean": 1.5, "sd": pytest.approx(0.5**0.5), "n": 2}
    assert "toy, seed 1" in err
    page = (tmp_path / "out" / "toy.md").read_text()
    assert "| recurra | measured | 1.5 ± 0.707 |" in page
    assert "| naive | measured | 1 |" in page


def test_the_table_alone_runs_nothing(calls: list[int], run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("toy", "--out", str(out))
    before = (out / "toy.md").read_bytes()
    (out / "toy.md").unlink()
    assert run("toy", "--table", "--out", str(out)) == (0, f"{out / 'toy.md'}\n", "")
    assert (out / "toy.md").read_bytes() == before
    assert calls == [0, 1]


def test_an_outcome_that_is_there_is_kept_without_force(
    calls: list[int], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run("toy", "--seed", "1", "--out", str(out))
    before = (out / "toy" / "seed-1.json").read_bytes()
    status, _, err = run("toy", "--out", str(out))
    assert (status, calls) == (1, [1])  # found before seed 0 was run
    assert "seed-1.json is already there" in err
    assert "--force" in err
    assert (out / "toy" / "seed-1.json").read_bytes() == before
    assert run("toy", "--force", "--out", str(out))[0] == 0
    assert calls == [1, 0, 1]


def test_absent_data_is_found_before_the_work(
    calls: list[int], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECURRA_DATA")
    status, _, err = run("toy", "--out", str(tmp_path / "out"))
    assert (status, calls) == (1, [])
    assert "recurra data get stocks" in err


def test_without_a_checkout_nothing_is_written(
    calls: list[int], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "checkout", lambda: None)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    status, out, _ = run("toy", "--seed", "0")
    assert status == 0
    assert "recurra" in out
    assert sorted(tmp_path.rglob("*")) == before
    assert run("toy", "--table")[0] == 2


def test_in_a_checkout_the_outcome_goes_to_docs_results(
    calls: list[int], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "checkout", lambda: tmp_path / "checkout")
    assert run("toy", "--seed", "0")[0] == 0
    assert (tmp_path / "checkout" / "docs" / "results" / "toy" / "seed-0.json").is_file()


def test_without_a_name_the_recipes_are_listed(calls: list[int], run: Run) -> None:
    status, out, _ = run()
    assert status == 0
    assert out.splitlines()[1:] == ["toy   juggling  stocks  A toy, of 3 balls."]
    assert json.loads(run("--json")[1])["recipes"][0]["name"] == "toy"


def test_options_of_comparisons_are_refused_elsewhere(calls: list[int], run: Run) -> None:
    status, _, err = run("toy", "--cell", "lstm", "--length", "5")
    assert (status, calls) == (2, [])
    assert "toy is no comparison of cells, and has no --length, --cell" in err


def test_an_unknown_name_and_an_unknown_task_are_messages(
    calls: list[int], run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "did you mean 'toy'?" in run("toyy")[2]
    monkeypatch.delitem(sys.modules, "recurra.tasks.juggling")
    monkeypatch.delitem(sys.modules, "recurra.tasks.juggling.reproduce")
    status, _, err = run("toy", "--out", str(tmp_path / "out"))
    assert status == 1
    assert "'juggling'" in err
