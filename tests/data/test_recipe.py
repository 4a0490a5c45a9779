"""Recipes are checked when they are read, and a fault names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from recurra.data.recipe import find_recipe, list_recipes, read_recipe, recipes_folder
from recurra.errors import DataError, RunError
from recurra.tasks.forecasting.reproduce import reproduce as forecast

SECTION = {"file": "a.csv", "until": "2020-01-01", "columns": {}}

GOOD = """
name = "toy"
task = "forecasting"
dataset = "stocks"
description = "A toy."
seeds = [0, 7]

[[published]]
model = "Theta"
source = "Somebody 2000, table 1"
metrics = { mase = 0.9, smape = 12.0 }

[forecasting]
horizon = 14
targets = ["a", "b"]
deep = { value = 1 }
"""


def write(folder: Path, text: str, name: str = "toy") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_whole(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    recipe = find_recipe("toy", tmp_path)
    assert (recipe.name, recipe.task, recipe.dataset) == ("toy", "forecasting", "stocks")
    assert recipe.seeds == (0, 7)
    assert recipe.published[0].model == "Theta"
    assert recipe.published[0].metrics == {"mase": 0.9, "smape": 12.0}
    assert recipe.section == {"horizon": 14, "targets": ["a", "b"], "deep": {"value": 1}}


def test_what_may_be_left_out(tmp_path: Path) -> None:
    text = 'name = "toy"\ntask = "speech"\ndataset = "stocks"\ndescription = "A toy."\n'
    recipe = read_recipe(write(tmp_path, text))
    assert (recipe.seeds, recipe.published, recipe.section) == ((0,), (), {})


def test_a_task_that_makes_its_data_names_none(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, GOOD.replace('dataset = "stocks"', "")))
    assert recipe.dataset is None
    with pytest.raises(DataError, match="'toy' names no data set; forecasting needs one"):
        forecast(recipe.model_copy(update={"section": SECTION}), 0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seeds = [0, 7]", "sedes = [0, 7]", "sedes"),
        ("seeds = [0, 7]", "seeds = []", "seeds"),
        ("seeds = [0, 7]", "seeds = [1, 1]", r"\[1, 1\]"),
        ("seeds = [0, 7]", "seeds = [-1]", r"\[-1\]"),
        ('dataset = "stocks"', 'dataset = "stoks"', "did you mean 'stocks'"),
        ('name = "toy"', 'name = "../toy"', "name"),
        ('task = "forecasting"', 'task = "os.path"', "task"),
        ('task = "forecasting"', "", "task"),
        ("mase = 0.9", 'mase = "low"', "published.0.metrics.mase"),
        ('source = "Somebody 2000, table 1"', "", "published.0.source"),
        ("[forecasting]", "[speech]", "speech"),
        ("horizon = 14", "horizon = ", "not TOML"),
        ("A toy.", "\udcff", "not TOML"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    path = tmp_path / "toy.toml"
    path.write_bytes(GOOD.replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=told) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)


def test_the_name_inside_is_that_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "other")
    with pytest.raises(DataError, match=r"other\.toml calls itself 'toy'"):
        find_recipe("other", tmp_path)


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(DataError, match="unknown recipe 'tou'; did you mean 'toy'"):
        find_recipe("tou", tmp_path)
    with pytest.raises(RunError, match="cannot read"):
        read_recipe(tmp_path / "absent.toml")


def test_the_recipes_of_this_project_are_valid() -> None:
    assert recipes_folder() == Path(__file__).resolve().parents[2] / "recipes"
    for name in list_recipes():
        assert find_recipe(name).section
