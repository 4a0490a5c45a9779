from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.language.texts import tiny, write

from recurra import LanguageModel
from recurra.errors import ConfigError, DataError, RunError
from recurra.tasks.language.line_stream import LineStream


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny(num_layers=2, steps=60)


def test_writing_is_choosing_by_the_scores(model: LanguageModel) -> None:
    stream = model.stream()
    stream.read("the ")
    written = "".join(stream.write(30, model.fitted.sampler(temperature=0)))
    again = model.stream()
    again.read("the ")
    for character in written:
        log_probs = again.next_log_probs()
        nats = float(again.read(character).nats[0])
        assert nats == pytest.approx(-float(log_probs.max()), rel=1e-6)


def test_text_can_be_read_and_written_in_any_pieces(model: LanguageModel) -> None:
    whole = model.write("the cat", length=25, seed=5)
    sampler, stream = model.fitted.sampler(seed=5), model.stream()
    text = ""
    for part in ("the ", "c", "at"):
        stream.read(part)
        text += part
    for length in (1, 10, 14):
        text += "".join(stream.write(length, sampler))
    assert text == whole
    assert model.write("the cat", length=25, seed=6) != whole


def test_a_state_is_a_value(model: LanguageModel, tmp_path: Path) -> None:
    stream = model.stream()
    stream.read("the dog")
    state = stream.state
    stream.save(tmp_path / "s.safetensors")
    first = stream.read(" saw").nats
    stream.restore(state)
    assert torch.equal(stream.read(" saw").nats, first)
    other = model.stream()
    other.load(tmp_path / "s.safetensors")
    assert torch.equal(other.read(" saw").nats, first)
    stream.restore(None)
    assert torch.equal(stream.read("the").nats, model.score("the").nats)


def test_a_state_of_another_model_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    tiny(seed=9).stream().save(path)
    with pytest.raises(RunError, match="the state of another model's text"):
        model.stream().load(path)
    model.stream().save(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RunError, match="is damaged"):
        model.stream().load(path)


def test_words_are_written_with_blanks_between() -> None:
    model = tiny(tokens="word", steps=80, training={"learning_rate": 1e-2})
    text = model.write("the cat", length=12, temperature=0)
    words = text.split()
    assert len(words) >= 10
    assert set(words) <= set(model.fitted.tokenizer.words)  # type: ignore[attr-defined]
    assert text.startswith(("the cat ", "the cat\n"))


def test_bytes_are_handed_over_when_a_character_is_whole() -> None:
    model = LanguageModel(
        tokens="byte", steps=150, hidden_size=16, progress=False, training={"learning_rate": 1e-2}
    ).fit_text("日é" * 600)
    stream = model.stream()
    stream.read("日é")
    pieces = list(stream.write(10, model.fitted.sampler(temperature=0)))
    assert "".join(pieces) == "日é日é"
    assert pieces == ["日", "é", "日", "é"]


def test_a_beam_writes_a_text_that_is_no_less_likely(model: LanguageModel) -> None:
    def nats(text: str) -> float:
        return float(model.score(text).nats[4:].double().sum())

    greedy = model.write("the ", length=12, temperature=0)
    assert model.write("the ", length=12, beam_size=1) == greedy
    wide = model.write("the ", length=12, beam_size=8)
    assert len(wide) == 16
    assert nats(wide) <= nats(greedy) + 1e-6
    stream = model.stream()
    stream.read("the ")
    written = stream.write_likeliest(5, 3)
    after = stream.read("cat").nats
    assert torch.equal(after, model.score(f"the {written}cat").nats[-3:])
    with pytest.raises(ConfigError, match="beam_size=2 draws nothing, so top_k would do nothing"):
        model.write("the ", length=3, beam_size=2, top_k=3)


def test_the_unknown_character_is_never_written(model: LanguageModel) -> None:
    text = model.write(length=400, temperature=5.0)
    assert "\N{REPLACEMENT CHARACTER}" not in text


def test_a_length_must_be_a_number_of_tokens(model: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="length=0: expected at least 1 token"):
        model.write(length=0)


# Lines


def test_lines_are_scored_one_after_another(model: LanguageModel) -> None:
    lines = LineStream(model.fitted)
    answers = [lines.push({"text": text}) for text in ("the cat", "", "the dog")]
    bits = [bit for answer in answers for bit in answer["surprise"]]
    expected = model.score("the cat\n\nthe dog\n").nats.double() / torch.tensor(2.0).log()
    assert bits == pytest.approx(expected.tolist(), abs=1e-3)
    assert answers[0]["tokens"] == [*"the cat", "\n"]
    assert answers[0]["bits"] == pytest.approx(sum(answers[0]["surprise"]), abs=1e-2)
    assert answers[0]["bits_per_char"] == pytest.approx(answers[0]["bits"] / 8, abs=1e-3)


def test_keys_have_texts_of_their_own(model: LanguageModel) -> None:
    both = LineStream(model.fitted, text="line", key="host")
    alone = LineStream(model.fitted)
    for text in ("the cat", "sat on", "the mat"):
        answer = both.push({"line": text, "host": "a", "n": 1})
        both.push({"line": "something else", "host": 7})
        assert answer["surprise"] == alone.push({"text": text})["surprise"]
        assert (answer["host"], answer["n"]) == ("a", 1)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"host": "a"}, "no text under 'line'"),
        ({"line": 3, "host": "a"}, "no text under 'line'"),
        ({"line": "a\nb", "host": "a"}, "has a line end in it"),
        ({"line": "a"}, "no key under 'host'"),
        ({"line": "a", "host": [1]}, "no key under 'host'"),
    ],
)
def test_events_that_cannot_be_scored(
    model: LanguageModel, event: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        LineStream(model.fitted, text="line", key="host").push(event)


def test_the_report_shows_scores_samples_and_surprise(tmp_path: Path) -> None:
    from tests.tasks.language.texts import TEXT, TINY

    from recurra.runs import RunFolder, write_json
    from recurra.tasks.language.outcome import evaluation_outcome
    from recurra.tasks.language.report import run_report

    text = write(tmp_path, "a.txt", TEXT)
    run = RunFolder(tmp_path / "run")
    model = LanguageModel(**TINY, training={"validate_every": 4}).fit(text, out=run.path)
    page = run_report(run).html()
    assert "has not been evaluated" in page
    assert "After 4 steps" in page
    assert "After 12 steps" in page
    evaluation = model.evaluate(write(tmp_path, "b.txt", "the cat zzz\n" * 9))
    outcome = evaluation_outcome(evaluation, "b.txt", 1.0)
    write_json(run.metrics_path, {**outcome, "details": evaluation.details()})
    page = run_report(run).html()
    assert "bits_per_char" in page
    assert '<div class="tokens">' in page
    with pytest.raises(ConfigError, match="--gradients"):
        run_report(run, gradients=True)
    write_json(run.metrics_path, {**outcome, "details": {"pieces": ["a"], "nats": []}})
    with pytest.raises(RunError, match=r"metrics\.json cannot be used"):
        run_report(run)
    shutil.rmtree(run.path)
