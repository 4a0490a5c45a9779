"""A transcriber that is a transducer: what it learns, keeps and streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tasks.speech.test_stream import MILLISECONDS, hear
from tests.tasks.speech.tones import RATE, pairs, say, tiny

from recurra import Transcriber
from recurra.errors import DataError
from recurra.tasks.speech.settings import Design
from recurra.tasks.speech.stream import join_final


@pytest.fixture(scope="module")
def model() -> Transcriber:
    more = {"streaming": True, "look_ahead_ms": 90, "steps": 200, "validation": 0}
    return tiny(criterion="transducer", **more).fit(pairs(24))


def test_it_learns_a_language_of_tones(model: Transcriber) -> None:
    assert model.fitted.notes[1].endswith("looks 90 ms ahead, a transducer")
    found = model.evaluate(pairs(8, seed=50))
    assert found.cer < 0.1
    assert np.array(found.picture["probabilities"]).max() > 0.5
    beam = model.evaluate(pairs(8, seed=50), beam_size=3, hot_words=["CAB"])
    assert beam.cer < 0.1
    transcript = model.predict([say("C A")])[0]
    assert [word.text for word in transcript.words] == ["C", "A"]
    first, second = transcript.words
    assert 0 < first.start < first.end <= second.start < second.end < 1.1
    assert 0.3 < first.confidence <= 1


def test_final_texts_are_the_offline_text(model: Transcriber) -> None:
    """Also of a network that has learned nothing, and says much at random, so every bit counts."""
    pytest.importorskip("recurra._core", reason="bits are promised by the core only")
    babbler = tiny(
        criterion="transducer", streaming=True, steps=1, num_layers=2, alphabet="ABC "
    ).fit(pairs(4))
    torch.manual_seed(0)
    for parameter in babbler.fitted.network.parameters():
        parameter.data.normal_(0, 0.5)
    sound = say("B A C")
    for one, pause_s, lengths in (
        (model, 5.0, (10,)),
        (model, 0.09, (100, None)),
        (babbler, 0.3, MILLISECONDS),
    ):
        whole = one.predict([sound])[0].text
        assert len(whole) >= 5
        for ms in lengths:
            assert join_final(hear(one, sound, ms, pause_s=pause_s)) == whole


def test_it_is_saved_and_loaded(model: Transcriber, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    again = Transcriber.load(tmp_path / "run")
    assert again.settings.criterion == "transducer"
    sounds = [sound for sound, _ in pairs(4, seed=90)]
    assert again.predict(sounds) == model.predict(sounds)
    assert again.predict(sounds, beam_size=2) == model.predict(sounds, beam_size=2)


def test_a_run_that_does_not_say_is_of_ctc(model: Transcriber) -> None:
    described = model.fitted.design.model_dump()
    del described["criterion"]
    assert Design(**described).criterion == "ctc"


def test_padding_changes_no_logits(model: Transcriber) -> None:
    network = model.fitted.network
    rng = torch.Generator().manual_seed(0)
    features, labels = torch.randn(2, 30, 80, generator=rng), torch.tensor([[1, 2, 3], [3, 0, 0]])
    both, lengths = network(features, torch.tensor([30, 12]), labels)
    alone, _ = network(features[1:, :12], torch.tensor([12]), labels[1:, :1])
    assert (both.shape, lengths.tolist()) == ((2, 10, 4, 5), [10, 4])
    assert torch.allclose(both[1, :4, :2], alone[0], atol=1e-6)


def test_it_may_say_several_characters_at_a_step() -> None:
    """0.15 s are 4 steps: too few for CTC, and enough here, but not for more than 5 a step."""
    short = [(say("A")[: int(0.15 * RATE)], "ABCABC")] * 4
    with pytest.raises(DataError, match="4 steps of the network, and 6 characters need 6"):
        tiny(steps=1, validation=0).fit(short)
    fitted = tiny(criterion="transducer", steps=1, validation=0).fit(short).fitted
    assert fitted.design.criterion == "transducer"
    with pytest.raises(DataError, match="21 characters need 5, one for up to 5"):
        tiny(criterion="transducer", steps=1).fit([(short[0][0], "ABC" * 7)] * 4)
