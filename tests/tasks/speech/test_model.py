"""Transcriber: it learns, saves, loads, resumes, and says what is wrong with recordings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tasks.speech.tones import RATE, pairs, say, tiny, write_table

from recurra import LanguageModel, Transcriber
from recurra.data.recordings import given_recordings
from recurra.errors import ConfigError, DataError, NotFittedError, RunError
from recurra.report.maps import Alignment
from recurra.runs import RunFolder
from recurra.tasks.speech.examples import fill
from recurra.tasks.speech.fitted import Fitted
from recurra.tasks.speech.fitting import ctc_loss
from recurra.tasks.speech.learning import AudioFiles
from recurra.tasks.speech.report import run_report
from recurra.tasks.speech.settings import SpeechSettings
from recurra.tasks.speech.spelling import Characters
from recurra.tasks.speech.wer import count_errors


@pytest.fixture(scope="module")
def model() -> Transcriber:
    return tiny(steps=150, validation=0).fit(pairs(24))


@pytest.fixture
def run(model: Transcriber, tmp_path: Path) -> Path:
    model.save(tmp_path / "run")
    return tmp_path / "run"


def test_it_learns_to_hear(model: Transcriber) -> None:
    evaluation = model.evaluate(pairs(8, seed=500))
    rows = {row["model"]: row["metrics"] for row in evaluation.results()}
    assert rows["recurra"]["cer"] < 0.1 < rows["commonest transcript"]["cer"]
    assert rows["recurra"]["rtf"] > 0
    assert evaluation.notes[0].startswith("12 words, 21 characters with blanks; greedy")
    beam = model.evaluate(pairs(8, seed=500), beam_size=4)
    assert beam.cer < 0.1


@pytest.mark.parametrize("beam_size", [None, 4])
def test_words_are_said_where_they_are(model: Transcriber, beam_size: int | None) -> None:
    first, second = model.predict([say("C A", 77)], beam_size=beam_size)[0].words
    assert (first.text, second.text) == ("C", "A")
    # C sounds from 0.1 to 0.3 s, A from 0.7 to 0.9 s; a network may say them early or late.
    assert 0 < first.start < first.end < 0.5
    assert 0.6 < second.start < second.end < 1.1
    assert 0.5 < first.confidence <= 1


def test_too_little_sound_says_nothing(model: Transcriber) -> None:
    for count in (0, 100, 500):
        transcript = model.predict([np.zeros(count, np.float32)])[0]
        assert (transcript.text, transcript.words, transcript.confidence) == ("", (), None)
        assert model.predict([np.zeros(count)], beam_size=2)[0].text == ""


def test_a_saved_model_says_the_same_to_the_bit(model: Transcriber, run: Path) -> None:
    again = Transcriber.load(run)
    assert again.settings == model.settings
    sound = say("CAB", 3)
    assert np.array_equal(again.fitted.log_probs(sound), model.fitted.log_probs(sound))
    assert again.predict([sound]) == model.predict([sound])
    assert repr(again).endswith("fitted")


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        fitted = tiny(seed=seed, steps=4, dropout=0.3, speeds=(0.9, 1.1)).fit(pairs(8)).fitted
        return torch.cat([p.flatten() for p in fitted.network.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    def fit(out: str, seed: int = 0, **more: Any) -> None:
        every = {"validate_every": 3, "checkpoint_every_s": 0.0}
        settings: dict[str, Any] = {"dropout": 0.2, "time_masks": 2, "training": every}
        tiny(steps=9, **settings).fit(pairs(10, seed), out=tmp_path / out, **more)

    fit("whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    part = RunFolder(tmp_path / "part")
    part.config_path.unlink()
    part.model_path.unlink()
    newest = sorted(part.checkpoints.glob("step-*"))
    newest[-1].unlink()
    fit("part", resume=True)
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(RunError, match="was trained on other recordings"):
        fit("part", seed=9, resume=True)


def test_what_cannot_be_used_is_listed_by_row_before_training(tmp_path: Path) -> None:
    rows = [
        *pairs(8),
        (np.zeros(RATE, "f4"), "A"),
        (say("A"), "ABABABABABABABABAB"),
        (say("B"), ""),
    ]
    table = write_table(tmp_path, "train", rows)
    (tmp_path / "train-0.wav").write_bytes(b"no sound")
    (tmp_path / "train-1.wav").unlink()
    loud = np.clip(20 * say("BC"), -1, 1)
    rows[2] = (loud, "BC")
    import soundfile

    soundfile.write(tmp_path / "train-2.wav", loud, RATE)
    model = tiny(steps=2, validation=0)
    with pytest.raises(DataError) as caught:
        model.fit(table, out=tmp_path / "run")
    message = str(caught.value)
    assert message.startswith(f"5 of 11 recordings of {table} cannot be used: ")
    for part in (
        "row 1, train-0.wav: it is no audio that can be read",
        "row 2, train-1.wav: cannot read",
        "row 9, train-8.wav: is silent: its largest sample is 0 of full scale",
        "row 10, train-9.wav: is too short for its text: 0.40 s are 12 steps of the network, and "
        "18 characters need 18",
        "row 11, train-10.wav: has no transcript",
        "leave them out with skip_bad=True (--skip-bad)",
    ):
        assert part in message
    assert not (tmp_path / "run").exists()
    model.fit(table, skip_bad=True, out=tmp_path / "run")
    assert len([finding for finding in model.findings if finding.fatal]) == 5
    (clipped,) = (finding for finding in model.findings if not finding.fatal)
    assert str(clipped).startswith("row 3, train-2.wav: is clipped: ")
    assert model.fitted.notes[0].startswith("6 recordings")


def test_characters_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 2, .*: has characters outside the alphabet: 'C'"):
        tiny(steps=1, alphabet="AB ", validation=0).fit([(say("A"), "A"), (say("BC"), "BC C")])


def test_none_left_is_an_error_even_when_some_may_be_skipped() -> None:
    with pytest.raises(DataError, match=r"1 of 1 recordings .* None is left"):
        tiny(steps=1, validation=0).fit([(np.zeros(RATE, "f4"), "A")], skip_bad=True)
    with pytest.raises(DataError, match="no recording of the recordings given has a transcript"):
        tiny(steps=1).fit([(say("A"), "")])
    with pytest.raises(DataError, match=r"1 recording\(s\), too few to keep one for validation"):
        tiny(steps=1).fit(pairs(1))


def test_evaluate_lists_what_it_cannot_use(model: Transcriber, tmp_path: Path) -> None:
    table = write_table(tmp_path, "test", [*pairs(3), (say("A"), "")])
    (tmp_path / "test-1.wav").unlink()
    with pytest.raises(DataError, match=r"2 of 4 .* row 2, test-1.wav: cannot read .* row 4"):
        model.evaluate(table)
    evaluation = model.evaluate(table, skip_bad=True)
    assert len(evaluation.rows) == 2
    assert evaluation.notes[-1].startswith("2 recordings were left out: row 2, test-1.wav")


def test_a_network_that_says_nothing_is_explained() -> None:
    model = tiny(steps=2, training={"learning_rate": 1e-6}).fit(pairs(8))
    model.fitted.network.head.bias.data[0] = 50.0
    evaluation = model.evaluate(pairs(4))
    assert evaluation.wer == 1
    assert evaluation.notes[-1].startswith("4 of 4 transcripts are empty: the network says nothing")
    rate = {"learning_rate": 3e-3, "validate_every": 4}
    stuck = tiny(steps=16, training=rate, hidden_size=8).fit(pairs(16))
    (warning,) = (note for note in stuck.fitted.notes if note.startswith("warning"))
    assert "100.0 % of all steps say nothing (blank)" in warning
    assert "16 steps were too few" in warning


def test_the_loss_is_that_of_all_paths_per_character() -> None:
    logits = torch.randn(1, 3, 3, dtype=torch.float64)
    p = logits[0].softmax(-1)
    paths = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 1, 1)]
    total = sum(p[0, a] * p[1, b] * p[2, c] for a, b, c in paths)
    loss = ctc_loss(logits, torch.tensor([3]), torch.tensor([1]), torch.tensor([1]))
    assert float(loss) == pytest.approx(-float(total.log()), rel=1e-6)  # it computes in float32


def test_statistics_are_those_of_all_frames_and_faster_copies_fit_their_text() -> None:
    rows = given_recordings(
        [(say("A"), "A"), (say("ABCABC"), "ABCABC"), (say("A"), "ABABABABABAB")]
    )
    settings = SpeechSettings(stacked=3)
    store = fill(rows, AudioFiles(), settings, Characters("ABC "), speeds=(1.0, 0.8, 1.25))
    frames = [example.frames for example in store.examples]
    assert [len(one) for one in frames] == [3, 3, 2]  # the last one has no time to be faster
    assert frames[0][2] < frames[0][0] < frames[0][1]
    every = np.concatenate([store.features(example) for example in store.examples])
    mean, deviation = store.statistics()
    assert np.allclose(mean, every.mean(0), atol=1e-4)
    assert np.allclose(deviation, every.std(0), rtol=1e-4)


def test_errors_are_counted_as_edits() -> None:
    errors = count_errors(["GO HOME NOW", "YES"], ["GO ROME", "OH YES"])
    assert errors.wer == 3 / 4
    assert (errors.substitutions, errors.deletions, errors.insertions) == (1, 1, 1)
    assert errors.cer == (1 + 4 + 3) / 14
    assert errors.by_row == (2, 1)
    assert set(errors.confusions) == {("HOME", "ROME", 1), ("NOW", "", 1), ("", "OH", 1)}


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown speech setting 'streming'; did you mean 'strea"):
        Transcriber.from_settings({"streming": True})
    with pytest.raises(ConfigError, match=r"speeds between 0\.5 and 2"):
        Transcriber(speeds=(0.1,))
    with pytest.raises(ConfigError, match="each character once"):
        Transcriber(alphabet="ABA")
    with pytest.raises(NotFittedError, match="call fit"):
        Transcriber().predict([])
    settings = SpeechSettings(streaming=True)
    assert (settings.steps_ahead, settings.units) == (10, 384)  # 300 ms in steps of 30 ms
    assert SpeechSettings().steps_ahead == 0


ARPA = """\\data\\
ngram 1=5
\\1-grams:
-99 <s>
-1 </s>
-9 <unk>
-9 A
-1 B
\\end\\
"""


@pytest.fixture
def doubtful(model: Transcriber, monkeypatch: pytest.MonkeyPatch) -> Transcriber:
    """The model, which now hears A a little better than B, whatever it is given."""
    frames = np.full((3, 1 + len(model.fitted.design.alphabet)), 1e-3)
    for label, p in (("A", 0.5), ("B", 0.4)):
        frames[:, 1 + model.fitted.design.alphabet.index(label)] = p
    frames[0], frames[2] = 1e-4, 1e-4
    frames[[0, 2], 0] = 1
    log_probs = np.log(frames / frames.sum(1, keepdims=True)).astype(np.float32)
    monkeypatch.setattr(Fitted, "scores", lambda self, outputs: log_probs)
    return model


@pytest.mark.parametrize(("likely", "wanted"), [("-1 A", "A"), ("-9 A", "B")])
def test_a_language_model_decides_what_sounds_alike(
    doubtful: Transcriber, tmp_path: Path, likely: str, wanted: str
) -> None:
    path = tmp_path / "words.arpa"
    path.write_text(ARPA.replace("-9 A", likely))
    assert doubtful.predict([say("A")], beam_size=16)[0].text == "A"
    assert doubtful.predict([say("A")], language_model=path)[0].text == wanted
    evaluation = doubtful.evaluate([(say("A"), "B")], language_model=path)
    assert evaluation.wer == (wanted != "B")
    assert "prefix beam of 16, words.arpa of weight 0.5, 1 nats a word" in evaluation.notes[0]


@pytest.mark.parametrize("tokens", ["char", "byte", "word"])
def test_the_package_s_own_language_models_decide_too(doubtful: Transcriber, tokens: Any) -> None:
    rates = {"learning_rate": 0.05, "warmup_steps": 1}
    settings = {"hidden_size": 16, "steps": 20, "validation": 0, "progress": False}
    language = LanguageModel(tokens=tokens, training=rates, batch_size=4, **settings)
    language.fit_text("B\n" * 400 + "A B C\n")
    assert doubtful.predict([say("A")], language_model=language)[0].text == "B"


def test_hot_words_decide_too(doubtful: Transcriber) -> None:
    for boost, wanted in ((0.1, "A"), (1.0, "B")):
        assert doubtful.predict([say("A")], hot_words=["B"], hot_boost=boost)[0].text == wanted


def test_a_search_that_does_not_fit_is_refused(model: Transcriber, tmp_path: Path) -> None:
    sound, path = [say("A")], tmp_path / "words.arpa"
    path.write_text(ARPA.replace("A", "a").replace("B", "b"))
    lower = LanguageModel(hidden_size=8, steps=1, validation=0, progress=False).fit_text("a b" * 99)
    pieces = LanguageModel(tokens="subword", hidden_size=8, steps=1, validation=0, progress=False)
    for search, message in (
        ({"beam": 3}, r"unknown option of a search 'beam'; did you mean 'beam_size'"),
        ({"beam_size": 0}, r"beam_size=0; expected at least 1"),
        ({"language_weight": -1.0}, r"language_weight=-1\.0; expected 0 to 100"),
        ({"hot_words": "AB"}, r"hot_words is a list of phrases; pass \['AB'\]"),
        ({"hot_words": ["ab"]}, r"hot word 'ab' has characters .* write: 'ab'"),
        ({"language_model": path}, r"words\.arpa has no word that the transcriber can write"),
        ({"language_model": lower}, r"does not know '[ABC]{3}', .* in the same case"),
        ({"language_model": pieces.fit_text("A B\n" * 400)}, r"reads subwords"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.predict(sound, **search)
    with pytest.raises(DataError, match="cannot read"):
        model.predict(sound, language_model=tmp_path / "none.arpa")


def test_predict_takes_a_list(model: Transcriber, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"takes a list of recordings; pass \['a.wav'\]"):
        model.predict("a.wav")
    with pytest.raises(DataError, match=r"cannot read .*a\.wav"):
        model.predict([tmp_path / "a.wav"])
    with pytest.raises(DataError, match="dtype int64; expected a path"):
        model.predict([np.arange(3)])
    with pytest.raises(ConfigError, match="beam_size=0"):
        model.predict([say("A")], beam_size=0)


def test_a_damaged_run_is_refused(run: Path) -> None:
    weights = load_file(run / "model.safetensors")
    save_file({**weights, "head.bias": torch.zeros(3)}, run / "model.safetensors")
    with pytest.raises(RunError, match=r"model\.safetensors is damaged or belongs to another run"):
        Transcriber.load(run)


def test_weights_that_do_not_fit_are_refused(model: Transcriber, run: Path) -> None:
    folder = RunFolder(run)
    state = load_file(folder.state_path)
    save_file({**state, "mean": torch.zeros(3)}, folder.state_path)
    config = folder.read_config()["config"]
    folder.write_config("speech", config, (folder.model_path, folder.state_path))
    with pytest.raises(RunError, match=r"'mean' has the shape \(3,\), expected \(80,\)"):
        Transcriber.load(run)


def test_the_report_shows_errors_and_the_alignment(
    model: Transcriber, run: Path, tmp_path: Path
) -> None:
    from recurra.runs import write_json

    pytest.importorskip("matplotlib")
    page = run_report(RunFolder(run)).html()
    assert "This run has not been evaluated" in page
    evaluation = model.evaluate([*pairs(4), (say("A"), "B&lt;")])
    write_json(
        RunFolder(run).metrics_path,
        {"results": evaluation.results(), "details": evaluation.details(), "notes": []},
    )
    page = run_report(RunFolder(run)).html()
    assert "What it says, and when" in page
    assert "B&amp;lt;" in page
    RunFolder(run).metrics_path.write_text('{"results": []}')
    with pytest.raises(RunError, match=r"metrics\.json cannot be used"):
        run_report(RunFolder(run))
    with pytest.raises(ConfigError, match="--gradients"):
        run_report(RunFolder(run), gradients=True)
    with pytest.raises(ValueError, match=r"probabilities has shape \(2, 1\); expected \(3, 1\)"):
        Alignment("x", np.zeros((9, 4)), 0.03, ["A"], np.zeros((2, 1)), np.zeros(3))
