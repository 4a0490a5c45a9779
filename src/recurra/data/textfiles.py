"""Reading text files piece by piece: plain, gzip or xz, in bounded memory, bad bytes named."""

from __future__ import annotations

import codecs
import gzip
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from recurra.errors import DataError

PIECE = 1 << 20  # bytes read at a time
LINE_LIMIT = 1 << 24
"""Characters of one line where a text is cut at the ends of lines only."""
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_bytes(path: Path, size: int = PIECE) -> Iterator[bytes]:
    """The content of a file, unpacked where its name ends in .gz or .xz, piece by piece.

    Raises: DataError when it is missing, empty, unreadable, or damaged as an archive.
    """
    found = False
    try:
        with _open(path) as file:
            while piece := file.read(size):
                found = True
                yield piece
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged, or not what its name says ({error}); expected a whole "
            f"{path.suffix} file. Get it again, or rename it."
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot read {path}: {reason}. Give the path of a text file.") from error
    if not found:
        raise DataError(f"{path} is empty; expected a file with text.")


def read_text(path: Path, size: int = PIECE) -> Iterator[str]:
    """The text of a UTF-8 file, piece by piece, exactly as it is but for a byte order mark.

    Raises: DataError as `read_bytes`, and for bytes that are no UTF-8, with their offset and
    line in the (unpacked) file.
    """
    rest, offset, line = b"", 0, 1
    for piece in _with_end(read_bytes(path, size)):
        data = rest + piece
        if offset == 0 and data.startswith(codecs.BOM_UTF8):
            data, offset = data[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
        try:
            text, used = codecs.utf_8_decode(data, "strict", not piece)
        except UnicodeDecodeError as error:
            raise DataError(_explain(path, data, offset, line, error)) from error
        rest, offset, line = data[used:], offset + used, line + text.count("\n")
        if text:
            yield text


def read_line_pieces(path: Path, size: int = PIECE) -> Iterator[str]:
    """The same text in pieces that end where a line ends, all but the last one.

    Raises: DataError as `read_text`, and for a line of more than LINE_LIMIT characters.
    """
    parts: list[str] = []
    waiting = 0
    for text in read_text(path, size):
        cut = text.rfind("\n") + 1
        if cut:
            yield "".join([*parts, text[:cut]])
            parts, waiting = [], 0
        if cut < len(text):
            parts.append(text[cut:])
            waiting += len(text) - cut
        if waiting > LINE_LIMIT:
            raise DataError(
                f"{path} has a line of more than {LINE_LIMIT} characters; expected lines. Break "
                "it, or read it by characters or bytes (--tokens char)."
            )
    if parts:
        yield "".join(parts)


def check_files(paths: Sequence[Path]) -> None:
    """Raise DataError, before anything long begins, for what is there twice or is no file."""
    if not paths:
        raise DataError("no text is given; expected the path of one file or more.")
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise DataError(f"{path} is given twice. Name each file once.")
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not there"
            raise DataError(f"{path} {what}; expected a text file (UTF-8, also .gz or .xz).")


def _open(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return lzma.open(path, "rb") if suffix == ".xz" else path.open("rb")


def _with_end(pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield from pieces
    yield b""


def _explain(path: Path, data: bytes, offset: int, line: int, error: UnicodeDecodeError) -> str:
    at, line = offset + error.start, line + data.count(b"\n", 0, error.start)
    shown = data[error.start : error.start + 4].hex(" ")
    hint = "Convert it to UTF-8; a language model may read it as bytes (--tokens byte)."
    if at == 0 and data.startswith(_BOMS):
        hint = "It looks like UTF-16: convert it to UTF-8."
    return (
        f"{path} is not UTF-8: the bytes {shown} at offset {at}, line {line}, are no text. {hint}"
    )
