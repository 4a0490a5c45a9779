from __future__ import annotations

import pytest

from recurra import SentimentClassifier
from recurra.errors import ConfigError


def test_values_sum_up_to_the_margin(model: SentimentClassifier) -> None:
    found = model.explain("the film was so very good , it was the end")
    total = sum(found.values)
    assert found.label == "pos"
    assert abs(found.gap) < 0.02 * abs(total)
    assert "".join(found.pieces) == "the film was so very good , it was the end"
    assert max(zip(found.values, found.pieces, strict=True))[1] == "good"


def test_one_gradient_finds_the_word_too(model: SentimentClassifier) -> None:
    found = model.explain("it was a dull film", method="gradient")
    assert max(zip(found.values, found.pieces, strict=True))[1] == "dull"
    words = found.to_json()["words"]
    assert [one["word"] for one in words] == ["it", "was", "a", "dull", "film"]


def test_it_explains_what_it_predicts(model: SentimentClassifier) -> None:
    text = "a great plot"
    found = model.explain(text)
    assert list(found.probabilities.values()) == pytest.approx(model.predict_proba([text])[0])


def test_a_text_without_words_is_explained(model: SentimentClassifier) -> None:
    found = model.explain("  ")
    assert (found.pieces, found.values) == (("  ",), (0.0,))


def test_an_unknown_method_is_refused(model: SentimentClassifier) -> None:
    with pytest.raises(ConfigError, match="unknown method 'integratd'; did you mean 'integrated'"):
        model.explain("x", method="integratd")  # type: ignore[arg-type]
