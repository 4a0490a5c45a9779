from __future__ import annotations

import pytest
from tests.tasks.sentiment.conftest import TINY
from tests.tasks.sentiment.reviews import reviews

from recurra import SentimentClassifier
from recurra.errors import DataError
from recurra.tasks.sentiment.stream import LineStream, judge

TEXTS = reviews(12, seed=5, words=30).texts


def test_a_stream_says_what_the_batch_says_after_every_word(model: SentimentClassifier) -> None:
    text = max(TEXTS, key=len)
    words = text.split()
    expected = model.predict_proba([" ".join(words[: k + 1]) for k in range(len(words))])
    stream = model.stream()
    for word, row in zip(words, expected, strict=True):
        stream.push(word)
        assert list(stream.opinion().values()) == pytest.approx(row, abs=1e-9)


def test_the_state_does_not_grow_with_the_text(model: SentimentClassifier) -> None:
    stream = model.stream()
    stream.push("the film was so very good " * 50)
    state = stream.state
    assert len(state.open) < 4
    assert (state.words, len(state.found)) == (300, len(state.found & set(range(500))))
    found = len(state.found)
    stream.push("the film was so very good " * 50)
    assert len(stream.state.found) == found


def test_a_forward_model_reads_each_word_once() -> None:
    model = SentimentClassifier(**TINY, bidirectional=False, steps=5, progress=False)
    model = model.fit(reviews(60))
    stream = model.stream()
    for text in TEXTS[:3]:
        stream.restore(None)
        stream.push(text)
        assert stream.state.open == ()
        expected = model.predict_proba([text])[0]
        assert list(stream.opinion().values()) == pytest.approx(expected, abs=1e-5)


def test_lines_of_one_key_are_one_text(model: SentimentClassifier) -> None:
    stream = LineStream(model.fitted, key="id")
    stream.push({"id": 1, "text": "the film"})
    stream.push({"id": 2, "text": "a bad"})
    answer = stream.push({"id": 1, "text": "was good"})
    expected = judge(
        dict(zip(model.labels, model.predict_proba(["the film was good"])[0], strict=True)), 0.0
    )
    assert answer == {"id": 1, "text": "was good", **expected, "words": 4}
    # Without a key every line is a text.
    alone = LineStream(model.fitted)
    alone.push({"text": "a bad"})
    assert alone.push({"text": "was good"})["words"] == 2


def test_the_opinion_runs_by_word_and_by_sentence(model: SentimentClassifier) -> None:
    event = {"text": "Good film. A bad end"}
    by_word = LineStream(model.fitted, every="word").push(event)["running"]
    assert [one["text"] for one in by_word] == ["Good", "film", ".", "A", "bad", "end"]
    by_sentence = LineStream(model.fitted, every="sentence").push(event)["running"]
    assert [one["text"] for one in by_sentence] == ["Good film.", "A bad end"]
    assert by_sentence[0]["probabilities"] == by_word[2]["probabilities"]


def test_it_abstains_below_the_confidence(model: SentimentClassifier) -> None:
    assert judge({"a": 0.6, "b": 0.4}, 0.7)["label"] is None
    assert judge({"a": 0.6, "b": 0.4}, 0.6)["label"] == "a"
    assert model.predict(["the film"], min_confidence=1.0) == [None]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"id": 1}, "no text under 'text'"),
        ({"id": 1, "text": "  "}, "no word yet"),
        ({"text": "a"}, "no key under 'id'"),
        ({"id": True, "text": "a"}, "no key under 'id'"),
    ],
)
def test_events_that_cannot_be_used(
    model: SentimentClassifier, event: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        LineStream(model.fitted, key="id").push(event)
