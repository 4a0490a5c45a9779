"""Subwords as labels: they spell every text of the training, and a network learns to say them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tasks.speech.tones import RATE, TEXTS, pairs, say, tiny

from recurra import Transcriber
from recurra.data.recordings import Recording
from recurra.errors import ConfigError, DataError
from recurra.tasks.speech.settings import SpeechSettings
from recurra.tasks.speech.spelling import Characters, Subwords, find_alphabet, find_spelling


def test_subwords_spell_every_text_they_were_found_in() -> None:
    texts = ["ÄRGER ÜBER ÄRGER", "ÜBER", "A B", "ÄRGER"]
    spelling = Subwords(texts, 16)
    assert len(spelling.pieces) == 16
    assert "ÄRGER" in spelling.pieces
    for text in [*texts, "B ÜA"]:
        labels = spelling.encode(text)
        assert min(labels) >= 1
        assert "".join(spelling.pieces[label - 1] for label in labels) == text
    assert len(spelling.encode("ÄRGER")) == 1
    assert spelling.strange("ÄX?X") == "X?"
    assert Subwords(texts, 16).pieces == spelling.pieces


def test_too_few_subwords_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"subwords=3; expected at least .* characters, 5\."):
        Subwords(["A B", "CD"], 3)
    with pytest.raises(ConfigError, match="alphabet and subwords are both given"):
        tiny(alphabet="AB", subwords=9)


def test_the_settings_choose_the_spelling() -> None:
    rows = [Recording(1, "a", "AB B"), Recording(2, "b", "")]
    assert find_alphabet(["AB B", "C"]) == "B AC"
    for settings, kind in ((SpeechSettings(), Characters), (SpeechSettings(subwords=4), Subwords)):
        assert isinstance(find_spelling(rows, settings), kind)
        assert find_spelling(rows[1:], settings) is None
    chosen = find_spelling(rows, SpeechSettings(alphabet="XY"))
    assert chosen is not None
    assert chosen.pieces == "XY"


def test_subwords_are_streamed_as_they_are_said_offline(tmp_path: Path) -> None:
    model = tiny(streaming=True, subwords=9, steps=1, validation=0, look_ahead_ms=60)
    model.fit(pairs(24))
    assert " A" in model.fitted.design.alphabet
    assert "9 subwords" in model.fitted.notes[0]
    model.fitted.network.head.weight.data *= 100  # a network that knows nothing, and says much
    model.save(tmp_path / "run")
    again = Transcriber.load(tmp_path / "run")
    long = np.concatenate([say(text, 7) for text in TEXTS])
    whole = again.predict([long])[0]
    for size in (160, 1777, RATE):
        stream = again.stream(pause_s=0.3)
        heard = [h for k in range(0, len(long), size) for h in stream.push(long[k : k + size])]
        heard += stream.finish()
        text = ""
        for one in heard:
            if one.final:
                text += ("" if one.continues or not text else " ") + one.transcript.text
        assert text == whole.text
    assert len(whole.words) > 3
    assert [word.text for word in whole.words] == whole.text.split()
    assert again.predict([long], beam_size=4, hot_words=["B A C"])[0].text


def test_a_recording_may_be_too_short_for_its_subwords() -> None:
    with pytest.raises(
        DataError, match=r"0\.10 s are 2 steps of the network, and \d+ subwords need"
    ):
        tiny(subwords=9).fit([*pairs(8), (say("A")[:1600], "CAB AB BC")])
