"""`recurra sentiment` from outside: what it prints where, what it writes, and how it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from tests.cli.conftest import Recurra, leave
from tests.tasks.sentiment.reviews import reviews

from recurra import SentimentClassifier

TINY = ("--set", "hidden_size=12", "--set", "embedding_size=12", "--set", "buckets=256")


def write(path: Path, count: int, seed: int = 0) -> Path:
    made = reviews(count, seed)
    pl.DataFrame({"review": made.texts, "stars": made.labels}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentiment")
    table = write(folder / "reviews.csv", 120)
    words = ("--text", "review", "--label", "stars", "--steps", "40")
    assert leave("sentiment", "train", table, *words, *TINY, "--out", folder / "run") == 0
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


def test_train_says_what_it_found_and_writes_the_run(
    recurra: Recurra, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "run"
    words = ("--text", "review", "--label", "stars", "--steps", "3", "--cell", "lstm")
    done = recurra("sentiment", "train", folder / "reviews.csv", *words, *TINY, "--out", out)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "120 texts, 2 labels: neg 50.0 % (60), pos 50.0 % (60)"
    assert lines[-2].startswith("trained 3 steps in ")
    assert lines[-1] == f"saved to {out}"
    assert SentimentClassifier.load(out).settings.cell == "lstm"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--label", "star"], 1, "unknown column 'star'; did you mean 'stars'"),
        (["--cell", "grru"], 2, "unknown cell 'grru'"),
        (["--set", "hiddensize=3"], 2, "did you mean 'hidden_size'"),
        (["--valid", "no.csv"], 1, "no.csv does not exist"),
    ],
)
def test_train_refuses(
    recurra: Recurra, folder: Path, tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    table = folder / "reviews.csv"
    out = tmp_path / "r"
    done = recurra(
        "sentiment", "train", table, "--text", "review", "--label", "stars", "--steps", "3",
        *words, "--out", out,
    )  # fmt: skip
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert not out.exists()


def test_evaluate_prints_a_row_for_each_model_and_keeps_a_report(
    recurra: Recurra, run: Path, tmp_path: Path
) -> None:
    test = write(tmp_path / "test.csv", 30, seed=7)
    done = recurra("sentiment", "evaluate", run, test, "--min-confidence", "0.6")
    assert done.status == 0, done.err
    names = [line.partition("  ")[0] for line in done.out.splitlines()[1:5]]
    assert names == ["majority", "naive_bayes", "recurra", "recurra, at least 0.6 sure"]
    assert "of 30 texts are in the training table too" in done.out
    assert recurra("report", run).status == 0
    page = (run / "report.html").read_text()
    assert "Orange words speak for the label given" in page
    assert '<span class="s5">' in page
    done = recurra("sentiment", "evaluate", run, test, "--json")
    assert set(json.loads(done.out)) == {
        "task", "data", "results", "seconds", "machine", "commit",
    }  # fmt: skip


def test_predict_prints_a_line_for_each_line(recurra: Recurra, folder: Path, run: Path) -> None:
    done = recurra("sentiment", "predict", run, stdin=b"a good film\nso bad\n")
    assert (done.status, done.out) == (0, "pos\nneg\n"), done.err
    done = recurra("sentiment", "predict", run, "--explain", stdin=b"a good film\n\n")
    assert done.status == 0, done.err
    first, empty = done.out.splitlines()
    assert empty.split("\t")[2] == ""
    label, confidence, words = first.split("\t")
    assert (label, float(confidence) > 0.5) == ("pos", True)
    assert "good[+" in words
    done = recurra("sentiment", "predict", run, "--min-confidence", "1", stdin=b"the film\n")
    assert done.out == "?\n"
    done = recurra("sentiment", "predict", run, "--explain", "--json", stdin=b"a good film\n")
    (one,) = json.loads(done.out)["predictions"]
    assert max(one["words"], key=lambda word: word["value"])["word"] == "good"
    done = recurra("sentiment", "predict", run, folder / "reviews.csv")
    assert len(done.out.splitlines()) == 120


def test_predict_writes_a_table(recurra: Recurra, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    done = recurra("sentiment", "predict", run, "--out", out, stdin=b"a good film\nso bad\n")
    assert (done.status, done.out) == (0, ""), done.err
    frame = pl.read_csv(out)
    assert frame.columns == ["review", "label", "confidence", "p_neg", "p_pos"]
    assert frame["label"].to_list() == ["pos", "neg"]
    again = recurra("sentiment", "predict", run, "--out", out, stdin=b"x\n")
    assert (again.status, "Pass --force" in again.err) == (1, True)


def test_predict_names_the_line_of_bad_bytes(recurra: Recurra, run: Path) -> None:
    done = recurra("sentiment", "predict", run, stdin=b"fine\ncaf\xe9\n")
    assert done.status == 1
    assert "byte 0xe9 at offset 8, line 2" in done.err


def test_stream_answers_each_line(recurra: Recurra, run: Path) -> None:
    done = recurra("sentiment", "stream", run, "--every", "word", stdin=b"a good film\n\nso bad\n")
    assert done.status == 0, done.err
    first, second = map(json.loads, done.out.splitlines())
    assert (first["label"], second["label"]) == ("pos", "neg")
    assert [one["text"] for one in first["running"]] == ["a", "good", "film"]
    lines = b'{"u": 1, "t": "so"}\n{"u": 2, "t": "x"}\n{"u": 1, "t": "good"}\n{"u": 1}\n'
    done = recurra("sentiment", "stream", run, "--text", "t", "--key", "u", stdin=lines)
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert [one.get("words") for one in answers] == [1, 1, 2, None]
    assert (done.status, answers[3]["line"]) == (1, 4)
    done = recurra("sentiment", "stream", run, "--key", "u")
    assert (done.status, "say with --text" in done.err) == (2, True)


def test_words_of_tables_make_a_language_model_to_begin_with(
    recurra: Recurra, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "two.csv"
    pl.DataFrame({"review": ["It's GOOD!! Very", "..."]}).write_csv(table)
    done = recurra("sentiment", "words", table, "--text", "review")
    assert (done.status, done.out) == (0, "it's good !! very\n...\n")
    words = recurra("sentiment", "words", folder / "reviews.csv", "--text", "review").out
    (tmp_path / "words.txt").write_text(words)
    small = ("--set", "hidden_size=8", "--set", "batch_size=4", "--steps", "2")
    language = tmp_path / "language"
    done = recurra(
        "lm", "train", tmp_path / "words.txt", "--tokens", "word", *small, "--out", language
    )
    assert done.status == 0, done.err
    begin = ("--text", "review", "--label", "stars", "--steps", "3", "--pretrain", language)
    out = tmp_path / "run"
    done = recurra("sentiment", "train", folder / "reviews.csv", *begin, "--out", out)
    assert done.status == 0, done.err
    assert f"begins with the language model {language}, which knows" in done.out
    assert "2 × lstm of 8 units" in done.out
    assert SentimentClassifier.load(out).settings.cell == "lstm"
    begin = ("--text", "review", "--label", "stars", "--steps", "3", "--pretrain", folder / "run")
    done = recurra("sentiment", "train", folder / "reviews.csv", *begin, "--out", tmp_path / "b")
    assert done.status == 1
    assert "holds a sentiment run; expected a language run" in done.err
