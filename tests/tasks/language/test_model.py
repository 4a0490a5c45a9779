from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tasks.language.texts import OTHER, TEXT, TINY, tiny, write

from recurra import LanguageModel
from recurra.errors import ConfigError, DataError, NotFittedError, RunError
from recurra.runs import RunFolder
from recurra.tasks.language import learning
from recurra.tasks.language.samples import read_samples


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    text = write(folder, "text.txt", TEXT)
    LanguageModel(**TINY, training={"validate_every": 5}).fit(text, out=folder / "run")
    return folder / "run"


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


@pytest.mark.parametrize("tokens", ["char", "byte", "word", "subword"])
def test_every_kind_of_token_is_learned_scored_and_written(tmp_path: Path, tokens: Any) -> None:
    vocab = {"vocab_size": 270} if tokens == "subword" else {}
    model = tiny(tokens=tokens, steps=40, **vocab)
    evaluation = model.evaluate(write(tmp_path, "other.txt", TEXT[:300]))
    rows = {row["model"]: row["metrics"] for row in evaluation.results()}
    assert rows["recurra"]["perplexity"] < rows["uniform"]["perplexity"]
    assert model.write("the ", length=5).startswith("the ")
    model.save(tmp_path / "run")
    again = LanguageModel.load(tmp_path / "run")
    assert torch.equal(again.score("the cat\n").nats, model.score("the cat\n").nats)
    assert again.write("the", length=20) == model.write("the", length=20)


def test_training_learns_the_text(tmp_path: Path) -> None:
    model = tiny(steps=150, hidden_size=24, training={"learning_rate": 1e-2})
    assert model.evaluate(write(tmp_path, "a.txt", TEXT)).perplexity < 3
    assert "the cat" in model.write("the ", length=60, temperature=0)


def test_a_saved_model_is_the_same_to_the_bit(run: Path, tmp_path: Path) -> None:
    model = LanguageModel.load(run)
    model.save(tmp_path / "copy")
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (
        run / "model.safetensors"
    ).read_bytes()
    assert repr(model).endswith("fitted")
    assert LanguageModel.load(tmp_path / "copy").settings == model.settings


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second, other = tiny(seed=3), tiny(seed=3), tiny(seed=4)
    assert first.fitted.fingerprint == second.fitted.fingerprint != other.fitted.fingerprint


def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    first = write(tmp_path, "a.txt", TEXT)
    second = write(tmp_path, "b.txt", OTHER)
    dropped = {**TINY, "input_dropout": 0.2, "k2": 12}
    every = {"validate_every": 3, "checkpoint_every_s": 0.0}

    def fit(out: str, **more: Any) -> None:
        settings = {**dropped, "training": every}
        LanguageModel(**settings).fit([first, second], out=tmp_path / out, **more)

    fit("whole")
    run = RunFolder(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    # As if killed after the next to last checkpoint.
    newest = max((tmp_path / "part" / "checkpoints").glob("step-*"))
    newest.unlink()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "part" / name).unlink()
    fit("part", resume=True)
    assert (tmp_path / "part" / "model.safetensors").read_bytes() == run.model_path.read_bytes()
    samples = read_samples(tmp_path / "part" / "samples.jsonl")
    assert [entry["step"] for entry in samples] == [3, 6, 9, 12]
    assert samples == read_samples(run.samples_path)


def test_a_resumed_run_needs_the_same_text_and_settings(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    other = write(tmp_path, "other.txt", OTHER)
    text = write(tmp_path, "text.txt", TEXT)
    every = {"validate_every": 5}
    with pytest.raises(RunError, match=r"trained on other text; --resume needs the same files"):
        LanguageModel(**TINY, training=every).fit(other, out=copy, resume=True)
    larger = LanguageModel(**{**TINY, "hidden_size": 13}, training=every)
    with pytest.raises(RunError, match=r"trained with hidden_size=12 \(now 13\)"):
        larger.fit(text, out=copy, resume=True)


def test_a_run_is_not_overwritten_before_all_is_checked(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"ab\xff" * 100)
    with pytest.raises(RunError, match="already holds files"):
        LanguageModel(**TINY).fit(write(tmp_path, "a.txt", TEXT), out=copy)
    with pytest.raises(DataError, match=r"bad\.txt is not UTF-8: .* at offset 2, line 1, "):
        LanguageModel(**TINY).fit(bad, out=copy, force=True)
    assert LanguageModel.load(copy).write(length=3) == LanguageModel.load(run).write(length=3)


def test_nothing_is_left_beside_the_run(run: Path) -> None:
    assert sorted(path.name for path in run.parent.iterdir()) == ["run", "text.txt"]
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "samples.jsonl",
        "state.safetensors",
        "tokenizer.json",
    ]


def test_validation_text_of_its_own_is_what_decides(tmp_path: Path) -> None:
    text, valid = write(tmp_path, "a.txt", TEXT), write(tmp_path, "v.txt", TEXT[:400])
    model = LanguageModel(**TINY).fit(text, valid=valid)
    assert model.result is not None
    # The kept text is read in one stream here, as `evaluate` reads it.
    tally = model.evaluate(valid).tallies["recurra"]
    assert model.result.best_loss == pytest.approx(tally.nats / tally.tokens, rel=1e-6)


def test_the_end_of_the_text_is_kept_and_no_more_than_is_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a.txt", TEXT)
    settings = LanguageModel(**{**TINY, "validation": 0.5}).settings
    chosen = learning.plan([path], [], settings)
    assert chosen.valid is not None
    assert len(chosen.valid) == round((len(TEXT) + 1) / 2)
    monkeypatch.setattr(learning, "MOST_KEPT", 100)
    chosen = learning.plan([path], [], settings)
    assert chosen.valid is not None
    ends = chosen.tokenizer.encode(TEXT[-100:]).tolist()
    assert chosen.valid.tolist() == ends
    assert chosen.batches.length == (len(TEXT) + 1 - 100 - 1) // 3


