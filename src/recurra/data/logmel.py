"""Log-mel features of sound, the same to the bit for a whole recording and for any pieces of it.

A frame is 25 ms under Povey's window, a new one begins every 10 ms, and each of its bins is the
logarithm of the power in a triangle of the mel scale: Kaldi's filter bank by kaldi-native-fbank,
without dither. The last frame is the last that is full, so nothing is made up at the ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.data.audio import Samples
from recurra.errors import MissingExtraError

Features = npt.NDArray[np.float32]

FRAMES_PER_S = 100
WINDOW_S = 0.025
_SCALE = np.float32(1 << 15)  # Kaldi's full scale, which its floor under the logarithm is made for


class LogMel:
    """Features of one endless sound, in constant memory.

    >>> whole = LogMel(16000).push(np.zeros(16000, np.float32))
    >>> whole.shape
    (98, 80)
    """

    def __init__(self, sample_rate: int, bins: int = 80) -> None:
        try:
            import kaldi_native_fbank
        except ImportError as error:
            raise MissingExtraError("kaldi-native-fbank", "speech", "Log-mel features") from error
        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.samp_freq = sample_rate
        options.frame_opts.dither = 0
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins = bins
        self._sample_rate, self._bins = sample_rate, bins
        self._bank: Any = kaldi_native_fbank.OnlineFbank(options)
        self._done = 0

    def push(self, samples: Samples) -> Features:
        """The frames (T, bins) that these samples complete, often none."""
        self._bank.accept_waveform(self._sample_rate, samples * _SCALE)
        ready = self._bank.num_frames_ready
        frames = np.empty((ready - self._done, self._bins), np.float32)
        for row, number in enumerate(range(self._done, ready)):
            frames[row] = self._bank.get_frame(number)
        self._bank.pop(ready - self._done)
        self._done = ready
        return frames


def log_mel(samples: Samples, sample_rate: int, bins: int = 80) -> Features:
    """Features (T, bins) of a whole recording; T = 0 when it is shorter than one frame."""
    return LogMel(sample_rate, bins).push(samples)


def frames_of(count: int, sample_rate: int) -> int:
    """How many frames so many samples have.

    >>> frames_of(16000, 16000), frames_of(399, 16000)
    (98, 0)
    """
    window, hop = round(WINDOW_S * sample_rate), sample_rate // FRAMES_PER_S
    return 1 + (count - window) // hop if count >= window else 0
