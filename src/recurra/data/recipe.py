"""A recipe: everything needed to run one published benchmark again, as a TOML file.

name = "weather"
task = "forecasting"
dataset = "weather-seattle"
description = "Daily weather in Seattle, two weeks ahead."
seeds = [0, 1, 2]

[[published]]
model = "AutoETS"
source = "authors, year, table"
metrics = { mase = 0.81 }

[forecasting]           # whatever the task needs; the task checks it
horizon = 14

`dataset` is left out where the task makes its own data.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recurra.data.datasets import DATASETS
from recurra.errors import DataError, unknown
from recurra.runs import explained

_NAME = r"^[a-z][a-z0-9_-]*$"


class Published(BaseModel):
    """A result that others have published: printed beside ours, never measured by us."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    source: str = Field(min_length=1)
    metrics: dict[str, float] = Field(min_length=1)


class Recipe(BaseModel):
    """One benchmark. `section` is the task's own part, checked by the task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_NAME)
    task: str = Field(pattern=r"^[a-z]+$")
    dataset: str | None = None
    description: str = Field(min_length=1)
    published: tuple[Published, ...] = ()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    section: Mapping[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _take_section(cls, value: Any) -> Any:
        """Move the table that bears the task's name to `section`."""
        if not isinstance(value, dict) or "section" in value or "task" not in value:
            return value
        fields = dict(value)
        section = fields.pop(str(value["task"]), {})
        return {**fields, "section": section}

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.dataset is not None and self.dataset not in DATASETS:
            raise ValueError(unknown("data set", self.dataset, DATASETS))
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds {list(self.seeds)} must be different and not negative")
        return self


def recipes_folder() -> Path:
    """The folder of recipes: of the checkout, or of the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    if package.parent.name == "src" and (checkout / "recipes").is_dir():
        return checkout / "recipes"
    return package / "recipes"


def list_recipes(folder: Path | None = None) -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(path.stem for path in (folder or recipes_folder()).glob("*.toml"))


def find_recipe(name: str, folder: Path | None = None) -> Recipe:
    """Read and check recipes/NAME.toml.

    Raises: DataError for an unknown name, or a file that is not a valid recipe.
    """
    names = list_recipes(folder)
    if name not in names:
        raise DataError(unknown("recipe", name, names))
    recipe = read_recipe((folder or recipes_folder()) / f"{name}.toml")
    if recipe.name != name:
        raise DataError(
            f"recipe {name}.toml calls itself {recipe.name!r}; expected {name!r}. Rename one."
        )
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Read and check one recipe file.

    Raises: DataError naming the file and each key that is wrong; RunError if it cannot be read.
    """
    with explained(path, "read"):
        raw = path.read_bytes()
    try:
        return Recipe.model_validate(tomllib.loads(raw.decode()))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'recipe'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise DataError(f"{path} is not a valid recipe: {faults}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} is not TOML: {error}.") from error
