"""Tables of texts and labels: what is read, what is refused, and which row is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recurra.errors import DataError
from recurra.tasks.sentiment.examples import (
    Examples,
    check_labels,
    count_copies,
    describe_balance,
    fingerprints,
    label_order,
    read_examples,
    split_examples,
)


def test_every_kind_of_file_gives_the_same(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1, 2], "review": ["so 'good'", 'NA "x'], "stars": [5, 1]})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    rows = "".join(json.dumps(row) + "\n" for row in frame.to_dicts())
    (tmp_path / "a.jsonl").write_text(rows)
    (tmp_path / "a.tsv").write_text("id\treview\tstars\n1\tso 'good'\t5\n2\tNA \"x\t1\n")
    for name in ("a.csv", "a.parquet", "a.jsonl", "a.tsv"):
        found = read_examples(tmp_path / name, "review", "stars")
        assert found.texts == ("so 'good'", 'NA "x')
        assert found.labels == ("5", "1")
    assert read_examples(frame, "review", "stars").labels == ("5", "1")
    named = pl.DataFrame({"name": ["x"], "review": ["y"], "stars": [None]}).to_pandas()
    with pytest.raises(DataError, match=r"^the table, row 1: no label in column 'stars'"):
        read_examples(named, "review", "stars")
    floats = frame.with_columns(pl.col("stars").cast(pl.Float64))
    assert read_examples(floats, "review", "stars").labels == ("5", "1")


def test_rows_without_text_or_label_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\na,x\n" ",x\nc,\n,y\n')
    with pytest.raises(DataError, match=r"a\.csv, rows 2, 4: no text in column 'text'"):
        read_examples(path, "text", "label")
    path.write_text("text,label\na,x\nb,\n")
    with pytest.raises(DataError, match=r"a\.csv, row 2: no label in column 'label'"):
        read_examples(path, "text", "label")
    with pytest.raises(DataError, match="unknown column 'txt'; did you mean 'text'"):
        read_examples(path, "txt", "label")


def test_a_wrong_encoding_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nfine,x\ncafé,y\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 text: byte 0xe9 at offset 21, line 3"):
        read_examples(path, "text", "label")


def test_labels_that_were_not_trained_are_named_with_their_rows() -> None:
    given = Examples(("a", "b", "c"), ("pos", "neg", "negg"), "t.csv")
    with pytest.raises(DataError, match=r"t\.csv, row 3: unknown label 'negg'; did you mean 'neg'"):
        check_labels(given, ["neg", "pos"])


def test_copies_are_found_up_to_case_and_blanks() -> None:
    texts = ["A good  film", "a good film\n", "another"]
    assert count_copies(texts) == 1
    assert fingerprints(texts)[0] == fingerprints(texts)[1] != fingerprints(texts)[2]


def test_a_split_keeps_the_balance_and_copies_together() -> None:
    texts = tuple(f"text {k // 2}" for k in range(400))
    labels = tuple("ab"[k % 8 == 0 or k % 8 == 1] for k in range(400))
    train, valid = split_examples(Examples(texts, labels), 0.2, seed=3)
    assert not set(train.texts) & set(valid.texts)
    assert len(train.texts) + len(valid.texts) == 400
    assert valid.balance == {"a": 60, "b": 20}
    again = split_examples(Examples(texts, labels), 0.2, seed=3)[1]
    assert again == valid
    assert split_examples(Examples(texts, labels), 0.2, seed=4)[1] != valid


def test_a_label_with_one_text_cannot_be_split() -> None:
    with pytest.raises(DataError, match="label 'b' has 1 distinct text; expected at least 2"):
        split_examples(Examples(("x", "y", "z", "Z"), ("a", "a", "b", "b")), 0.5, 0)


def test_labels_are_in_order_and_their_shares_told() -> None:
    assert label_order(["10", "9", "x", "9"]) == ["9", "10", "x"]
    assert describe_balance({"a": 1, "b": 3}) == "b 75.0 % (3), a 25.0 % (1)"
    assert np.unique(fingerprints(["a", "b"])).size == 2
