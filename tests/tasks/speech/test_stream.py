"""The law of streaming: the final text is the offline text, for any pieces of the sound."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tasks.speech.tones import RATE, pairs, say, tiny

from recurra import Transcriber
from recurra.data.audio import AudioFiles, Resampler, decode
from recurra.errors import ConfigError, DataError
from recurra.tasks.speech.stream import Heard, join_final

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("recurra._core") is None, reason="bits are promised by the core only"
)
MILLISECONDS = (10, 40, 100, 777, None)


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny(streaming=True, look_ahead_ms=100, steps=150, validation=0).fit(pairs(24))


def pieces(sound: np.ndarray, ms: int | None, rate: int = RATE) -> Iterator[np.ndarray]:
    """Of so many milliseconds each; None: of random lengths, nothing at all among them."""
    rng, at = np.random.default_rng(1), 0
    while at < len(sound):
        step = ms * rate // 1000 if ms else int(rng.integers(0, rate))
        yield sound[at : at + step]
        at += step


def hear(model: Transcriber, sound: np.ndarray, ms: int | None, **options: Any) -> list[Heard]:
    stream = model.stream(**options)
    rate = options.get("sample_rate") or RATE
    found = [heard for piece in pieces(sound, ms, rate) for heard in stream.push(piece)]
    return found + stream.finish()


@pytest.mark.parametrize("ms", MILLISECONDS)
@pytest.mark.parametrize("pause_s", [0.09, 0.6, 5.0])
def test_final_texts_are_the_offline_text(
    model: Transcriber, ms: int | None, pause_s: float
) -> None:
    quiet = np.zeros(2 * RATE, np.float32)
    sound = np.concatenate([say("A B C"), quiet, say("CAB"), quiet, say("B A")])
    whole = model.predict([sound])[0]
    assert len(whole.text) >= 8
    heard = hear(model, sound, ms, pause_s=pause_s)
    assert join_final(heard) == whole.text
    # Each pause is found at the same moment, so all final answers are the same to the bit.
    reference = [one for one in hear(model, sound, 250, pause_s=pause_s) if one.final]
    assert [one for one in heard if one.final] == reference


@pytest.mark.parametrize("streaming_rate", [8000, 44100])
@pytest.mark.parametrize("ms", MILLISECONDS)
def test_another_rate_is_resampled_as_it_comes(
    model: Transcriber, streaming_rate: int, ms: int | None
) -> None:
    sound = Resampler(RATE, streaming_rate).push(say("CAB"), last=True)
    whole = model.predict([Resampler(streaming_rate, RATE).push(sound, last=True)])[0]
    assert whole.text
    assert join_final(hear(model, sound, ms, sample_rate=streaming_rate)) == whole.text


def test_real_speech_is_heard_alike_in_any_pieces(data_file: Callable[[str], Path]) -> None:
    """A network that has learned nothing says much and at random, so that every bit counts."""
    files = AudioFiles(data_file("speech/an4/an4-test.tar"))
    names = ("fcaw/an406-fcaw-b.flac", "fcaw/an407-fcaw-b.flac", "fcaw/an409-fcaw-b.flac")
    sounds = [decode(files.read(name), RATE).samples for name in names]
    model = tiny(streaming=True, steps=1, num_layers=2, alphabet="ABC ").fit(pairs(4))
    torch.manual_seed(0)
    for parameter in model.fitted.network.parameters():
        parameter.data.normal_(0, 0.5)
    for sound in sounds:
        whole = model.predict([sound])[0].text
        assert len(whole) >= 5
        for ms in MILLISECONDS:
            assert join_final(hear(model, sound, ms)) == whole, ms


def test_partial_texts_come_while_the_sound_goes_on(model: Transcriber) -> None:
    heard = hear(model, say("CAB"), 40)
    texts = [one.transcript.text for one in heard]
    assert [one.final for one in heard] == [False] * (len(heard) - 1) + [True]
    assert len(set(texts)) > 2
    assert len(texts[0]) < len(texts[-1])


def test_a_pause_makes_a_text_final_before_the_end(model: Transcriber) -> None:
    sound = np.concatenate([say("A"), np.zeros(2 * RATE, np.float32), say("B")])
    first, second = (one for one in hear(model, sound, 100, pause_s=0.8) if one.final)
    assert first.transcript.words[-1].end < 1.0
    assert second.transcript.words[0].start > 2.0


def test_silence_says_nothing(model: Transcriber) -> None:
    assert hear(model, np.zeros(3 * RATE, np.float32), 100) == []
    assert model.stream().finish() == []


def test_a_finished_stream_is_over(model: Transcriber) -> None:
    stream = model.stream()
    stream.finish()
    assert stream.finish() == []
    with pytest.raises(ConfigError, match="this stream has finished"):
        stream.push(say("A"))


def test_what_is_no_sound_is_refused(model: Transcriber) -> None:
    stream = model.stream()
    with pytest.raises(DataError, match=r"shape \(2, 3\) and dtype float64"):
        stream.push(np.zeros((2, 3)))
    with pytest.raises(DataError, match="dtype int16"):
        stream.push(np.zeros(4, np.int16))
    with pytest.raises(DataError, match="finite"):
        stream.push(np.full(4, np.nan))
    with pytest.raises(ConfigError, match="pause_s=0; expected seconds above 0"):
        model.stream(pause_s=0)
    with pytest.raises(ConfigError, match="sample_rate=10; expected 1000 to 768000"):
        model.stream(sample_rate=10)


def test_a_bidirectional_model_cannot_stream() -> None:
    model = tiny(steps=1).fit(pairs(4))
    with pytest.raises(ConfigError, match="a stream has no beam; leave out piece_s"):
        model.evaluate(pairs(1), piece_s=0.1, beam_size=2)
    with pytest.raises(ConfigError, match=r"has to hear the end .*\(--streaming\)"):
        model.stream()