def test_the_end_of_each_part_is_kept_and_the_text_after_it_begins_anew(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "".join(chr(0x4E00 + k) for k in range(1000)))
    settings = LanguageModel(**TINY, validation=0.1, validation_parts=4).settings
    chosen = learning.plan([path], [], settings)
    assert chosen.valid is not None
    corpus = learning.read_corpus([path], chosen.tokenizer).ids.tolist()
    size, each = len(corpus) // 4, 25
    ends = [size * part for part in (1, 2, 3, 4)]
    kept = [token for end in ends for token in corpus[end - each : end]]
    assert chosen.valid.tolist() == kept
    learned = [token for token in corpus if token not in set(kept)]
    batches = [chosen.batches.batch(step) for step in range(chosen.batches.updates)]
    rows = torch.cat([batch.inputs for batch in batches], 1)
    assert rows.flatten().tolist() == learned[: rows.numel()]
    resets = [
        torch.zeros(batch.inputs.shape) if batch.reset is None else batch.reset for batch in batches
    ]
    begins = torch.cat([part.bool() for part in resets], 1)
    begins[:, 0] = False  # where streams begin
    assert sorted(rows[begins].tolist()) == sorted(
        corpus[end] for end in ends[:3]
    )  # the last token is only a target


def test_more_parts_than_the_text_has_room_for_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", TEXT[:100])
    with pytest.raises(
        DataError, match=r"101 tokens; expected more than 1 in .*validation_parts=90"
    ):
        LanguageModel(**TINY, validation_parts=90).fit(path)


def test_without_validation_all_the_text_is_learned_from() -> None:
    model = tiny(validation=0)
    assert model.result is not None
    assert model.result.best_loss is None
    assert model.fitted.notes[-1] == "no text is kept for validation; the last weights count"


def test_too_little_text_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "abcdef")
    with pytest.raises(DataError, match=r"a\.txt .* have 4 tokens .* more than 6, two for each"):
        LanguageModel(**TINY).fit(path)


def test_predicting_needs_a_trained_model() -> None:
    model = LanguageModel()
    assert repr(model).endswith("not fitted")
    with pytest.raises(NotFittedError, match=r"call fit\(paths\) first"):
        model.write("a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": "words"}, "tokens='words': expected 'char', 'byte', 'word' or 'subword'"),
        ({"hiden_size": 3}, "unknown language setting 'hiden_size'; did you mean 'hidden_size'"),
        ({"preset": "zaremba"}, "unknown preset 'zaremba'; did you mean 'zaremba-small'"),
        ({"hidden_size": 0}, "hidden_size=0"),
        ({"output_dropout": 1.0}, "output_dropout=1.0: expected less than 1"),
        ({"training": {"learning_rat": 1}}, "learning_rat"),
        ({"steps": 1, "minutes": 1}, "steps=1 and minutes=1 are both given"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LanguageModel.from_settings(settings)


def test_a_vocabulary_that_does_not_fit_the_design() -> None:
    with pytest.raises(ConfigError, match=r"cutoffs=\[30\] do not fit the vocabulary of 17 tokens"):
        tiny(cutoffs=(30,))


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "tokenizer.json"])
def test_a_changed_file_is_found(run: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[-2] ^= 1
    (copy / name).write_bytes(raw)
    with pytest.raises(RunError, match=rf"{name} is damaged or belongs to another run"):
        LanguageModel.load(copy)


def test_a_tokenizer_of_another_size_does_not_fit(run: Path, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run, copy.path)
    value = json.loads(copy.tokenizer_path.read_text())
    value["vocabulary"].append("Z")
    copy.tokenizer_path.write_text(json.dumps(value))
    config = copy.read_config()["config"]
    files = (copy.model_path, copy.state_path, copy.tokenizer_path)
    copy.write_config("language", config, files)
    with pytest.raises(RunError, match=r"a vocabulary of 18 tokens: .* \(17, 64\), expected \(18,"):
        LanguageModel.load(copy.path)


def test_weights_that_are_nan_are_refused(run: Path, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run, copy.path)
    weights = weights_of(copy.path)
    weights["softmax.bias"][0] = math.nan
    save_file(weights, copy.model_path)
    files = (copy.model_path, copy.state_path, copy.tokenizer_path)
    copy.write_config("language", copy.read_config()["config"], files)
    with pytest.raises(RunError, match=r"'softmax\.bias' has NaN"):
        LanguageModel.load(copy.path)


def test_presets_are_the_published_sizes() -> None:
    from recurra.tasks.language.fitted import make_network
    from recurra.tasks.language.settings import LanguageSettings, decide

    sizes = {}
    for preset in ("zaremba-small", "zaremba-medium", "zaremba-large", "awd-lstm"):
        design = decide(LanguageSettings(tokens="word", preset=preset), 10_000)
        with torch.device("meta"):
            network = make_network(10_000, design)
        sizes[preset] = sum(p.numel() for p in network.parameters())
    # Both biases of torch's LSTM are counted; Merity et al. 2017 say 24 million.
    assert sizes == {
        "zaremba-small": 4_653_200,
        "zaremba-medium": 19_780_400,
        "zaremba-large": 66_034_000,
        "awd-lstm": 24_221_600,
    }


def test_the_package_names_it_without_importing_torch_first() -> None:
    import recurra

    assert recurra.LanguageModel is LanguageModel
    assert os.path.basename(recurra.__file__) == "__init__.py"
