"""Sound from a microphone as it comes, by the package sounddevice, which has PortAudio under it."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np

from recurra.data.audio import Samples
from recurra.errors import DataError, MissingExtraError

_PIECE_S = 0.05
_SILENT_S = 5.0
"""Seconds without a sample, not even of silence, after which the device counts as gone."""
_LOOK_S = 0.1
"""Seconds between two looks at whether hearing was ended, as by a signal while it waits."""
_CHOOSE = "`python -m sounddevice` lists the devices, and the system's settings choose one."


class Microphone:
    """The system's default input, one channel, as a context whose pieces are samples (N,).

    Pieces wait in a queue for whoever iterates. When it holds `waiting_s` seconds, further sound is
    lost, and counted, so that memory stays bounded where hearing is slower than speaking.

    rate          Hz to ask for
    sample_rate   Hz that the pieces have: `rate`, or the device's own where it has no other
    lost_s        seconds of sound that were lost

    Raises: MissingExtraError without the package; DataError without PortAudio, without a device,
    for one that cannot be opened, and, from the pieces, for one that says nothing any more.
    """

    def __init__(self, rate: int, *, waiting_s: float = 30.0) -> None:
        self._package = _sounddevice()
        self.sample_rate = self._find_rate(rate)
        self.lost_s = 0.0
        self._pieces: queue.Queue[Samples] = queue.Queue(max(1, round(waiting_s / _PIECE_S)))
        self._stream: Any = None
        self._is_stopped = False

    def __enter__(self) -> Self:
        try:
            self._stream = self._package.InputStream(
                samplerate=self.sample_rate,
                channels=1,
                dtype="float32",
                blocksize=round(_PIECE_S * self.sample_rate),
                callback=self._take,
            )
            self._stream.start()
        except self._package.PortAudioError as error:
            if self._stream is not None:
                self._stream.close()
            raise DataError(f"the microphone cannot be opened: {error}. {_CHOOSE}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()

    def stop(self) -> None:
        """Hear nothing more; the pieces end with those that still wait."""
        if not self._is_stopped:
            self._stream.stop()
            self._is_stopped = True

    def __iter__(self) -> Iterator[Samples]:
        heard = time.monotonic()
        while not (self._is_stopped and self._pieces.empty()):
            try:
                piece = self._pieces.get(timeout=_LOOK_S)
            except queue.Empty:
                if not self._is_stopped and time.monotonic() - heard >= _SILENT_S:
                    raise DataError(
                        f"the microphone has given no samples for {_SILENT_S:g} s. See whether it "
                        f"is still there. {_CHOOSE}"
                    ) from None
                continue
            yield piece
            heard = time.monotonic()

    def _take(self, samples: Any, frames: int, times: Any, status: Any) -> None:
        """Called by PortAudio in a thread of its own, which must never wait."""
        try:
            # The array belongs to PortAudio, which writes the next piece into it.
            self._pieces.put_nowait(np.array(samples[:, 0], np.float32))
        except queue.Full:
            self.lost_s += frames / self.sample_rate

    def _find_rate(self, rate: int) -> int:
        try:
            device = self._package.query_devices(kind="input")
        except (self._package.PortAudioError, ValueError) as error:
            raise DataError(f"there is no microphone here: {error}. {_CHOOSE}") from error
        try:
            self._package.check_input_settings(channels=1, dtype="float32", samplerate=rate)
        except self._package.PortAudioError:
            own_rate: float = device["default_samplerate"]
            return round(own_rate)
        return rate


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("sounddevice", "microphone", "Listening to a microphone") from error
    except OSError as error:  # the package is there, and looks for the library when it is imported
        raise DataError(
            f"sounddevice does not find PortAudio, the library under it ({error}). Install that: "
            "libportaudio2 on Debian and Ubuntu, portaudio elsewhere. Or pipe sound in without "
            "--microphone."
        ) from error
    return sounddevice
