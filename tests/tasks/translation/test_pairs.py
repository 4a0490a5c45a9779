from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from recurra.errors import DataError
from recurra.tasks.translation.pairs import read_pair_table, read_pairs, split_lines


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\r\ntwo\u2028halves\n\tthree  words \n", newline="")
    with gzip.open(tmp_path / "a.de.gz", "wt", encoding="utf-8") as file:
        file.write("eins\nzwei\ndrei")
    pairs = read_pairs(tmp_path / "a.en", tmp_path / "a.de.gz")
    assert pairs.source == ("one", "two halves", "three words")
    assert pairs.target == ("eins", "zwei", "drei")
    assert pairs.notes == (
        f"control characters became blanks in lines 2, 3 of {tmp_path / 'a.en'}",
    )


def test_different_numbers_of_lines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\ntwo\nthree\n")
    (tmp_path / "a.de").write_text("eins\nzwei\n")
    with pytest.raises(DataError, match=r"a\.en has 3 lines and .*a\.de has 2; expected"):
        read_pairs(tmp_path / "a.en", tmp_path / "a.de")


def test_empty_sides_are_left_out_and_named_by_line() -> None:
    source = ["a", "", "c", "d", *["x"] * 6]
    target = ["a", "b", " \t ", "d", *[""] * 6]
    pairs = read_pairs(source, target)
    assert pairs.source == ("a", "d")
    assert pairs.notes[-1] == (
        "8 pairs with an empty side left out: line 2 of the source, lines 3, 5, 6, 7, 8 and 2 more "
        "of the target"
    )
    with pytest.raises(DataError, match="the source and the target have no pair of sentences"):
        read_pairs(["", "a"], ["b", ""])


def test_a_table_of_two_columns(tmp_path: Path) -> None:
    pl.DataFrame({"en": ["one", None], "de": ["eins", "zwei"]}).write_csv(tmp_path / "t.csv")
    pairs = read_pair_table(tmp_path / "t.csv", "en", "de")
    assert (pairs.source, pairs.target) == (("one",), ("eins",))
    assert pairs.notes == ("1 pair with an empty side left out: line 2 of column 'en'",)
    with pytest.raises(DataError, match="unknown column 'fr'"):
        read_pair_table(tmp_path / "t.csv", "en", "fr")


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="the target holds a int at 2; expected texts"):
        read_pairs(["a", "b"], ["a", 3])


def test_only_a_line_feed_ends_a_line() -> None:
    assert split_lines("a\x0bb\x85c\r\nd\n\n") == ["a\x0bb\x85c", "d", ""]
    assert split_lines("") == []
