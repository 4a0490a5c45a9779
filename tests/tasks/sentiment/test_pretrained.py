"""Classifiers that begin from a language model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.sentiment.reviews import reviews

from recurra import LanguageModel, SentimentClassifier
from recurra.errors import ConfigError, RunError
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.sentiment.learning import _task, plan
from recurra.tasks.sentiment.network import SentimentNetwork
from recurra.tasks.sentiment.pretrained import FineTuning, read_pretrained, thaw_steps

WORDS = {"tokens": "word", "steps": 3, "batch_size": 4, "k1": 8, "progress": False}
SIZES = {"hidden_size": 10, "num_layers": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied language model of two layers, which also knows a word that no review has."""
    folder = tmp_path_factory.mktemp("words")
    lines = [*reviews(120).texts, "splendid film", "so splendid"]
    (folder / "words.txt").write_text("\n".join(lines) + "\n")
    model = LanguageModel(**WORDS, **SIZES, cell="gru")
    model.fit(folder / "words.txt", out=folder / "run")
    return folder / "run"


def test_vectors_and_layers_are_those_of_the_language_model(run: Path) -> None:
    language = LanguageModel.load(run).fitted
    pretrained = read_pretrained(run)
    classifier = SentimentClassifier(steps=3, buckets=64, progress=False)
    chosen = plan(reviews(80), None, classifier.settings, pretrained)
    network = SentimentNetwork(chosen.vocabulary.size, 2, chosen.settings)
    assert isinstance(_task(chosen, network), FineTuning)
    # Word by word: embedding, scale and both layers are as the language model has them.
    words = ["the", "splendid", "film", "was", "unheard-of"]
    numbers = torch.tensor([chosen.vocabulary.number(word) for word in words])
    ids = torch.from_numpy(language.tokenizer.encode(" ".join(words))).long()
    none = torch.zeros(len(words), dtype=torch.long)
    with torch.no_grad():
        x = network.eval().vectors(numbers, none, torch.arange(len(words)))[None]
        for layer in network.layers:
            x, _ = layer(x)
        expected, _ = language.network(ids[None])
    assert torch.allclose(x, expected, atol=1e-6)
    assert chosen.settings.bidirectional is False
    assert "begins with the language model" in " ".join(chosen.notes)


def test_what_is_frozen_stays_and_the_rest_learns_the_slower_the_lower(run: Path) -> None:
    chosen = plan(reviews(80), None, SentimentClassifier(steps=3).settings, read_pretrained(run))
    task = _task(chosen, SentimentNetwork(chosen.vocabulary.size, 2, chosen.settings))
    assert isinstance(task, FineTuning)
    task.thaw = 5
    names = ["head.weight", "layers.1.weight_hh_l0", "layers.0.bias_ih_l0", "embedding.weight"]
    at_step = {step: [task.rate_factor(name, step) for name in names] for step in (0, 5, 14, 15)}
    assert at_step[0] == [1, 0, 0, 0]
    assert at_step[5] == pytest.approx([1, 1 / 2.6, 0, 0])
    assert at_step[14] == pytest.approx([1, 1 / 2.6, 1 / 2.6**2, 0])
    assert at_step[15] == pytest.approx([1, 1 / 2.6, 1 / 2.6**2, 1 / 2.6**3])
    assert thaw_steps(100, None, 4) == 100
    assert thaw_steps(100, 240, 4) == 20


def test_a_fine_tuned_classifier_thaws_loads_and_streams(run: Path, tmp_path: Path) -> None:
    model = SentimentClassifier(steps=36, buckets=64, batch_size=16, progress=False)
    model.fit(reviews(120), pretrain=run, out=tmp_path / "run")
    before = read_pretrained(run)
    network = model.fitted.network
    assert not torch.equal(network.layers[0].weight_ih_l0, before.layers[0]["weight_ih_l0"])
    again = SentimentClassifier.load(tmp_path / "run")
    texts = ["the film was splendid", "a dull plot"]
    assert (again.predict_proba(texts) == model.predict_proba(texts)).all()
    stream = again.stream()
    stream.push(texts[1])
    assert stream.opinion()["neg"] == pytest.approx(again.predict_proba(texts)[1, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokens": "char"}, "its tokens are 'char', expected 'word'"),
        ({"norm": True}, "norm=True and residual=False, expected neither"),
        ({"embedding_size": 6}, "embedding_size=6 units and the others hidden_size=10"),
    ],
)
def test_a_language_model_that_does_not_suit_is_refused(
    settings: dict[str, object], words: str, tmp_path: Path
) -> None:
    text = "\n".join(reviews(60).texts)
    model = LanguageModel(**{**WORDS, **SIZES, **settings}).fit_text(text)
    model.save(tmp_path / "run")
    with pytest.raises(ConfigError, match=words):
        SentimentClassifier(steps=1).fit(reviews(20), pretrain=tmp_path / "run")


@pytest.mark.parametrize(
    ("design", "weights", "words"),
    [
        (
            {"hidden_size": 9, "tied": False},
            {},
            "a gru of 9 units: layer 0 has .*expected",
        ),
        ({"num_layers": 10**8}, {}, "num_layers: .*less than or equal to 64"),
        ({"cell": "transformer"}, {}, "not those of a transformer of 10 units: .*'transformer'"),
        ({}, {"embedding.weight": torch.nan}, "NaN or infinite weights"),
    ],
)
def test_a_damaged_language_model_is_refused_before_an_old_run_goes(
    run: Path, tmp_path: Path, design: dict[str, Any], weights: dict[str, float], words: str
) -> None:
    language = RunFolder.open(run, "language")
    config = language.read_config()["config"]
    tensors, _ = read_tensors(language.model_path)
    for name, value in weights.items():
        tensors[name].fill_(value)
    damaged = RunFolder.create(tmp_path / "damaged")
    shutil.copy(language.tokenizer_path, damaged.tokenizer_path)
    write_tensors(damaged.model_path, tensors)
    config = {**config, "design": {**config["design"], **design}}
    damaged.write_config("language", config, (damaged.model_path, damaged.tokenizer_path))
    SentimentClassifier(steps=1, hidden_size=4, progress=False).fit(
        reviews(20), out=tmp_path / "old"
    )
    with pytest.raises(RunError, match=words):
        SentimentClassifier(steps=1, progress=False).fit(
            reviews(20), pretrain=damaged.path, out=tmp_path / "old", force=True
        )
    assert SentimentClassifier.load(tmp_path / "old").labels == ("neg", "pos")


def test_a_run_of_another_task_is_no_language_model(tmp_path: Path) -> None:
    model = SentimentClassifier(steps=1, hidden_size=4, progress=False).fit(reviews(20))
    model.save(tmp_path / "run")
    with pytest.raises(RunError, match="holds a sentiment run; expected a language run"):
        model.fit(reviews(20), pretrain=tmp_path / "run")
