"""`recurra data`: what is here is told apart from what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recurra.cli.main import main
from recurra.data import catalogue
from recurra.data.datasets import DATASETS


@pytest.fixture(autouse=True)
def _empty_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RECURRA_DATA", raising=False)
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        main(words)
    return int(leaving.value.code or 0)


def test_list_names_every_set_and_where_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stocks = tmp_path / "cache" / "forecasting" / "stocks" / "stocks.csv"
    stocks.parent.mkdir(parents=True)
    stocks.write_text("symbol\n")
    assert run("data", "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["datasets"]}
    assert set(rows) == set(DATASETS)
    assert (rows["stocks"]["here"], rows["stocks"]["folder"]) == ("cache", str(stocks.parent))
    assert rows["ett"]["here"] is None
    assert run("data", "list") == 0
    told = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert (told["stocks"], told["ett"]) == ("cache", "no")


def test_get_prints_the_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def get(name: str, out: Path | None) -> tuple[Path, list[str]]:
        asked.append((name, out))
        return tmp_path / "there", ["stocks.csv"]

    monkeypatch.setattr(catalogue, "get", get)
    assert run("data", "get", "stocks", "--out", str(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert asked == [("stocks", tmp_path)]
    assert out == f"{tmp_path / 'there'}\n"
    assert "1 of 1 files downloaded" in err
    assert DATASETS["stocks"].citation in err


def test_get_of_an_unknown_set_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "get", "stoks") == 1
    assert "unknown data set 'stoks'; did you mean 'stocks'?" in capsys.readouterr().err


def test_get_of_a_set_without_download_says_where_it_comes_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("data", "get", "m3") == 1
    err = capsys.readouterr().err
    assert "cannot be downloaded" in err
    assert DATASETS["m3"].page in err
