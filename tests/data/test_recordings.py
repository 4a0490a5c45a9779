from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recurra.data.recordings import given_recordings, read_recordings
from recurra.errors import DataError


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", 'text\tfile\tx\nsay "hi\ta.wav\t1\r\n GO  ON\tb.wav\t2\n'),
        ("a.csv", 'file,text,x\na.wav,"say ""hi",1\nb.wav,GO ON,2\n'),
        ("b.csv", 'file;text\na.wav;"say ""hi"\nb.wav;GO ON\n'),
        ("a.jsonl", '{"file": "a.wav", "text": "say \\"hi"}\n\n{"file": "b.wav", "text": "GO ON"}'),
    ],
)
def test_tables_of_all_kinds_say_the_same(tmp_path: Path, name: str, content: str) -> None:
    rows = read_recordings(write(tmp_path, name, content), "file", "text")
    found = [(row.row, row.audio, row.text) for row in rows]
    assert found == [(1, "a.wav", 'say "hi'), (2, "b.wav", "GO ON")]


def test_transcripts_are_composed_and_have_single_blanks(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "audio\ttext\na.wav\t Cafe\u0301 \u00a0 noir\n")
    assert read_recordings(path, "audio", "text")[0].text == "Café noir"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", r"is no table of recordings by its name; expected \.csv, \.tsv, \.jsonl"),
        ("a.tsv", "file\ttext\n", "has no rows"),
        ("a.tsv", "fil\ttext\na\tb\n", "unknown column 'file'; did you mean 'fil'"),
        ("a.tsv", "file\ttext\na\n", "line 2 has 1 fields, but the header has 2"),
        ("a.tsv", "file\ttext\n \tb\n", "row 1 of .* has no file name in 'file'"),
        ("a.csv", 'file,text\na,"b\n', "line 2: unexpected end of data"),
        ("a.csv", "file,text,file\na,b,c\n", "two columns of one name"),
        ("a.jsonl", '{"file": "a"', "line 1 is not JSON"),
        ("a.jsonl", "[1]", "line 1 holds no object"),
        ("a.jsonl", '{"file": "a", "text": 3}', "row 1 of .*unknown column 'text'"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_recordings(write(tmp_path, name, content), "file", "text")


def test_pairs_are_checked() -> None:
    samples = np.zeros(5)
    rows = given_recordings([(samples, "A  B"), (Path("x/a.wav"), "C")])
    assert (rows[0].name, rows[0].text, rows[1].name) == ("5 samples", "A B", "x/a.wav")
    assert rows[0].audio.dtype == np.float32  # type: ignore[union-attr]
    with pytest.raises(DataError, match="recording 2 is str; expected"):
        given_recordings([(samples, "A"), "b.wav"])
    with pytest.raises(DataError, match=r"samples of shape \(2, 2\) and dtype float64"):
        given_recordings([(np.zeros((2, 2)), "A")])
    with pytest.raises(DataError, match="dtype int16; expected"):
        given_recordings([(np.zeros(4, np.int16), "A")])
    with pytest.raises(DataError, match="no recordings are given"):
        given_recordings([])
