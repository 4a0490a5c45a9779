from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from recurra.data import audio
from recurra.data.audio import AudioFiles, Resampler, change_speed, decode, mix
from recurra.errors import DataError

soundfile = pytest.importorskip("soundfile")


def wav(samples: np.ndarray, rate: int = 16000, kind: str = "WAV", subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def tone(seconds: float = 0.5, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype("f4")


def test_samples_come_back_as_they_are() -> None:
    sound = decode(wav(tone()), 16000)
    assert np.array_equal(sound.samples, tone())
    assert (sound.sample_rate, sound.channels, sound.seconds) == (16000, 1, 0.5)
    assert sound.peak == pytest.approx(0.5, abs=1e-4)
    assert sound.clipped == 0


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_16"), ("OGG", "VORBIS")])
def test_other_formats_hold_the_same_sound(kind: str, subtype: str) -> None:
    sound = decode(wav(tone(), kind=kind, subtype=subtype), 16000)
    assert len(sound.samples) == 8000
    assert np.corrcoef(sound.samples, tone())[0, 1] > 0.999


def test_another_rate_is_resampled_to_the_same_pitch() -> None:
    sound = decode(wav(tone(rate=44100), 44100), 16000)
    assert (sound.original_rate, len(sound.samples)) == (44100, 8000)
    assert np.corrcoef(sound.samples, tone())[0, 1] > 0.9999


def test_channels_are_averaged() -> None:
    both = np.stack([tone(), np.zeros(8000, "f4")], 1)
    sound = decode(wav(both), 16000)
    assert sound.channels == 2
    assert np.array_equal(sound.samples, tone() / 2)
    several = np.random.default_rng(0).normal(size=(50, 5)).astype("f4")
    assert np.array_equal(np.concatenate([mix(several[:7]), mix(several[7:])]), mix(several))


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_resampling_in_pieces_gives_the_same_bits(rate: int) -> None:
    sound = np.random.default_rng(rate).normal(size=rate).astype("f4")
    whole = Resampler(rate, 16000).push(sound, last=True)
    resampler = Resampler(rate, 16000)
    pieces = [resampler.push(sound[k : k + 777]) for k in range(0, rate, 777)]
    pieces.append(resampler.push(sound[:0], last=True))
    assert np.array_equal(np.concatenate(pieces), whole)


def test_speed_changes_length_and_pitch() -> None:
    fast = change_speed(tone(1.0), 16000, 1.25)
    assert len(fast) == 12800
    assert np.corrcoef(fast, tone(0.8, hertz=550.0))[0, 1] > 0.999


def test_what_is_no_sound_is_refused_by_name() -> None:
    message = r"a\.wav is no audio that can be read \((?!.*BytesIO).*\); expected WAV, FLAC or OGG"
    with pytest.raises(DataError, match=message):
        decode(b"hello", 16000, name="a.wav")
    with pytest.raises(DataError, match="the recording is no audio"):
        decode(b"", 16000)
    with pytest.raises(DataError, match=r"a\.wav is empty"):
        decode(wav(tone()[:0]), 16000, name="a.wav")
    bad = tone()
    bad[3] = np.nan
    with pytest.raises(DataError, match="no numbers"):
        decode(wav(bad), 16000)


def test_a_recording_is_no_longer_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "LONGEST_S", 0.25)
    with pytest.raises(DataError, match=r"it is 0 s long; expected at most 0 s\. Cut it"):
        decode(wav(tone(0.4)), 16000, name="it")


def test_clipping_is_measured() -> None:
    loud = np.clip(4 * tone(), -1, 1)
    sound = decode(wav(loud), 16000)
    assert sound.clipped == pytest.approx(float((np.abs(loud) >= 0.999).mean()))
    assert sound.peak == 1


def make_tar(path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        content = wav(tone())
        for name in ("./x/a.wav", "b.wav"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def test_recordings_lie_in_a_folder_or_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone()))
    assert AudioFiles(tmp_path).read("a.wav") == wav(tone())
    files = AudioFiles(make_tar(tmp_path / "a.tar"))
    assert files.read("x/a.wav") == files.read("b.wav") == wav(tone())


def test_an_archive_gives_regular_files_only(tmp_path: Path) -> None:
    files = AudioFiles(make_tar(tmp_path / "a.tar"))
    for name in ("link.wav", "../a.tar", "c.wav"):
        with pytest.raises(DataError, match=r"is not in .*a\.tar; names there look like"):
            files.read(name)


def test_what_is_no_plain_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no plain tar archive .* to \.tar first"):
        AudioFiles(make_tar(tmp_path / "a.tar.gz", "w:gz"))
    with pytest.raises(DataError, match=r"cannot read .*none\.tar: No such file"):
        AudioFiles(tmp_path / "none.tar")
    with pytest.raises(DataError, match=r"none is not there; expected the folder or \.tar file"):
        AudioFiles(tmp_path / "none")
    path = make_tar(tmp_path / "cut.tar")
    files = AudioFiles(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut\.tar is cut short: \d+ of \d+ bytes"):
        files.read("x/a.wav")
