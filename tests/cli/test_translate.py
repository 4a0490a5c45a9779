"""`recurra translate` from outside: what it prints where, what it writes, and how it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from tests.cli.conftest import Recurra, leave
from tests.tasks.translation.phrases import TINY, phrases

from recurra import Translator

SETTINGS = [
    word
    for name, value in TINY.items()
    for word in ("--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}")
]
SOURCES, TARGETS = phrases(150)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translate")
    files = (
        "--source",
        write(folder / "a.en", SOURCES),
        "--target",
        write(folder / "a.de", TARGETS),
    )
    assert (
        leave("translate", "train", *files, *SETTINGS, "--steps", "80", "--out", folder / "run")
        == 0
    )
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "run", tmp_path / "run"))


def test_train_reads_a_table_and_says_what_it_found(recurra: Recurra, tmp_path: Path) -> None:
    pl.DataFrame({"en": [None, *SOURCES[:20]], "de": ["x", *TARGETS[:20]]}).write_csv(
        tmp_path / "t.tsv", separator="\t"
    )
    done = recurra(
        "translate", "train", "--table", tmp_path / "t.tsv", "--source", "en", "--target", "de",
        *SETTINGS, "--steps", "2", "--cell", "lstm", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "20 pairs of column 'en' and column 'de'"
    assert lines[1] == "1 pair with an empty side left out: line 1 of column 'en'"
    assert lines[-2].startswith("trained 2 steps in ")
    assert lines[-1] == f"saved to {tmp_path / 'run'}"
    assert Translator.load(tmp_path / "run").settings.cell == "lstm"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--target", "no.de"], 1, "cannot read no.de"),
        (["--cell", "grru"], 2, "unknown cell 'grru'"),
        (["--tokens", "words"], 2, "setting tokens='words'"),
        (["--valid-source", "v.en"], 2, "--valid-source and --valid-target go together"),
    ],
)
def test_train_refuses(
    recurra: Recurra, folder: Path, tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    files = ("--source", folder / "a.en", "--target", folder / "a.de")
    done = recurra("translate", "train", *files, *words, "--out", tmp_path / "r")
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert not (tmp_path / "r").exists()


def test_evaluate_prints_scores_signatures_and_sentences(
    recurra: Recurra, folder: Path, run: Path
) -> None:
    files = ("--source", folder / "a.en", "--target", folder / "a.de")
    done = recurra("translate", "evaluate", run, *files, "--beam", "2")
    assert done.status == 0, done.err
    assert "recurra        measured" in done.out
    assert "source copied  measured" in done.out
    assert "note: BLEU nrefs:1|" in done.out
    assert "worst, by chrF of the sentence:" in done.out
    kept = json.loads((run / "metrics.json").read_text())
    printed = json.loads(recurra("translate", "evaluate", run, *files, "--json").out)
    assert set(printed["results"][0]["metrics"]) == {"bleu", "chrf"}
    assert len(kept["details"]["worst"]) == 5
    assert recurra("report", run).status == 0


def test_predict_writes_a_line_for_each_line(
    recurra: Recurra, run: Path, folder: Path, tmp_path: Path
) -> None:
    lines = recurra("translate", "predict", run, folder / "a.en").out.splitlines()
    assert lines == Translator.load(run).translate(SOURCES)
    typed = recurra("translate", "predict", run, stdin=f"{SOURCES[0]}\n\n{SOURCES[1]}\n".encode())
    assert typed.out.splitlines() == [lines[0], "", lines[1]]
    assert recurra("translate", "predict", run, "--text", SOURCES[0]).out == f"{lines[0]}\n"
    both = recurra("translate", "predict", run, "--text", SOURCES[0], "--count", "2").out
    assert both.splitlines()[0].split("\t")[1] == lines[0]
    assert len(both.splitlines()) == 2
    told = json.loads(recurra("translate", "predict", run, "--text", SOURCES[0], "--json").out)
    first = told["predictions"][0]["translations"][0]
    assert first["text"] == lines[0]
    assert [piece.strip() for piece, _, _ in first["alignment"]] == lines[0].split()
    out = tmp_path / "t.csv"
    assert recurra("translate", "predict", run, folder / "a.en", "--out", out).out == ""
    assert pl.read_csv(out)["translation"].to_list() == lines
    assert recurra("translate", "predict", run, folder / "a.en", "--out", out).status == 1


def test_predict_refuses_what_would_be_ignored(recurra: Recurra, run: Path, folder: Path) -> None:
    done = recurra("translate", "predict", run, folder / "a.en", "--text", "dog")
    assert (done.status, done.out) == (2, "")
    assert f"--text and the file {folder / 'a.en'} are both given" in done.err
    done = recurra("translate", "predict", run, "--text", "dog", "--temperature", 1, "--count", 2)
    assert (done.status, done.out) == (2, "")
    assert "--count 2 has no meaning with --temperature, which draws one translation" in done.err


def test_predict_takes_prefixes_ensembles_draws_and_long_lines(recurra: Recurra, run: Path) -> None:
    begun = recurra("translate", "predict", run, "--text", SOURCES[0], "--prefix", "viele vogel")
    assert begun.out.startswith("viele vogel ")
    alone = recurra("translate", "predict", run, "--text", SOURCES[0])
    both = recurra("translate", "predict", run, "--text", SOURCES[0], "--with", run)
    assert both.out == alone.out
    drawn = [
        recurra(
            "translate", "predict", run, "--text", "dog", "--temperature", "9", "--seed", seed
        ).out
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    long = recurra(
        "translate", "predict", run, "--beam", "1", stdin=(" ".join(SOURCES[:25])).encode()
    )
    assert "warning: line 1 has 125 tokens, and training saw at most 100" in long.err
    assert len(long.out.splitlines()) == 1


def test_stream_answers_lines_and_goes_on_after_bad_ones(recurra: Recurra, run: Path) -> None:
    texts = SOURCES[:2]
    done = recurra("translate", "stream", run, stdin=("\n".join(texts)).encode())
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert [one["translation"] for one in answers] == Translator.load(run).translate(texts)
    grown = recurra("translate", "stream", run, "--partial", "--beam", "1", stdin=texts[0].encode())
    told = [json.loads(line) for line in grown.out.splitlines()]
    assert len(told) == 6
    assert told[-2]["partial"] == told[-1]["translation"]
    events = f'{{"en": "{texts[0]}", "id": 7}}\n{{"id": 8}}\n'
    keyed = recurra("translate", "stream", run, "--text", "en", stdin=events.encode())
    first, second = map(json.loads, keyed.out.splitlines())
    assert (first["id"], first["translation"]) == (7, answers[0]["translation"])
    assert second["error"].startswith("the event has no text under 'en'")
    assert keyed.status == 1
