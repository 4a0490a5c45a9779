from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.sentiment.conftest import TINY
from tests.tasks.sentiment.reviews import reviews

from recurra import SentimentClassifier
from recurra.data.recipe import Recipe, find_recipe, list_recipes
from recurra.errors import DataError
from recurra.tasks.sentiment.reproduce import SentimentSection, reproduce, run_folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline folder whose sets hold toy reviews under the real names."""
    trec, subj = (tmp_path / "data" / "sentiment" / name for name in ("trec", "subj"))
    trec.mkdir(parents=True)
    subj.mkdir()
    for name, seed, count in (("train", 0, 120), ("test", 1, 30)):
        made = reviews(count, seed)
        rows = zip(made.labels, made.texts, strict=True)
        (trec / f"TREC.{name}").write_text("".join(f"{y}:x {text}\n" for y, text in rows))
    made = reviews(60)
    for label, name in (("pos", "objective"), ("neg", "subjective")):
        own = [t for t, y in zip(made.texts, made.labels, strict=True) if y == label]
        (subj / f"subj.{name}.xz").write_bytes(lzma.compress("\n".join(own).encode()))
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def recipe(dataset: str | None = "trec", **section: Any) -> Recipe:
    settings = {**TINY, "steps": 6}
    return Recipe(
        name="toy",
        task="sentiment",
        dataset=dataset,
        description="A toy.",
        section={"settings": settings, **section},
    )


def test_a_recipe_trains_scores_and_holds_against_baselines(data: Path) -> None:
    outcome = reproduce(recipe(), 3)
    assert outcome["data"] == "trec, 30 test texts"
    rows = {row["model"]: row["metrics"] for row in outcome["results"]}
    assert list(rows) == ["majority", "naive_bayes", "tfidf_logistic", "recurra"]
    assert rows["tfidf_logistic"]["accuracy"] > 0.9
    assert any("the logistic regression learns from" in note for note in outcome["notes"])
    # The model that is kept gives the same number.
    model = SentimentClassifier.load(run_folder(recipe(), 3))
    assert model.evaluate(reviews(30, 1)).accuracy == rows["recurra"]["accuracy"]
    # A finished run is scored again without training.
    assert reproduce(recipe(), 3)["results"] == outcome["results"]


def test_folds_are_averaged(data: Path) -> None:
    outcome = reproduce(recipe("subj", folds=3), 0)
    assert outcome["data"] == "subj, 60 test texts in 3 folds"
    assert len(outcome["training"]) == 3
    assert outcome["results"][0]["metrics"]["accuracy"] <= 0.55


def test_a_recipe_that_is_wrong_is_refused(data: Path) -> None:
    with pytest.raises(DataError, match=r"recipe 'toy', \[sentiment\]: .*'fold'.*'folds'"):
        reproduce(recipe(fold=3), 0)
    with pytest.raises(DataError, match="recipe 'toy' names no data set"):
        reproduce(recipe(None), 0)


@pytest.mark.parametrize("name", [n for n in list_recipes() if find_recipe(n).task == "sentiment"])
def test_the_recipes_of_the_checkout_are_whole(name: str) -> None:
    found = find_recipe(name)
    section = SentimentSection(**found.section)
    assert SentimentClassifier.from_settings(section.settings).settings.seed == 0
    assert found.published
