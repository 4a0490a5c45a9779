"""Reading tables: every source gives the same table; broken files are named with the place."""

from __future__ import annotations

import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import narwhals as nw
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.tables import check_columns, read_table
from recurra.errors import DataError, MissingExtraError

TEXT = "day,sales,shop\n2020-01-01,1,A\n2020-01-02,,NA\n2020-01-03,2.5,007\n"


def write(folder: Path, content: bytes | str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.read_csv(io.StringIO(TEXT), null_values="NA").write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TEXT.encode()),
        ("a.CSV", b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()),
        ("b.csv", TEXT.replace(",", ";").encode().rstrip()),
        ("c.csv", TEXT.replace("2.5", '" 2.5 "').replace(",", "\t").encode() + b"\n\n"),
        ("d.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("e.csv.xz", lzma.compress(TEXT.encode())),
        ("f.parquet", parquet()),
    ],
)
def test_every_kind_of_file_gives_the_same_table(tmp_path: Path, name: str, content: bytes) -> None:
    table = read_table(str(write(tmp_path, content, name)))
    assert table.columns == ["day", "sales", "shop"]
    assert table["sales"].to_list() == [1.0, None, 2.5]
    assert table["shop"].to_list() == ["A", None, "007"]


def test_frames_pass_through_pandas_and_polars() -> None:
    polars = pl.DataFrame({"a": [1, 2]})
    for frame in (polars, polars.lazy(), pd.DataFrame({"a": [1, 2]}), nw.from_native(polars)):
        assert read_table(frame)["a"].to_list() == [1, 2]


def test_text_columns_stay_as_written(tmp_path: Path) -> None:
    path = write(tmp_path, "shop,y\n007,1\n7,2\nNA,3\n")
    assert read_table(path, text=["shop"])["shop"].to_list() == ["007", "7", "NA"]
    assert read_table(path)["y"].to_list() == [1, 2, 3]


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(lambda s: f"x{s}")


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8), st.booleans())
def test_quoted_fields_survive(rows: list[tuple[str, str]], breaks: bool) -> None:
    import csv
    import tempfile

    if breaks:
        rows = [(first + '\n,"z', second) for first, second in rows]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([("a", "b"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        table = read_table(write(Path(folder), buffer.getvalue()), text=["a", "b"])
    assert list(zip(table["a"].to_list(), table["b"].to_list(), strict=True)) == rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["empty", "header"]),
        (" \n", ["empty"]),
        ("a,b\n", ["no rows"]),
        ("a,b\n1,2\n3\n", ["line 3 (row 2) has 1 field", "header has 2"]),
        ("a,b\n1,2\n\n3,4\n", ["line 3 (row 2)"]),
        ('a,b\n"x\ny",2\n3,4,5\n', ["line 4 (row 2) has 3 field", "','"]),
        ("a,b,a\n1,2,3\n", ["two columns named 'a'", "columns 1 and 3"]),
        ('a,b\n1,"2\n3,4\n', ["quote that is never closed"]),
        (b"a,b\n1,\xff\n", ["byte 0xff at offset 6, line 2", "UTF-8"]),
        (b"a,b\n1,\x00\n", ["byte 0x00 at offset 6"]),
    ],
)
def test_broken_csv_is_named_with_the_place(
    tmp_path: Path, content: bytes | str, words: list[str]
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as error:
        read_table(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.csv.gz", b"plain", "does not decompress"),
        ("a.csv.gz", gzip.compress(TEXT.encode(), mtime=0)[:-9], "does not decompress"),
        (
            "a.csv.gz",
            gzip.compress(TEXT.encode(), mtime=0)[:20] + b"\x00" * 30,
            "does not decompress",
        ),
        ("a.csv.xz", lzma.compress(TEXT.encode())[:-9], "does not decompress"),
        ("a.parquet", b"PAR1 but not really", "not a Parquet file"),
        ("a.parquet", parquet()[:-30], "not a Parquet file"),
        ("a.xlsx", b"x", ".parquet"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, word: str) -> None:
    with pytest.raises(DataError, match=word):
        read_table(write(tmp_path, content, name))


def test_missing_file_folder_and_other_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path / "folder.csv")
    for thing in ({"a": [1]}, [1, 2], None, 3):
        with pytest.raises(DataError, match=f"a {type(thing).__name__} is not a table"):
            read_table(thing)
    with pytest.raises(DataError, match="frame cannot be used"):
        read_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_unknown_columns_name_the_nearest_and_the_index() -> None:
    frame = pd.DataFrame({"sales": [1]}, index=pd.Index(["2020-01-01"], name="day"))
    with pytest.raises(DataError, match="did you mean 'sales'"):
        check_columns(read_table(frame), ["sale"])
    with pytest.raises(DataError, match=r"'day' is the frame's index.*reset_index"):
        check_columns(read_table(frame), ["day"])


@pytest.mark.parametrize("package", ["narwhals", "polars"])
def test_a_missing_package_names_the_extra(monkeypatch: Any, package: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*recurra\[forecasting\]"):
        read_table(pd.DataFrame({"a": [1]}))


def test_tabs_and_json_lines_give_the_same_table(tmp_path: Path) -> None:
    rows = [{"day": "a", "n": 1, "x": None}, {"day": '"b', "n": 2, "x": 2.5}]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    for path in (
        write(tmp_path, b'\xef\xbb\xbfday\tn\tx\r\na\t1\t\r\n"b\t2\t2.5\r\n', "a.tsv"),
        write(tmp_path, gzip.compress(b'day\tn\tx\na\t1\t\n"b\t2\t2.5', mtime=0), "a.tsv.gz"),
        write(tmp_path, lines, "a.jsonl"),
        write(tmp_path, lzma.compress(lines.encode()), "a.jsonl.xz"),
    ):
        frame = read_table(path).to_native()
        assert frame.to_dicts() == rows, path
        assert frame.schema["n"] == pl.Int64
    texts = read_table(tmp_path / "a.jsonl", text=("n",))
    assert texts["n"].to_list() == ["1", "2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1', "line 2 is not JSON"),
        ("[1]", "line 2 is no object with keys"),
        ('{"b": 1}', "line 2 has the keys b; expected those of the first line, a"),
        ('{"a": "\\ud800"}', "line 2 is not JSON .*surrogates not allowed"),
        ("[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_a_bad_line_of_json_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, f'{{"a": 1}}\n{line}\n', "a.jsonl")
    with pytest.raises(DataError, match=message):
        read_table(path)
