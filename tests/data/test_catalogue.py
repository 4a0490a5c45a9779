"""Data sets: found where they lie, downloaded only over https, kept only when they are whole."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest

from recurra.data import catalogue
from recurra.data.datasets import DATASETS, DataFile, Dataset
from recurra.errors import DataError

PLAIN = b"time,value\n1,2\n"
PACKED = b"time,value\n" + b"1,2\n" * 5000


def entry(name: str, content: bytes, url: str | None) -> DataFile:
    return DataFile(name, len(content), hashlib.sha256(content).hexdigest(), url)


TOY = Dataset(
    name="toy",
    about="A toy.",
    folder="forecasting/toy",
    files=(
        entry("plain.csv", PLAIN, "https://example.org/plain.csv"),
        entry("packed.csv.xz", PACKED, "https://example.org/packed.csv"),
        entry("zipped.txt.gz", PACKED, "https://example.org/zipped.txt.gz"),
    ),
    licence="none",
    citation="Nobody",
    page="https://example.org",
)
SERVED = {
    "https://example.org/plain.csv": PLAIN,
    "https://example.org/packed.csv": PACKED,
    "https://example.org/zipped.txt.gz": gzip.compress(PACKED, mtime=0),
}


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(DATASETS, "toy", TOY)
    monkeypatch.setenv("RECURRA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECURRA_DATA", str(tmp_path / "offline"))


def serve(answers: dict[str, bytes], asked: list[str] | None = None) -> Callable[[str, int], bytes]:
    def fetch(url: str, limit: int) -> bytes:
        if asked is not None:
            asked.append(url)
        assert len(answers[url]) <= limit
        return answers[url]

    return fetch


def fill(root: Path) -> Path:
    folder = root / TOY.folder
    folder.mkdir(parents=True)
    for file in TOY.files:
        (folder / file.name).write_bytes(b"")
    return folder


def test_get_stores_the_layout_of_the_catalogue(tmp_path: Path) -> None:
    folder, downloaded = catalogue.get("toy", fetch=serve(SERVED))
    assert folder == tmp_path / "cache" / "forecasting" / "toy"
    assert downloaded == ["plain.csv", "packed.csv.xz", "zipped.txt.gz"]
    assert (folder / "plain.csv").read_bytes() == PLAIN
    assert lzma.decompress((folder / "packed.csv.xz").read_bytes()) == PACKED
    assert gzip.decompress((folder / "zipped.txt.gz").read_bytes()) == PACKED
    assert catalogue.locate("toy") == folder


def test_get_keeps_what_is_whole_and_mends_what_is_not(tmp_path: Path) -> None:
    folder, _ = catalogue.get("toy", tmp_path / "out", fetch=serve(SERVED))
    asked: list[str] = []
    assert catalogue.get("toy", tmp_path / "out", fetch=serve({}, asked))[1] == []
    assert asked == []
    packed = folder / "packed.csv.xz"
    packed.write_bytes(packed.read_bytes()[:-20])
    (folder / "plain.csv").write_bytes(PLAIN + b"3,4\n")
    _, mended = catalogue.get("toy", tmp_path / "out", fetch=serve(SERVED, asked))
    assert mended == ["plain.csv", "packed.csv.xz"]
    assert lzma.decompress(packed.read_bytes()) == PACKED


@pytest.mark.parametrize("wrong", [PLAIN[:-1], PLAIN + b"3,4\n", b"", PLAIN.replace(b"2", b"3")])
def test_a_wrong_hash_keeps_nothing_and_replaces_nothing(tmp_path: Path, wrong: bytes) -> None:
    folder = tmp_path / "cache" / TOY.folder
    with pytest.raises(DataError, match="not the file that was expected") as caught:
        catalogue.get("toy", fetch=serve({**SERVED, "https://example.org/plain.csv": wrong}))
    assert TOY.files[0].sha256 in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [b"not gzip", gzip.compress(PACKED * 1000, mtime=0), gzip.compress(PLAIN, mtime=0)]
)
def test_a_wrong_archive_is_refused_without_being_unpacked_whole(wrong: bytes) -> None:
    with pytest.raises(DataError, match=r"zipped\.txt\.gz"):
        catalogue.get("toy", fetch=serve({**SERVED, "https://example.org/zipped.txt.gz": wrong}))


def test_the_offline_folder_comes_before_the_cache(tmp_path: Path) -> None:
    assert catalogue.find("toy") is None
    cached = fill(tmp_path / "cache")
    assert catalogue.find("toy") == catalogue.Found(cached, "cache")
    offline = fill(tmp_path / "offline")
    assert catalogue.find("toy") == catalogue.Found(offline, "RECURRA_DATA")
    assert catalogue.locate_file("toy", "plain.csv") == offline / "plain.csv"
    (offline / "packed.csv.xz").unlink()  # a set that is not whole there does not count
    assert catalogue.locate("toy") == cached


def test_an_absent_set_says_how_to_have_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="recurra data get toy") as caught:
        catalogue.locate("toy")
    assert f"RECURRA_DATA={tmp_path / 'offline'}" in str(caught.value)
    assert str(tmp_path / "cache") in str(caught.value)
    with pytest.raises(DataError, match=r"forecasting/m3/M3-train\.csv\.xz"):
        catalogue.locate("m3")
    with pytest.raises(DataError, match="did you mean 'toy'"):
        catalogue.locate("tory")


def test_one_of_several_files_has_to_be_named(tmp_path: Path) -> None:
    fill(tmp_path / "cache")
    with pytest.raises(DataError, match=r"plain\.csv, packed\.csv\.xz"):
        catalogue.locate_file("toy")
    with pytest.raises(DataError, match=r"did you mean 'plain\.csv'"):
        catalogue.locate_file("toy", "plan.csv")


@pytest.mark.parametrize(
    "url", ["http://example.org/a", "file:///etc/hostname", "ftp://example.org/a", "/etc/hostname"]
)
def test_only_https_is_downloaded(url: str) -> None:
    with pytest.raises(DataError, match="not an https address"):
        catalogue.download(url, 10)


def test_a_redirect_away_from_https_is_refused() -> None:
    handler = catalogue._SecureRedirects()
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(DataError, match=r"http://example\.org/b is not an https address"):
        handler.redirect_request(request, None, 302, "Found", Message(), "http://example.org/b")
    followed = handler.redirect_request(
        request, None, 302, "Found", Message(), "https://example.org/b"
    )
    assert followed.full_url == "https://example.org/b"


class Opener:
    """Stands for urllib's opener: answers with bytes, or raises."""

    def __init__(self, content: bytes = b"", error: Exception | None = None) -> None:
        self.content = content
        self.error = error

    def open(self, request: urllib.request.Request, timeout: float) -> Opener:
        if self.error is not None:
            raise self.error
        return self

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, limit: int) -> bytes:
        return self.content[:limit]


@pytest.mark.parametrize(
    ("opener", "told"),
    [
        (Opener(error=urllib.error.URLError("Name or service not known")), "service not known"),
        (Opener(error=TimeoutError("timed out")), "timed out"),
        (
            Opener(
                error=urllib.error.HTTPError("https://e.org", 404, "Not Found", Message(), None)
            ),
            "404 Not Found",
        ),
        (Opener(b"x" * 11), "more than the 10 bytes"),
    ],
)
def test_a_failed_download_is_a_message(
    monkeypatch: pytest.MonkeyPatch, opener: Opener, told: str
) -> None:
    monkeypatch.setattr(urllib.request, "build_opener", lambda *_: opener)
    with pytest.raises(DataError, match=told):
        catalogue.download("https://e.org", 10)


def test_a_download_is_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "build_opener", lambda *_: Opener(b"x" * 10))
    assert catalogue.download("https://e.org", 10) == b"x" * 10
