from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tasks.translation.phrases import TINY, phrases

from recurra import Translator
from recurra.errors import ConfigError, DataError, NotFittedError, RunError
from recurra.tasks.translation.batches import pad
from recurra.tasks.translation.searching import NetworkStepper

SOURCES, TARGETS = phrases(180)


def seen(model: Translator, texts: list[str], **options: Any) -> list[list[tuple[Any, ...]]]:
    found, _ = model.translate_all(texts, **options)
    return [[(one.text, one.log_prob, one.attention.tobytes()) for one in own] for own in found]


def test_it_translates_what_it_has_not_seen(model: Translator) -> None:
    said = model.translate(SOURCES[150:])
    right = sum(one == target for one, target in zip(said, TARGETS[150:], strict=True))
    assert right >= 27  # of 30


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 1},
        {"beam_size": 4, "count": 3, "coverage": 0.2},
        {"sampling": {"temperature": 1.5}, "seed": 3},
    ],
)
def test_neither_batch_size_nor_order_changes_a_bit(
    model: Translator, options: dict[str, Any]
) -> None:
    texts = [*SOURCES[140:160], "cow", "many many red blue dog dog sings runs . .", ""]
    texts += ["one cat"] * 2
    alone = [seen(model, [text], **options)[0] for text in texts]
    for rows in (1, 9, 64):
        if "sampling" not in options or rows > 1:
            assert seen(model, texts, rows=rows, **options) == alone
    order = np.random.default_rng(0).permutation(len(texts)).tolist()
    mixed = seen(model, [texts[k] for k in order], rows=13, **options)
    assert mixed == [alone[k] for k in order]


def test_the_score_of_a_translation_is_what_the_search_said(model: Translator) -> None:
    texts = SOURCES[:6]
    found, _ = model.translate_all(texts, beam_size=3)
    best = [own[0] for own in found]
    scores = model.score(texts, [one.text for one in best])
    assert scores.tolist() == pytest.approx([one.log_prob for one in best], abs=1e-5)


def test_more_beams_find_no_worse(model: Translator) -> None:
    texts = SOURCES[150:170]
    greedy, _ = model.translate_all(texts, beam_size=1, length_penalty=0)
    beams, _ = model.translate_all(texts, beam_size=4, length_penalty=0)
    totals = [sum(own[0].log_prob for own in found) for found in (greedy, beams)]
    assert totals[1] >= totals[0] - 1e-9


def test_a_prefix_is_kept_and_gone_on_from(model: Translator) -> None:
    said = model.translate(["one red cat runs ."] * 2, prefixes=["viele hund", ""])
    assert said[0].startswith("viele hund ")
    assert said[1].startswith("eins katze")
    with pytest.raises(ConfigError, match="1 prefixes for 2 texts"):
        model.translate(["a", "b"], prefixes=["x"])


def test_an_unknown_word_is_copied_from_where_it_looked(model: Translator) -> None:
    target = model.fitted.tokens.target
    source = "one red giraffe runs ."
    # The unknown token is written by hand: a toy of a few words never learned to.
    found, _ = model.translate_all([source], prefixes=["eins <unk>"], beam_size=1)
    one = found[0][0]
    looked = int(one.attention[1, :5].argmax())
    assert target.unk_id is not None
    assert one.text.split()[1] == source.split()[looked]
    assert "<unk>" not in one.text


def test_a_prefix_is_kept_where_its_words_are_unknown_or_the_end_s_own_name(
    model: Translator,
) -> None:
    for prefix in ("eins giraffe", "<eos>", "eins <eos> hund"):
        for beams in (1, 3):
            said = model.translate(["one red cat runs ."], prefixes=[prefix], beam_size=beams)
            assert said[0].startswith(prefix), (prefix, beams, said)


def test_what_sampling_and_search_do_not_know_is_refused(model: Translator) -> None:
    text = [SOURCES[0]]
    with pytest.raises(ConfigError, match="'temprature'; did you mean 'temperature'"):
        model.translate(text, sampling={"temprature": 1.0})
    with pytest.raises(ConfigError, match="count=2 with sampling, which draws one"):
        model.translate(text, sampling={}, count=2)
    with pytest.raises(ConfigError, match=r"beam_size=2\.5; expected a whole number"):
        model.translate(text, beam_size=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"max_ratio=1e\+300; expected 0 to 1000"):
        model.translate(text, max_ratio=1e300)
    with pytest.raises(ConfigError, match=r"length_penalty=200; expected 0 to 10"):
        model.translate(text, length_penalty=200)
    with pytest.raises(DataError, match="line 2 holds half a surrogate pair at character 2"):
        model.translate(["a cat", "a \ud800"])
    end = model.fitted.tokens.target.end_id
    with pytest.raises(ConfigError, match="no token is left to draw"):
        model.translate(text, sampling={"banned": [end]})


