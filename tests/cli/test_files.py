"""What commands read on stdin."""

from __future__ import annotations

import io
import sys

import pytest

from recurra.cli.files import read_stdin
from recurra.errors import DataError


def test_the_text_on_stdin_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("né\r\n日\n".encode())))
    assert read_stdin() == "né\r\n日\n"


def test_bytes_on_stdin_that_are_no_text_are_named_with_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\nth\xffee\n")))
    with pytest.raises(DataError, match="byte 0xff at offset 10, line 3, is no text"):
        read_stdin()
