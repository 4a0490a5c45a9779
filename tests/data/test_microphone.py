"""Sound from a microphone that is played by the test, in the place of the package sounddevice."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recurra.data import microphone
from recurra.data.microphone import Microphone
from recurra.errors import DataError, MissingExtraError


class FakeDevice(ModuleType):
    """Says `sound` as soon as it is started, always out of the same array, and then calls `then`.

    rates   that it has; the first is its own
    """

    class PortAudioError(Exception):
        pass

    def __init__(
        self,
        sound: np.ndarray,
        *,
        rates: tuple[int, ...] = (16_000,),
        then: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("sounddevice")
        self.sound, self.rates, self.then = sound, rates, then
        self.asked: dict[str, Any] = {}
        self.stopped = self.closed = False

    def query_devices(self, kind: str) -> dict[str, Any]:
        if not self.rates:
            raise self.PortAudioError("Error querying device -1")
        return {"name": kind, "default_samplerate": float(self.rates[0])}

    def check_input_settings(self, *, samplerate: int, **rest: Any) -> None:
        if samplerate not in self.rates:
            raise self.PortAudioError("Invalid sample rate [PaErrorCode -9997]")

    def InputStream(self, **asked: Any) -> FakeDevice:
        self.asked = asked
        return self

    def start(self) -> None:
        size = self.asked["blocksize"]
        piece = np.full((size, 1), np.nan, np.float32)
        for begin in range(0, len(self.sound), size):
            part = self.sound[begin : begin + size]
            piece[: len(part), 0] = part
            self.asked["callback"](piece[: len(part)], len(part), None, None)
        self.then()

    def stop(self) -> None:
        assert not self.stopped
        self.stopped = True

    def close(self) -> None:
        self.closed = True


def ramp(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32) / count


def test_the_pieces_are_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(ramp(4100))
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    with Microphone(16_000) as heard:
        heard.stop()
        heard.stop()
        pieces = list(heard)
    assert device.closed
    assert (device.asked["samplerate"], device.asked["channels"]) == (16_000, 1)
    assert device.asked["dtype"] == "float32"
    assert [len(piece) for piece in pieces] == [800] * 5 + [100]
    assert np.array_equal(np.concatenate(pieces), ramp(4100))
    assert heard.lost_s == 0


def test_waiting_ends_when_hearing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(ramp(0)))
    with Microphone(16_000) as heard:
        ending = threading.Timer(0.2, heard.stop)
        ending.start()
        assert list(heard) == []
        ending.join()


def test_what_nobody_takes_in_time_is_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(ramp(16_000)))
    with Microphone(16_000, waiting_s=0.25) as heard:
        heard.stop()
        assert np.array_equal(np.concatenate(list(heard)), ramp(16_000)[:4000])
    assert heard.lost_s == pytest.approx(0.75)


def test_a_device_with_another_rate_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(ramp(9), rates=(48_000, 44_100)))
    assert Microphone(16_000).sample_rate == 48_000
    assert Microphone(44_100).sample_rate == 44_100


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevice(ramp(0), rates=()))
    with pytest.raises(DataError, match=r"no microphone here: .*device -1.*-m sounddevice"):
        Microphone(16_000)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"'sounddevice'.*recurra\[microphone\]"):
        Microphone(16_000)


def test_absent_portaudio_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *rest: Any) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(DataError, match=r"PortAudio library not found.*libportaudio2"):
        Microphone(16_000)


def test_a_device_that_is_busy_or_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice(ramp(0))
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    monkeypatch.setattr(microphone, "_SILENT_S", 0.01)
    with Microphone(16_000) as heard, pytest.raises(DataError, match=r"no samples for 0\.01 s"):
        next(iter(heard))

    def busy() -> None:
        raise device.PortAudioError("Device unavailable")

    device.then, device.closed = busy, False
    with pytest.raises(DataError, match="cannot be opened: Device unavailable"), Microphone(16_000):
        pass
    assert device.closed
