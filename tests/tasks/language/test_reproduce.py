from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.language.texts import TEXT, write

from recurra import LanguageModel
from recurra.data.recipe import Recipe, find_recipe, list_recipes
from recurra.errors import DataError
from recurra.tasks.language.reproduce import LanguageSection, reproduce, run_folder

SETTINGS: dict[str, Any] = {"steps": 6, "hidden_size": 8, "batch_size": 3, "k1": 8}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline folder whose sets hold small texts under the real names."""
    shakespeare = tmp_path / "data" / "language_modelling" / "tinyshakespeare"
    chars = tmp_path / "data" / "language_modelling" / "ptb_char"
    shakespeare.mkdir(parents=True)
    chars.mkdir()
    write(shakespeare, "input.txt", TEXT)
    spaced = "\n".join(" ".join(line.replace(" ", "_")) for line in TEXT.split("\n"))
    for part in ("train", "valid", "test"):
        (chars / f"ptb.char.{part}.txt.xz").write_bytes(lzma.compress(spaced.encode()))
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def recipe(dataset: str | None = "tiny-shakespeare", **section: Any) -> Recipe:
    return Recipe(
        name="toy", task="language", dataset=dataset, description="A toy.", section=section
    )


def test_the_end_of_the_text_is_the_test(data: Path) -> None:
    toy = recipe(train="input.txt", test_share=0.1, window=16, settings=SETTINGS)
    outcome = reproduce(toy, 3)
    assert outcome["data"] == "tiny-shakespeare, 144 tokens of test"
    assert [row["model"] for row in outcome["results"]] == [
        "uniform",
        "unigram",
        "recurra",
        "recurra, windows of 16",
    ]
    assert "1296 tokens (char), vocabulary of 17" in outcome["notes"]
    assert outcome["training"]["steps"] == 6
    # The model that is kept gives the same number on the last tenth, which it has not seen.
    model = LanguageModel.load(run_folder(toy, 3))
    assert model.settings.seed == 3
    test = write(data, "t.txt", TEXT[1296:])
    ours = outcome["results"][2]["metrics"]["perplexity"]
    assert model.evaluate(test).perplexity == ours


def test_a_finished_run_is_scored_again_without_training(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = recipe(train="input.txt", test_share=0.1, settings=SETTINGS)
    first = reproduce(toy, 0)
    adapted = recipe(train="input.txt", test_share=0.1, settings=SETTINGS, dynamic={"segment": 9})
    assert run_folder(adapted, 0) == run_folder(toy, 0) != run_folder(toy, 1)
    monkeypatch.setattr("recurra.training.learner.Learner.step", None)
    again = reproduce(adapted, 0)
    assert again["results"][:3] == first["results"]
    assert again["results"][3]["model"] == "recurra, dynamic evaluation"
    assert first["training"]["cpu_seconds"] > 0
    assert again["training"]["cpu_seconds"] is None
    assert again["training"]["seconds"] == pytest.approx(first["training"]["seconds"], abs=1)


def test_joined_characters_lose_their_blanks(data: Path) -> None:
    files = {part: f"ptb.char.{part}.txt.xz" for part in ("train", "valid", "test")}
    outcome = reproduce(recipe("ptb-char", **files, joined=True, settings=SETTINGS), 0)
    assert outcome["data"] == f"ptb-char, {len(TEXT)} tokens of test"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": "input.txt"}, "expected either test or test_share"),
        ({"train": "input.txt", "test": "a", "test_share": 0.1}, "expected either test or"),
        ({"train": "input.txt", "test_share": 2}, "test_share=2: expected less than 1"),
        ({"train": "input.txt", "test_share": 0.1, "windwo": 2}, "did you mean 'window'"),
    ],
)
def test_sections_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        reproduce(recipe(**given), 0)
    with pytest.raises(DataError, match="names no data set"):
        reproduce(recipe(None, train="input.txt", test_share=0.1), 0)


@pytest.mark.parametrize(
    "name", [name for name in list_recipes() if find_recipe(name).task == "language"]
)
def test_the_recipes_of_this_task_are_valid(name: str) -> None:
    section = LanguageSection(**find_recipe(name).section)
    model = LanguageModel.from_settings({**section.settings, "seed": 0})
    assert model.settings.minutes is None
    assert model.settings.steps is not None


def test_ptb_has_the_published_tokens(data_file: Any, tmp_path: Path) -> None:
    from recurra.data.corpus import read_corpus
    from recurra.data.tokenizer import train_tokenizer

    train = data_file("language_modelling/ptb/ptb.train.txt.xz")
    test = data_file("language_modelling/ptb/ptb.test.txt.xz")
    tokenizer = train_tokenizer("word", [train])
    corpus = read_corpus([test], tokenizer)
    assert (tokenizer.vocab_size, corpus.tokens) == (10_000, 82_430)
