from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.translation.phrases import TINY, phrases

from recurra import Translator
from recurra.data.recipe import Recipe, find_recipe, list_recipes
from recurra.errors import DataError
from recurra.tasks.translation.reproduce import preparation, read_section, reproduce, run_folder

SOURCES, TARGETS = phrases(180)
PARTS = {"train": slice(0, 120), "val": slice(120, 140), "test_2016_flickr": slice(140, 160),
         "test_2017_flickr": slice(160, 180)}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline folder whose set holds toy phrases under the real names."""
    folder = tmp_path / "data" / "translation" / "multi30k"
    folder.mkdir(parents=True)
    for name, rows in PARTS.items():
        for language, side in (("en", SOURCES), ("de", TARGETS), ("fr", TARGETS)):
            lines = "".join(f"{text.capitalize()}\n" for text in side[rows])
            if name == "train":
                lines = lines.replace(" ", "\t", 1)
            (folder / f"{name}.{language}.gz").write_bytes(gzip.compress(lines.encode()))
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def recipe(**section: Any) -> Recipe:
    chosen = {
        "source": "en", "target": "de", "suffix": ".gz",
        "tests": {"2016": "test_2016_flickr", "2017": "test_2017_flickr"},
        "settings": {**TINY, "steps": 30}, **section,
    }  # fmt: skip
    return Recipe(
        name="toy", task="translation", dataset="multi30k", description="A toy.", section=chosen
    )


def test_a_recipe_trains_and_scores_both_protocols(data: Path) -> None:
    outcome = reproduce(recipe(), 3)
    assert outcome["data"] == "multi30k, en to de, test sentences: 2016 20, 2017 20"
    rows = {row["model"]: row["metrics"] for row in outcome["results"]}
    assert list(rows) == ["recurra", "recurra, greedy", "source copied"]
    assert set(rows["recurra"]) == {
        f"{metric}_{year}" for metric in ("bleu", "cased_bleu", "chrf") for year in (2016, 2017)
    }
    assert "control characters became blanks in line 1 of train.en.gz" in outcome["notes"]
    model = Translator.load(run_folder(recipe(), 3))
    test = [
        [text.capitalize() for text in side[PARTS["test_2016_flickr"]]]
        for side in (SOURCES, TARGETS)
    ]
    assert model.evaluate(*test).bleu == rows["recurra"]["cased_bleu_2016"]
    # A finished run is scored again without training.
    assert reproduce(recipe(), 3)["results"] == outcome["results"]


def test_the_published_protocol_lowers_normalises_and_splits() -> None:
    prepare = preparation(read_section(recipe()))
    assert prepare("Ein «Haus», rot.") == "ein &quot; haus &quot; , rot ."
    plain = preparation(read_section(recipe(protocol="words")))
    assert plain("Ein  Haus.") == "Ein  Haus."


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"sorce": "en"}, "unknown translation setting 'sorce'; did you mean 'source'"),
        ({"search": {"beem": 3}}, "unknown setting of the search 'beem'"),
        ({"protocol": "bleu"}, "protocol='bleu'"),
    ],
)
def test_sections_that_are_wrong_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_section(recipe(**section))


def test_the_recipes_of_the_package_are_right() -> None:
    found = [find_recipe(name) for name in list_recipes()]
    names = [one.name for one in found if one.task == "translation"]
    assert "multi30k-en-de" in names
    for name in names:
        section = read_section(find_recipe(name))
        Translator.from_settings(section.settings)
