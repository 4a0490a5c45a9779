from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from recurra.data import textfiles
from recurra.data.textfiles import check_files, read_bytes, read_line_pieces, read_text
from recurra.errors import DataError

TEXT = "naïve café — 日本語\nzweite Zeile\r\nlast, no end"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz"])
def test_a_text_is_the_same_in_any_pieces_and_packing(tmp_path: Path, name: str, size: int) -> None:
    raw = TEXT.encode()
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(raw))
    assert b"".join(read_bytes(tmp_path / name, size)) == raw
    assert "".join(read_text(tmp_path / name, size)) == TEXT
    pieces = list(read_line_pieces(tmp_path / name, size))
    assert "".join(pieces) == TEXT
    assert all(piece.endswith("\n") for piece in pieces[:-1])


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_bad_bytes_are_named_with_their_offset_and_line(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é\n\n".encode() + b"ok\xff\xfe\n rest")
    hint = r"Convert it to UTF-8; a language model may read it as bytes \(--tokens byte\)\."
    with pytest.raises(
        DataError, match=rf"a\.txt is not UTF-8: the bytes ff.* at offset 6, line 3, .*{hint}"
    ):
        list(read_text(path, size))


def test_a_character_that_is_cut_off_at_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc\xe2\x82")
    with pytest.raises(DataError, match="the bytes e2 82 at offset 3, line 1"):
        list(read_text(path))


def test_utf_16_is_recognised_and_a_byte_order_mark_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("hello".encode("utf-16"))
    with pytest.raises(DataError, match="looks like UTF-16"):
        list(read_text(path))
    path.write_bytes(b"\xef\xbb\xbfhello")
    assert list(read_text(path)) == ["hello"]


def test_empty_missing_and_damaged_files(tmp_path: Path) -> None:
    empty, missing, cut = tmp_path / "e.txt", tmp_path / "m.txt", tmp_path / "c.gz"
    empty.touch()
    cut.write_bytes(gzip.compress(b"some text" * 100)[:-9])
    with pytest.raises(DataError, match=r"e\.txt is empty"):
        list(read_text(empty))
    with pytest.raises(DataError, match=r"cannot read .*m\.txt: No such file"):
        list(read_text(missing))
    with pytest.raises(DataError, match=r"c\.gz is damaged"):
        list(read_text(cut))
    cut.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"c\.gz is damaged, or not what its name says"):
        list(read_text(cut))
    with pytest.raises(DataError, match=r"m\.txt is not there"):
        check_files([empty, missing])
    with pytest.raises(DataError, match="is a folder"):
        check_files([tmp_path])
    with pytest.raises(DataError, match="given twice"):
        check_files([empty, empty])
    with pytest.raises(DataError, match="no text is given"):
        check_files([])


def test_a_line_without_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textfiles, "LINE_LIMIT", 100)
    path = tmp_path / "a.txt"
    path.write_text("x" * 150)
    with pytest.raises(DataError, match=r"a line of more than 100 characters.*--tokens char"):
        list(read_line_pieces(path, 40))