def test_two_models_together_have_the_mean_of_their_probabilities(model: Translator) -> None:
    other = Translator(**TINY, steps=2, seed=5, progress=False).fit(*phrases(150))
    networks = [model.fitted.network, other.fitted.network]
    tokens, lengths = pad([model.fitted.tokens.read(text) for text in SOURCES[:3]])
    last = torch.full((3,), model.fitted.tokens.target.end_id)
    with torch.no_grad():
        both, _ = NetworkStepper(networks, tokens, lengths, 1).step(last)
        each = [NetworkStepper([one], tokens, lengths, 1).step(last)[0] for one in networks]
    mean = (each[0].exp() + each[1].exp()) / 2
    torch.testing.assert_close(both.exp(), mean)
    assert not torch.allclose(both, each[0], atol=0.1)


def test_alignments_have_a_row_for_each_piece_and_sum_to_one(model: Translator) -> None:
    one = model.translate_all([SOURCES[0]])[0][0][0]
    assert one.attention.shape == (len(one.pieces) + 1, len(one.source_pieces))
    np.testing.assert_allclose(one.attention.sum(1), 1, atol=1e-5)
    assert "".join(one.pieces).strip() == one.text


def test_long_lines_are_cut_at_sentence_ends(model: Translator) -> None:
    text = " ".join(SOURCES[:30])
    found, notes = model.translate_all([SOURCES[0], text], beam_size=1)
    assert notes == ["line 2 has 150 tokens, and training saw at most 100: translated in 2 pieces"]
    pieces = [" ".join(SOURCES[:20]), " ".join(SOURCES[20:30])]
    assert found[1][0].text == " ".join(model.translate(pieces, beam_size=1))
    endless, notes = model.translate_all(["cat" * 50 + " dog" * 350], beam_size=1)
    assert len(endless[0]) == 1
    assert "translated in 4 pieces" in notes[0]


def test_a_text_that_never_ends_is_ended(model: Translator) -> None:
    one = model.translate_all(["cat"], max_ratio=0, extra=2)[0][0][0]
    assert len(one.pieces) <= 2


def test_an_ensemble_of_one_model_twice_is_that_model(model: Translator) -> None:
    texts = SOURCES[:5]
    assert model.translate(texts, ensemble=[model]) == model.translate(texts)
    other = Translator(**TINY, steps=2, progress=False, joint=False).fit(SOURCES, TARGETS)
    with pytest.raises(ConfigError, match="the models of an ensemble have different tokens"):
        model.translate(texts, ensemble=[other])


def test_a_stream_says_what_a_batch_says(model: Translator) -> None:
    stream = model.stream(beam_size=3)
    texts = SOURCES[:4]
    assert [stream.push(text).text for text in texts] == model.translate(texts, beam_size=3)
    grown = list(stream.partial(texts[0]))
    assert grown[-1] == model.translate(texts[:1], beam_size=1)[0]
    assert all(later.startswith(earlier) for earlier, later in pairwise(grown))


def test_a_saved_translator_is_the_same(model: Translator, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    loaded = Translator.load(tmp_path / "run")
    assert seen(loaded, SOURCES[:5]) == seen(model, SOURCES[:5])
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match=r"model\.safetensors"):
        Translator.load(tmp_path / "run")


def test_a_resumed_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    data = SOURCES[:60], TARGETS[:60]
    settings = {**TINY, "tokens": "subword", "vocab_size": 300, "subword_dropout": 0.2}
    whole = Translator(**settings, steps=12, progress=False).fit(*data)
    half = Translator(**settings, steps=12, progress=False)
    calls = []

    def stop(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recurra.training.loop.ProgressDisplay.due", lambda *_, **__: stop() or False)
        patch.setattr("recurra.training.loop._Run._ending", _saving)
        with pytest.raises(KeyboardInterrupt):
            half.fit(*data, out=tmp_path / "run")
    half.fit(*data, out=tmp_path / "run", resume=True)
    for one, other in zip(
        whole.fitted.network.parameters(), half.fitted.network.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    with pytest.raises(RunError, match="was trained with seed=0"):
        Translator(**settings, steps=12, seed=1, progress=False).fit(
            *data, out=tmp_path / "run", resume=True
        )
    with pytest.raises(RunError, match="was trained on other pairs"):
        half.fit(SOURCES[:61], TARGETS[:61], out=tmp_path / "run", resume=True)


def _saving(run: Any) -> str | None:
    run._save()
    return "steps" if run.done == run.budget.total else None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiddn_size": 3}, "did you mean 'hidden_size'"),
        ({"cell": "gruu"}, "unknown cell 'gruu'; did you mean 'gru'"),
        ({"tokens": "words"}, "tokens='words'"),
        ({"steps": 3, "minutes": 1}, "steps=3 and minutes=1 are both given"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Translator.from_settings(settings)


def test_calls_that_cannot_be_are_refused(model: Translator) -> None:
    with pytest.raises(NotFittedError, match="this Translator has not been trained"):
        Translator().translate(["a"])
    with pytest.raises(ConfigError, match="texts is one text; expected a list"):
        model.translate("a cat")
    with pytest.raises(ConfigError, match="unknown setting of the search 'lenpen'"):
        model.translate(["a"], lenpen=1)
    with pytest.raises(ConfigError, match="count=6; expected at most beam_size"):
        model.translate(["a"], count=6)
    with pytest.raises(ConfigError, match="temperature=-1; expected 0 or more"):
        model.translate([], sampling={"temperature": -1})
