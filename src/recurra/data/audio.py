"""Sound from files and bytes: one channel of float32 at the rate that a model hears at.

Files are read by soundfile (WAV, FLAC, OGG and what else libsndfile knows), several channels are
averaged, and other rates are resampled by soxr, in one piece or many with the same result.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra.errors import DataError, MissingExtraError

Samples = npt.NDArray[np.float32]

LONGEST_S = 3600.0
"""Seconds of one recording that are read at most; longer ones are for a stream."""
_LARGEST = 1 << 30  # bytes of one file
_BLOCK = 1 << 16
_FULL = 0.999  # of the full scale: a sample this large was probably cut off


@dataclass(frozen=True)
class Sound:
    """One recording, and how it was before it was made one channel of one rate.

    samples   (N,) float32, full scale is 1
    peak      the largest absolute value in the file
    clipped   share of the file's samples at full scale
    """

    samples: Samples
    sample_rate: int
    original_rate: int
    channels: int
    peak: float
    clipped: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.sample_rate


class AudioFiles:
    """Recordings by name: under a folder, or in a tar archive that is never unpacked.

    root   folder that names are relative to, or a .tar file whose members they name; None for the
           current folder

    Raises: DataError for an archive that is damaged or compressed.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = Path() if root is None else root
        self._members: dict[str, tuple[int, int]] | None = None
        if self.root.suffix.lower() in (".tar", ".tgz") or self.root.is_file():
            self._members = _index(self.root)
        elif not self.root.is_dir():
            raise DataError(
                f"{self.root} is not there; expected the folder or .tar file of the recordings."
            )

    def read(self, name: str) -> bytes:
        """The bytes of one recording.

        Raises: DataError when it is missing, too large or unreadable.
        """
        if self._members is None:
            return _read(self.root / name)
        if name not in self._members:
            example = next(iter(self._members), None)
            known = f"names there look like {example!r}" if example else "it has no files"
            raise DataError(f"{name} is not in {self.root}; {known}.")
        start, size = self._members[name]
        return _read(self.root, start, size)


def decode(raw: bytes | Path, sample_rate: int, *, name: str = "the recording") -> Sound:
    """A recording from a file's bytes, or from a path, at `sample_rate` Hz.

    Raises: DataError naming it when it is no audio that can be read, is damaged, empty, longer than
    LONGEST_S or has values that are no numbers; MissingExtraError without soundfile or soxr.
    """
    soundfile = _soundfile()
    source: Any = io.BytesIO(raw if isinstance(raw, bytes) else _read(raw))
    try:
        with soundfile.SoundFile(source) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            if frames > LONGEST_S * rate:
                raise DataError(
                    f"{name} is {frames / rate:.0f} s long; expected at most {LONGEST_S:.0f} s. "
                    "Cut it, or send it through `recurra speech stream`."
                )
            # Block by block: a header may promise more than there is.
            blocks = list(file.blocks(_BLOCK, dtype="float32", always_2d=True))
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: raw data without a header
        # The message of the package names the buffer that it reads from.
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise DataError(
            f"{name} is no audio that can be read ({reason}); expected WAV, FLAC or OGG."
        ) from error
    values = np.concatenate(blocks) if blocks else np.zeros((0, channels), np.float32)
    if not len(values):
        raise DataError(f"{name} is empty: it has a header and no sound.")
    if not np.isfinite(values).all():
        raise DataError(f"{name} has samples that are no numbers (NaN or infinite).")
    size = np.abs(values)
    return Sound(
        Resampler(rate, sample_rate).push(mix(values), last=True),
        sample_rate,
        rate,
        channels,
        float(size.max()),
        float((size >= _FULL).mean()),
    )


def mix(values: npt.NDArray[np.float32]) -> Samples:
    """One channel (N,), the mean of those in (N, channels)."""
    if values.shape[1] == 1:
        return np.ascontiguousarray(values[:, 0])
    total = values[:, 0].copy()
    for channel in range(1, values.shape[1]):  # in this order for every piece, so the same bits
        total += values[:, channel]
    return total / np.float32(values.shape[1])


class Resampler:
    """Another sample rate for sound that comes in pieces; pieces do not change the result.

    >>> resampler = Resampler(8000, 16000)
    >>> sound = np.zeros(800, np.float32)
    >>> len(resampler.push(sound[:300])) + len(resampler.push(sound[300:], last=True))
    1600
    """

    def __init__(self, given: float, wanted: float) -> None:
        self._stream: Any = None
        if given != wanted:
            self._stream = _soxr().ResampleStream(given, wanted, 1, dtype="float32")

    def push(self, samples: Samples, *, last: bool = False) -> Samples:
        """What can be said after these samples, all of it when they are the last."""
        if self._stream is None:
            return samples
        out: Samples = self._stream.resample_chunk(samples, last=last)
        return out


def change_speed(samples: Samples, sample_rate: int, speed: float) -> Samples:
    """The same sound faster (speed above 1) or slower, in tempo and pitch, as a tape would be.

    Source: Ko, Peddinti, Povey and Khudanpur 2015, "Audio augmentation for speech recognition".
    """
    return Resampler(sample_rate * speed, sample_rate).push(samples, last=True)


def _index(path: Path) -> dict[str, tuple[int, int]]:
    """Where each regular file of an archive begins, and its size."""
    try:
        with tarfile.open(path, "r:") as archive:
            found = {
                member.name.removeprefix("./"): (member.offset_data, member.size)
                for member in archive
                if member.isreg() and not member.issparse()
            }
    except tarfile.TarError as error:
        raise DataError(
            f"{path} is no plain tar archive ({error}). Unpack what is compressed (.tar.gz, "
            ".tar.xz) to .tar first, or give a folder."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    return found


def _read(path: Path, start: int = 0, size: int | None = None) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            raw = file.read((_LARGEST if size is None else min(size, _LARGEST)) + (size is None))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    if len(raw) > _LARGEST or (size is not None and size > _LARGEST):
        raise DataError(f"{path} has a recording of more than {_LARGEST >> 20} MiB. Cut it.")
    if size is not None and len(raw) < size:
        raise DataError(f"{path} is cut short: {len(raw)} of {size} bytes of a recording.")
    return raw


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtraError("soundfile", "speech", "Reading audio") from error
    return soundfile


def _soxr() -> Any:
    try:
        import soxr
    except ImportError as error:
        raise MissingExtraError("soxr", "speech", "Changing the sample rate") from error
    return soxr
