from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tasks.speech.tones import TINY, pairs, write_table

from recurra import Transcriber
from recurra.data import catalogue
from recurra.data.datasets import DATASETS, Dataset
from recurra.data.recipe import Recipe, find_recipe, list_recipes
from recurra.errors import DataError
from recurra.tasks.speech.reproduce import read_section, reproduce, run_folder, training_rows


def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> Recipe:
    folder = tmp_path / "speech"
    folder.mkdir(exist_ok=True)
    write_table(folder, "train", pairs(10))
    write_table(folder, "test", pairs(4, seed=50))
    entry = Dataset("tones", "", "speech", (), "", "", "https://example.org")
    monkeypatch.setitem(DATASETS, "tones", entry)
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path))
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    section = {
        "train": "train.tsv",
        "train_audio": ".",
        "test": "test.tsv",
        "test_audio": ".",
        "audio": "audio",
        "valid_rows": 3,
        "settings": {**{k: v for k, v in TINY.items() if k != "progress"}, "steps": 5},
        **more,
    }
    return Recipe(name="tones", task="speech", dataset="tones", description="x", section=section)


def test_a_recipe_is_run_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones = recipe(tmp_path, monkeypatch, beam_size=2)
    outcome = reproduce(tones, 1)
    assert [row["model"] for row in outcome["results"]] == [
        "recurra", "recurra, beam of 2", "commonest transcript",
    ]  # fmt: skip
    assert outcome["data"].startswith("tones, 4 recordings of test, ")
    assert outcome["training"]["steps"] == 5
    assert outcome["notes"][0].startswith("7 recordings")
    assert (run_folder(tones, 1) / "config.json").is_file()
    again = reproduce(tones, 1)
    assert again["results"][0]["metrics"]["cer"] == outcome["results"][0]["metrics"]["cer"]
    assert again["training"]["best_step"] == outcome["training"]["best_step"]


def test_a_streaming_network_is_also_scored_as_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tones = recipe(tmp_path, monkeypatch)
    more = {"streaming": True, "look_ahead_ms": 90, "steps": 60}
    settings = {**tones.section["settings"], **more}
    outcome = reproduce(recipe(tmp_path, monkeypatch, settings=settings), 1)
    whole, streamed = outcome["results"][:2]
    assert streamed["model"] == "recurra, streamed in pieces of 100 ms"
    for name in ("wer", "cer"):
        assert streamed["metrics"][name] == whole["metrics"][name]
    assert streamed["metrics"]["rtf"] > 0
    told = (
        "waits for 90 ms of the future, for the rest of its step of 30 ms and of a window of 25 ms"
    )
    assert told in outcome["notes"][-1]


def test_a_recipe_may_join_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = {
        "speaker": "text",
        "train": 2,
        "valid": 1,
        "test": 3,
        "words": [2, 2],
        "pause_s": [0.1, 0.1],
    }
    where = {"text": ["AB", "B"]}
    tones = recipe(tmp_path, monkeypatch, joined=joined, valid_where=where, valid_rows=0)
    train, valid = training_rows(read_section(tones), tmp_path / "speech")
    assert {row.text for row in valid} == {"AB", "B"}
    assert not {"AB", "B"} & {row.text for row in train}
    outcome = reproduce(tones, 1)
    rows = {row["model"]: row["metrics"] for row in outcome["results"]}
    assert list(rows) == ["recurra", "recurra, joined recordings", "commonest transcript"]
    assert outcome["notes"][0].startswith(f"{len(train) + 2} recordings")
    assert f"validated on {len(valid) + 1} recordings" in outcome["notes"][2]
    assert any(note.startswith("joined: ") for note in outcome["notes"])
    with pytest.raises(DataError, match="10 rows, and 0 are kept to choose the weights by"):
        training_rows(
            read_section(recipe(tmp_path, monkeypatch, valid_rows=0)), tmp_path / "speech"
        )


def test_a_wrong_section_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"recipe 'tones', \[speech\]: .*'valid_row'"):
        reproduce(recipe(tmp_path, monkeypatch, valid_row=3), 0)


@pytest.mark.parametrize("name", ["an4", "an4-streaming"])
def test_an4_is_split_as_others_have_split_it(name: str, data_file: Callable[[str], Path]) -> None:
    """The 100 development recordings of ESPnet have 591 words and 1,915 characters."""
    data_file("speech/an4/an4-train.tsv")
    an4 = find_recipe(name)
    train, valid = training_rows(read_section(an4), catalogue.locate("an4"))
    assert (len(train), len(valid)) == (848, 100)
    assert sum(len(row.text.split()) for row in valid) == 591
    assert sum(len(row.text) for row in valid) == 1915
    assert not {row.audio for row in valid} & {row.audio for row in train}
    assert valid[0].audio == "fash/an251-fash-b.flac"


def test_the_settings_of_the_recipes_are_those_of_transcribers() -> None:
    made = {}
    for name in list_recipes():
        if (found := find_recipe(name)).task == "speech":
            made[name] = Transcriber.from_settings(read_section(found).settings).settings
    assert made.keys() == {"an4", "an4-streaming", "spoken-digits"}
    streaming = made["an4-streaming"]
    assert streaming.streaming
    assert not made["an4"].streaming
    assert 0 < streaming.steps_ahead * streaming.stacked * 10 <= 320  # ms
