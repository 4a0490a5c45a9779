from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.language.texts import OTHER, TEXT, tiny, write

from recurra import LanguageModel
from recurra.errors import DataError
from recurra.tasks.language import scoring
from recurra.tasks.language.adaptation import (
    CacheSettings,
    DynamicSettings,
    score_adapting,
    score_with_cache,
)
from recurra.tasks.language.scoring import score, score_windows


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny(num_layers=2, steps=60)


def plain(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    """Nats of each token from one run of the network over the whole text."""
    network = model.fitted.network
    inputs = torch.cat([torch.tensor([model.fitted.tokenizer.end_id]), ids[:-1]])
    with torch.no_grad():
        features, _ = network(inputs[None])
        log_probs = network.log_probs(features[0])
    return -log_probs.gather(1, ids[:, None])[:, 0]


def ids_of(model: LanguageModel, text: str) -> torch.Tensor:
    return torch.from_numpy(model.fitted.tokenizer.encode(text)).long()


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("chunk", [5, 64, 100_000])
def test_scores_depend_on_neither_batch_nor_pieces(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, batch_size: int, chunk: int
) -> None:
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    texts = [ids_of(model, text) for text in (OTHER, TEXT[:333], "a", TEXT[7:340], "the cat")]
    start = model.fitted.tokenizer.end_id
    found: dict[int, list[torch.Tensor]] = {k: [] for k in range(len(texts))}
    for piece in score(model.fitted.network, texts, start, batch_size=batch_size):
        assert piece.begin == sum(map(len, found[piece.text]))
        found[piece.text].append(piece.nats)
    for k, text in enumerate(texts):
        assert torch.equal(torch.cat(found[k]), plain(model, text))


def test_the_numbers_of_evaluate_are_the_same_in_any_batch(
    model: LanguageModel, tmp_path: Path
) -> None:
    paths = [write(tmp_path, f"{k}.txt", TEXT[k : 200 + 31 * k]) for k in range(5)]
    tallies = [model.evaluate(paths, batch_size=size).tallies["recurra"] for size in (1, 2, 5)]
    assert tallies[0] == tallies[1] == tallies[2]
    each = [model.evaluate(path).tallies["recurra"] for path in paths]
    assert tallies[0].nats == sum(tally.nats for tally in each)
    assert tallies[0].tokens == sum(200 + 31 * k - k for k in range(5))


def test_every_token_counts_and_the_units_agree(model: LanguageModel, tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", OTHER)
    evaluation = model.evaluate(path)
    nats = plain(model, ids_of(model, OTHER)).double().sum().item()
    tally = evaluation.tallies["recurra"]
    assert tally.nats == pytest.approx(nats, rel=1e-12)
    assert (tally.tokens, tally.characters) == (len(OTHER), len(OTHER))
    assert tally.bytes == len(OTHER.encode()) == len(OTHER) + 9
    metrics = tally.metrics()
    assert metrics["perplexity"] == pytest.approx(math.exp(nats / len(OTHER)))
    assert metrics["nats_per_char"] == pytest.approx(nats / len(OTHER))
    assert metrics["bits_per_char"] == pytest.approx(nats / len(OTHER) / math.log(2))
    assert metrics["bits_per_byte"] == pytest.approx(nats / (len(OTHER) + 9) / math.log(2))
    assert any(note.startswith("9 of them are unknown") for note in evaluation.notes)


def test_the_baselines_are_what_they_are_called(model: LanguageModel, tmp_path: Path) -> None:
    tallies = model.evaluate(write(tmp_path, "a.txt", "tee")).tallies
    counts = model.fitted.counts + 1.0
    assert tallies["uniform"].nats == pytest.approx(3 * math.log(len(counts)))
    probs = counts / counts.sum()
    t, e = ids_of(model, "te").tolist()
    assert tallies["unigram"].nats == pytest.approx(-float(probs[t].log() + 2 * probs[e].log()))


def test_windows_are_read_from_a_fresh_state(model: LanguageModel) -> None:
    ids, start = ids_of(model, TEXT[:50]), model.fitted.tokenizer.end_id
    network = model.fitted.network
    found = torch.cat(list(score_windows(network, ids, start, 16, batch_size=2)))
    assert len(found) == 50
    before = torch.cat([torch.tensor([start]), ids[:-1]])
    with torch.no_grad():
        features, _ = network(before[None, 16:32])
        expected = network.nll(features[0], ids[16:32])
    assert torch.equal(found[16:32], expected)
    whole = torch.cat(list(score_windows(network, ids, start, 50)))
    assert torch.equal(whole, plain(model, ids))


def test_a_text_stream_reads_as_evaluate_does(model: LanguageModel) -> None:
    stream = model.stream()
    parts = [stream.read(part).nats for part in ("the c", "", "at sat\n", "the")]
    assert torch.equal(torch.cat(parts), plain(model, ids_of(model, "the cat sat\nthe")))


# Dynamic evaluation


def adapt(model: LanguageModel, text: str, **settings: Any) -> torch.Tensor:
    fitted = model.fitted
    chosen = DynamicSettings(**settings)
    scale = fitted.gradient_scale
    ids = ids_of(model, text)
    return torch.cat(
        list(score_adapting(fitted.network, scale, ids, fitted.tokenizer.end_id, chosen))
    )


def test_dynamic_evaluation_with_no_step_is_the_model_itself(model: LanguageModel) -> None:
    expected = plain(model, ids_of(model, OTHER))
    found = adapt(model, OTHER, learning_rate=1e-30, segment=7)
    torch.testing.assert_close(found, expected)


def test_dynamic_evaluation_learns_what_repeats_and_leaves_the_model_alone(
    model: LanguageModel,
) -> None:
    before = model.fitted.network.state_dict()["embedding.weight"].clone()
    text = "qzx qzx jkv " * 20
    fixed, adapting = plain(model, ids_of(model, text)), adapt(model, text, learning_rate=3e-4)
    # The first segment is scored before anything was learned.
    torch.testing.assert_close(adapting[:20], fixed[:20])
    assert adapting[-60:].mean() < fixed[-60:].mean()
    assert torch.equal(model.fitted.network.state_dict()["embedding.weight"], before)


def test_no_token_is_seen_before_it_is_scored(model: LanguageModel) -> None:
    one, other = TEXT[:60] + "a" * 40, TEXT[:60] + "t" * 40
    assert torch.equal(adapt(model, one)[:60], adapt(model, other)[:60])
    assert torch.equal(cached(model, one)[:60], cached(model, other)[:60])


# The cache


def cached(model: LanguageModel, text: str, **settings: Any) -> torch.Tensor:
    fitted, ids = model.fitted, ids_of(model, text)
    chosen = CacheSettings(**settings)
    start = fitted.tokenizer.end_id
    return torch.cat(list(score_with_cache(fitted.network, ids, start, chosen)))


def test_a_cache_of_no_weight_is_the_model_itself(model: LanguageModel) -> None:
    torch.testing.assert_close(cached(model, OTHER, weight=0.0), plain(model, ids_of(model, OTHER)))


@pytest.mark.parametrize("size", [3, 40, 1000])
def test_the_cache_is_its_equation(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("recurra.tasks.language.adaptation._BLOCK", 16)
    text, flatness, weight = TEXT[:90], 0.7, 0.25
    ids, network = ids_of(model, text), model.fitted.network
    inputs = torch.cat([torch.tensor([model.fitted.tokenizer.end_id]), ids[:-1]])
    with torch.no_grad():
        x = network(inputs[None])[0][0]
    expected = []
    for t, nats in enumerate(plain(model, ids).tolist()):
        past = range(max(0, t - size), t)
        scores = torch.tensor([math.exp(flatness * float(x[t] @ x[i])) for i in past])
        hits = torch.tensor([float(ids[i] == ids[t]) for i in past])
        p = math.exp(-nats)
        if past:
            p = (1 - weight) * p + weight * float((scores * hits).sum() / scores.sum())
        expected.append(-math.log(p))
    found = cached(model, text, size=size, flatness=flatness, weight=weight)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_adapted_numbers_stand_in_rows_of_their_own(model: LanguageModel, tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", OTHER)
    evaluation = model.evaluate(path, dynamic=True, cache={"size": 50}, window=32)
    assert list(evaluation.tallies) == [
        "uniform",
        "unigram",
        "recurra",
        "recurra, windows of 32",
        "recurra, dynamic evaluation",
        "recurra, with cache",
    ]
    assert evaluation.tallies["recurra"] == model.evaluate(path).tallies["recurra"]


def test_what_the_report_shows_is_the_beginning(model: LanguageModel, tmp_path: Path) -> None:
    shown = model.evaluate(write(tmp_path, "a.txt", TEXT[:80])).shown
    assert "".join(piece for piece, _ in shown) == TEXT[:80]
    expected = plain(model, ids_of(model, TEXT[:80])).tolist()
    assert [nats for _, nats in shown] == expected


def test_an_empty_file_is_named(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e\.txt is empty"):
        model.evaluate([write(tmp_path, "e.txt", "")])
