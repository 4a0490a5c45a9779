"""SentimentClassifier: fit, save, load, resume, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.tasks.sentiment.conftest import TINY
from tests.tasks.sentiment.reviews import reviews

from recurra import SentimentClassifier
from recurra.errors import ConfigError, DataError, NotFittedError, RunError
from recurra.tasks.sentiment.examples import Examples
from recurra.training.loop import TrainingInterrupted

TEXTS = ["a good film", "the plot was dull", "so very bad an end", "great"]


def classifier(**settings: object) -> SentimentClassifier:
    return SentimentClassifier(**{**TINY, "steps": 8, "progress": False, **settings})


def test_it_learns(model: SentimentClassifier) -> None:
    assert model.predict(TEXTS) == ["pos", "neg", "neg", "pos"]
    evaluation = model.evaluate(reviews(60, seed=9), min_confidence=0.5)
    rows = {row["model"]: row["metrics"] for row in evaluation.results()}
    assert rows["majority"]["accuracy"] == 0.5
    assert rows["recurra"]["accuracy"] == evaluation.accuracy > 0.9
    assert rows["recurra, at least 0.5 sure"]["answered"] == 1.0
    assert evaluation.notes[0] == "labels: neg 50.0 % (30), pos 50.0 % (30)"


def test_texts_that_were_trained_on_are_counted(model: SentimentClassifier) -> None:
    seen = reviews(160).take([0, 1, 2])
    new = Examples(("quite another text",), ("pos",))
    both = Examples((*seen.texts[:2], seen.texts[2].upper(), *new.texts), (*seen.labels, "pos"))
    assert model.evaluate(both).notes[1].startswith("3 of 4 texts are in the training table too")


def test_a_loaded_run_gives_the_same_bits(tmp_path: Path) -> None:
    model = classifier().fit(reviews(60), out=tmp_path / "run")
    loaded = SentimentClassifier.load(tmp_path / "run")
    assert np.array_equal(model.predict_proba(TEXTS), loaded.predict_proba(TEXTS))
    assert loaded.settings == model.settings
    assert loaded.fitted.notes == model.fitted.notes
    loaded.save(tmp_path / "copy")
    again = SentimentClassifier.load(tmp_path / "copy")
    assert np.array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))


def test_the_same_seed_trains_the_same_model() -> None:
    first, second, other = (
        classifier(seed=seed).fit(reviews(60)).predict_proba(TEXTS) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_an_interrupted_run_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recurra.training import loop

    straight = classifier().fit(reviews(60), out=tmp_path / "a").predict_proba(TEXTS)

    class Watch(loop.InterruptWatch):
        asked = 0

        @property
        def requested(self) -> bool:
            Watch.asked += 1
            return Watch.asked == 5

        @requested.setter
        def requested(self, value: bool) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(loop, "InterruptWatch", Watch)
        with pytest.raises(TrainingInterrupted, match="interrupted after step 4"):
            classifier().fit(reviews(60), out=tmp_path / "b")
    resumed = classifier().fit(reviews(60), out=tmp_path / "b", resume=True)
    assert np.array_equal(resumed.predict_proba(TEXTS), straight)
    with pytest.raises(RunError, match=r"hidden_size=12 \(now 13\)"):
        classifier(hidden_size=13).fit(reviews(60), out=tmp_path / "b", resume=True)
    with pytest.raises(RunError, match="was trained on other texts"):
        classifier().fit(reviews(62), out=tmp_path / "b", resume=True)


def test_any_labels_and_a_frame(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"says": [f"{word} thing {k}" for k in range(6) for word in ("red", "blue", "green")],
         "class": [3, 1, 20] * 6}
    )  # fmt: skip
    model = classifier(text="says", label="class", steps=60).fit(frame)
    assert model.labels == ("1", "3", "20")
    assert model.predict(["red thing", "blue thing", "green thing"]) == ["3", "1", "20"]
    assert model.predict_proba([]).shape == (0, 3)


def test_a_damaged_run_is_refused(tmp_path: Path) -> None:
    classifier().fit(reviews(60), out=tmp_path / "run")
    words = tmp_path / "run" / "tokenizer.json"
    value = json.loads(words.read_text())
    words.write_text(json.dumps({**value, "features": value["features"][:-1]}))
    with pytest.raises(RunError, match=r"tokenizer\.json is damaged or belongs to another run"):
        SentimentClassifier.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "grru"}, "unknown cell 'grru'; did you mean 'gru'"),
        ({"pooling": ("max", "max")}, "names one way twice"),
        ({"pooling": ()}, "pooling"),
        ({"text": "x", "label": "x"}, "both the column 'x'"),
        ({"hidden_size": 0}, "hidden_size=0: expected greater than or equal to 1"),
        ({"training": {"learningrate": 1}}, "did you mean 'learning_rate'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        classifier(**settings)


def test_what_is_refused_before_and_while_fitting(model: SentimentClassifier) -> None:
    with pytest.raises(NotFittedError, match="has not been trained"):
        classifier().predict(["x"])
    with pytest.raises(DataError, match="every text has the label 'a'; expected two or more"):
        classifier().fit(Examples(("x", "y"), ("a", "a")))
    with pytest.raises(ConfigError, match="expected a list of them"):
        model.predict("one text")
    with pytest.raises(ConfigError, match=r"min_confidence=1\.5"):
        model.predict(["x"], min_confidence=1.5)
    with pytest.raises(DataError, match="row 1: unknown label 'great'"):
        model.evaluate(Examples(("x",), ("great",)))
