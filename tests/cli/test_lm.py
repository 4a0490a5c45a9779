"""`recurra lm` from outside: what it prints where, what it writes, and how it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import Recurra, leave

from recurra import LanguageModel

TEXT = "the cat sat on the mat\nthe dog saw the cat run\n\n" * 30
TINY = ("--steps", "12", "--set", "hidden_size=12", "--set", "batch_size=3", "--set", "k1=8")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lm") / "book.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def lm_run(book: Path) -> Path:
    run = book.parent / "run"
    assert leave("lm", "train", book, *TINY, "--out", run) == 0
    return run


def test_train_says_what_it_found_and_writes_the_run(
    recurra: Recurra, book: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "run"
    done = recurra("lm", "train", book, *TINY, "--out", out)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "1440 tokens (char), vocabulary of 17"
    assert lines[1].startswith("1 × ")
    assert lines[-2].startswith("trained 12 steps in ")
    assert lines[-2].endswith(" nats a token")
    assert lines[-1] == f"saved to {out}"
    assert LanguageModel.load(out).settings.hidden_size == 12


def test_train_takes_several_texts_and_options(
    recurra: Recurra, book: Path, tmp_path: Path
) -> None:
    other = tmp_path / "b.txt"
    other.write_text(TEXT[:500])
    words = ["--tokens", "word", "--vocab-size", "9", "--cell", "gru", "--seed", "4"]
    done = recurra(
        "lm", "train", book, other, *TINY, *words, "--valid", other, "--out", tmp_path / "r",
        "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert (found["task"], found["steps"]) == ("language", 12)
    settings = LanguageModel.load(tmp_path / "r").settings
    assert (settings.tokens, settings.cell, settings.seed) == ("word", "gru", 4)
    assert LanguageModel.load(tmp_path / "r").fitted.tokenizer.vocab_size == 9


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--tokens", "chars"], 2, "tokens='chars': expected 'char'"),
        (["--preset", "awd-lst"], 2, "unknown preset 'awd-lst'; did you mean 'awd-lstm'"),
        (["--set", "hiddensize=3"], 2, "did you mean 'hidden_size'"),
        (["--cell", "lstmm"], 2, "cell='lstmm'"),
        (["--valid", "no.txt"], 1, "no.txt is not there"),
    ],
)
def test_train_refuses(
    recurra: Recurra, book: Path, tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    done = recurra("lm", "train", book, *TINY, *words, "--out", tmp_path / "r")
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert not (tmp_path / "r").exists()


def test_evaluate_prints_a_row_for_each_model(
    recurra: Recurra, lm_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(lm_run, run)
    text = tmp_path / "t.txt"
    text.write_text("the dog sat\n" * 20)
    done = recurra("lm", "evaluate", run, text, "--dynamic", "--cache", "--window", "32")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == [
        "model", "source", "perplexity", "bits_per_char", "bits_per_byte", "nats_per_char",
    ]  # fmt: skip
    names = [line.partition("  ")[0] for line in lines[1:7]]
    assert names == [
        "uniform",
        "unigram",
        "recurra",
        "recurra, windows of 32",
        "recurra, dynamic evaluation",
        "recurra, with cache",
    ]
    assert lines[-1] == "note: 240 tokens (char), all of them counted"
    kept = json.loads((run / "metrics.json").read_text())
    assert "".join(kept["details"]["pieces"]) == text.read_text()
    done = recurra("report", run)
    assert done.status == 0, done.err
    assert "Where the model was surprised" in (run / "report.html").read_text()


def test_evaluate_prints_one_json_object(recurra: Recurra, lm_run: Path, book: Path) -> None:
    done = recurra("lm", "evaluate", lm_run, book, "--json")
    outcome = json.loads(done.out)
    assert set(outcome) == {"task", "data", "results", "seconds", "machine", "commit"}
    ours = {row["model"]: row["metrics"] for row in outcome["results"]}["recurra"]
    expected = LanguageModel.load(lm_run).evaluate(book).perplexity
    assert ours["perplexity"] == expected


def test_predict_writes_what_the_model_writes(recurra: Recurra, lm_run: Path) -> None:
    words = ["--prompt", "the ", "--length", "30", "--temperature", "0.5", "--seed", "3"]
    done = recurra("lm", "predict", lm_run, *words)
    model = LanguageModel.load(lm_run)
    assert done.out == model.write("the ", length=30, temperature=0.5, seed=3) + "\n"
    as_json = json.loads(recurra("lm", "predict", lm_run, *words, "--json").out)
    assert as_json["text"] + "\n" == done.out


def test_predict_takes_the_likeliest_text_of_a_beam(recurra: Recurra, lm_run: Path) -> None:
    done = recurra("lm", "predict", lm_run, "--prompt", "the ", "--length", "9", "--beam", "3")
    assert done.out == LanguageModel.load(lm_run).write("the ", length=9, beam_size=3) + "\n"


def test_predict_goes_on_from_a_kept_state(recurra: Recurra, lm_run: Path, tmp_path: Path) -> None:
    state = tmp_path / "s.safetensors"
    greedy = ["--temperature", "0", "--length"]
    whole = recurra("lm", "predict", lm_run, "--prompt", "the c", *greedy, "12").out
    words = ["--prompt", "-", *greedy, "5", "--save-state", state]
    first = recurra("lm", "predict", lm_run, *words, stdin=b"the c")
    then = recurra("lm", "predict", lm_run, "--state", state, *greedy, "7")
    assert first.out[:-1] + then.out == whole
    again = recurra("lm", "predict", lm_run, *greedy, "5", "--save-state", state)
    assert again.status == 1
    assert "is already there. Pass --force" in again.err


def test_predict_refuses_rules_out_of_range(recurra: Recurra, lm_run: Path) -> None:
    done = recurra("lm", "predict", lm_run, "--top-p", "0")
    assert done.status == 2
    assert "top_p=0.0; expected above 0" in done.err
    assert recurra("lm", "predict", lm_run, "--length", "0").status == 2
    done = recurra("lm", "predict", lm_run, "--beam", "2", "--top-k", "3", "--min-p", "0.1")
    assert done.status == 2
    assert "--beam draws nothing, so --top-k, --min-p would do nothing" in done.err


def test_stream_scores_lines_of_text(recurra: Recurra, lm_run: Path) -> None:
    done = recurra("lm", "stream", lm_run, stdin=b"the cat\n\xff\xfe\nthe dog\n")
    assert done.status == 1
    first, bad, last = map(json.loads, done.out.splitlines())
    assert bad == {"error": "not UTF-8: byte 1 of the line cannot be read.", "line": 2}
    assert [first["text"], last["text"]] == ["the cat", "the dog"]
    assert len(last["surprise"]) == 8
    assert "1 line answered with an error" in done.err


def test_stream_scores_a_column_of_json_lines_by_key(recurra: Recurra, lm_run: Path) -> None:
    lines = [{"m": "the cat", "host": h} for h in ("a", "b", "a")]
    raw = "\n".join(map(json.dumps, lines)).encode()
    done = recurra("lm", "stream", lm_run, "--text", "m", "--key", "host", stdin=raw)
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert answers[0]["surprise"] == answers[1]["surprise"] != answers[2]["surprise"]
    assert recurra("lm", "stream", lm_run, "--key", "host").status == 2


def test_another_task_is_named(recurra: Recurra, lm_run: Path) -> None:
    done = recurra("forecast", "predict", lm_run)
    assert done.status == 1
    assert "holds a language run; expected a forecasting run. Use `recurra lm" in done.err
