"""`recurra speech` from outside: what it prints where, what it writes, and how it refuses."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.cli.conftest import Recurra, leave
from tests.data.test_microphone import FakeDevice
from tests.tasks.speech.tones import RATE, pairs, say, write_table

from recurra import Transcriber

TINY = (
    *("--set", "hidden_size=32", "--set", "num_layers=1", "--set", "dropout=0"),
    *("--set", "batch_size=4", "--set", "speeds=[1.0]", "--set", "time_masks=0"),
    *("--set", 'training={"learning_rate": 0.01, "warmup_steps": 5, "ema_decay": 0.9}'),
)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.tsv, test.tsv, their recordings, and a streaming run."""
    folder = tmp_path_factory.mktemp("speech")
    table = write_table(folder, "train", pairs(24))
    write_table(folder, "test", pairs(4, seed=100))
    words = ("--streaming", "--steps", 150, *TINY, "--out", folder / "run")
    assert leave("speech", "train", table, *words) == 0
    return folder


def test_train_says_what_it_found_and_what_it_left_out(
    recurra: Recurra, speech: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path, "some", [*pairs(5), (np.zeros(RATE), "A")])
    words = ("speech", "train", table, "--steps", 2, *TINY, "--out", tmp_path / "run")
    refused = recurra(*words)
    assert refused.status == 1
    assert "row 6, some-5.wav: is silent" in refused.err
    done = recurra(
        *words, "--skip-bad", "--valid", speech / "test.tsv", "--valid-audio-root", speech
    )
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("5 recordings, 0.1 minutes, 4 characters")
    assert lines[1].startswith("bidirectional: 1 × lstm of 32 units")
    assert lines[2].startswith("validated on 4 recordings")
    assert lines[-2].startswith("trained 2 steps in ")
    assert lines[-1] == f"saved to {tmp_path / 'run'}"
    assert "left out: row 6, some-5.wav: is silent" in done.err


def test_evaluate_prints_and_keeps_the_errors(recurra: Recurra, speech: Path) -> None:
    done = recurra("speech", "evaluate", speech / "run", speech / "test.tsv", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    ours = found["results"][0]
    assert (found["task"], ours["model"]) == ("speech", "recurra")
    assert set(ours["metrics"]) == {"wer", "cer", "rtf"}
    assert ours["metrics"]["cer"] < 0.3
    assert json.loads((speech / "run" / "metrics.json").read_text())["details"]["picture"]
    done = recurra("report", speech / "run", "--out", speech / "r.html", "--force")
    assert done.status == 0, done.err


def test_predict_prints_a_line_for_each_recording(recurra: Recurra, speech: Path) -> None:
    files = [speech / "test-0.wav", speech / "test-1.wav"]
    done = recurra("speech", "predict", speech / "run", *files)
    texts = [one.text for one in Transcriber.load(speech / "run").predict(files)]
    assert done.out.splitlines() == texts
    done = recurra("speech", "predict", speech / "run", *files, "--json", "--beam", 3)
    (first, _) = json.loads(done.out)["transcripts"]
    assert first["file"] == str(files[0])
    assert set(first["words"][0]) == {"text", "start", "end", "confidence"}
    done = recurra("speech", "predict", speech / "run", speech / "none.wav")
    assert (done.status, "none.wav is not there" in done.err) == (1, True)
    done = recurra("speech", "predict", speech / "run", speech)
    assert (done.status, "is a folder; expected an audio file" in done.err) == (1, True)


def test_predict_takes_what_is_likely_to_be_said(
    recurra: Recurra, speech: Path, tmp_path: Path
) -> None:
    words = ("speech", "predict", speech / "run", speech / "test-0.wav")
    done = recurra(*words, "--hot-word", "C C", "--hot-boost", 90)
    assert set(done.out.split()) == {"C"}
    arpa = tmp_path / "words.arpa"
    grams = "-1\t<s>\n-1\t</s>\n-0.1\tCAB\n"
    arpa.write_text(f"\\data\\\nngram 1=3\n\n\\1-grams:\n{grams}\n\\end\\\n")
    options = ("--language-model", arpa, "--language-weight", 9, "--hot-word", "C")
    done = recurra("speech", "evaluate", speech / "run", speech / "test.tsv", *options)
    told = "prefix beam of 16, words.arpa of weight 9, 1 nats a word, 1 hot word;"
    assert (done.status, told in done.out) == (0, True)
    for options, told in (
        (("--language-model", speech / "train.tsv"), "the file ends; expected a line"),
        (("--language-model", speech / "run"), "expected a language run"),
        (("--language-model", tmp_path / "no"), "no is not there; expected an ARPA file of words"),
    ):
        done = recurra(*words, *options)
        assert (done.status, told in done.err) == (1, True), done.err
    for options, told in (
        (("--hot-boost", 2), "hot_boost=2.0 changes nothing without hot_words (--hot-word)"),
        (("--word-bonus", 0), "word_bonus=0.0 changes nothing without language_model (--language-"),
        (("--hot-word", "cab"), "cannot write: 'abc'; expected words of ' ABC', as 'CAB'"),
    ):
        done = recurra(*words, *options)
        assert (done.status, told in done.err) == (2, True), done.err


def test_stream_says_what_predict_says(recurra: Recurra, speech: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, say("A C B"), RATE, subtype="PCM_16")
    wanted = recurra("speech", "predict", speech / "run", path).out.strip()
    assert wanted
    raw = (soundfile.read(path, dtype="int16")[0]).astype("<i2").tobytes()
    for stdin in (path.read_bytes(), raw):
        done = recurra("speech", "stream", speech / "run", stdin=stdin)
        lines = [json.loads(line) for line in done.out.splitlines()]
        assert [line["text"] for line in lines if line["final"]] == [wanted]
        assert len(lines) > 1
    done = recurra("speech", "stream", speech / "run", "--final-only", stdin=raw)
    assert [json.loads(line)["text"] for line in done.out.splitlines()] == [wanted]
    done = recurra("speech", "stream", speech / "run", stdin=raw[:-1])
    assert (done.status, "ends with 1 byte(s)" in done.err) == (1, True)


def test_a_microphone_is_heard_until_ctrl_c(
    recurra: Recurra, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = say("A C B")
    device = FakeDevice(sound, then=lambda: signal.raise_signal(signal.SIGINT))
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    wanted = Transcriber.load(speech / "run").predict([sound])[0].text
    assert wanted
    done = recurra("speech", "stream", speech / "run", "--microphone")
    assert done.status == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["text"] for line in lines if line["final"]] == [wanted]
    assert "listening; Ctrl-C ends it" in done.err
    assert device.closed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    done = recurra("speech", "stream", speech / "run", "--microphone", "--rate", 8000)
    assert (done.status, "a microphone has its own" in done.err) == (2, True)


def test_wrong_usage_is_told(recurra: Recurra, speech: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    done = recurra("speech", "train", speech / "train.tsv", "--audio", "fil", *out)
    assert (done.status, "unknown column 'fil'" in done.err) == (1, True)
    done = recurra("speech", "train", speech / "train.tsv", "--set", "bin=3", *out)
    assert (done.status, "did you mean 'bins'" in done.err) == (2, True)
    done = recurra("speech", "train", speech / "train.tsv", "--criterion", "rnnt", *out)
    assert (done.status, "'ctc' or 'transducer'" in done.err) == (2, True), done.err
    done = recurra("speech", "stream", tmp_path / "none")
    assert (done.status, "is not a folder" in done.err) == (1, True)
