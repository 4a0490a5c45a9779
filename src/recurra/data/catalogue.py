"""The public data sets that recipes, tests and documentation use: where each is and what is in it.

A set is looked for in the folder that RECURRA_DATA names, then in the cache (RECURRA_CACHE, or
~/.cache/recurra). Both have the same layout, so a path inside them is the same everywhere. Nothing
is downloaded unless it is asked for, and a download counts only when its hash is the known one.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import lzma
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recurra.data.datasets import DATASETS, DataFile, Dataset
from recurra.errors import DataError, unknown
from recurra.runs import explained, write_bytes

Fetch = Callable[[str, int], bytes]

_SLACK = 1 << 16  # bytes that a compressed file may be larger than its content


@dataclass(frozen=True)
class Found:
    """Where a data set was found: `source` is "RECURRA_DATA" or "cache"."""

    folder: Path
    source: str


def dataset(name: str) -> Dataset:
    """The entry of that name.

    Raises: DataError for an unknown name, with the nearest one.
    """
    if name not in DATASETS:
        raise DataError(unknown("data set", name, DATASETS))
    return DATASETS[name]


def cache_folder() -> Path:
    """Where downloads are kept: RECURRA_CACHE, or ~/.cache/recurra."""
    chosen = os.environ.get("RECURRA_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recurra"


def find(name: str) -> Found | None:
    """Where all files of the set lie, or None when some place has not all of them."""
    entry = dataset(name)
    places = [(cache_folder(), "cache")]
    offline = os.environ.get("RECURRA_DATA")
    if offline:
        places.insert(0, (Path(offline), "RECURRA_DATA"))
    for root, source in places:
        folder = root / entry.folder
        if all((folder / file.name).is_file() for file in entry.files):
            return Found(folder, source)
    return None


def locate(name: str) -> Path:
    """The folder that holds the files of the set.

    Raises: DataError when it is not on this machine, with the command that brings it.
    """
    found = find(name)
    if found is not None:
        return found.folder
    entry = dataset(name)
    looked = f"RECURRA_DATA={os.environ.get('RECURRA_DATA') or '(not set)'} and {cache_folder()}"
    raise DataError(f"the data set {name!r} is not in {looked}. {_advice(entry)}")


def locate_file(name: str, file: str | None = None) -> Path:
    """One file of the set: by its name in the catalogue, or the only one there is.

    Raises: DataError when the set is absent, or `file` is not one of its files.
    """
    entry = dataset(name)
    names = [part.name for part in entry.files]
    if file is None and len(names) > 1:
        raise DataError(f"the data set {name!r} has several files; say which: {', '.join(names)}.")
    wanted = names[0] if file is None else file
    if wanted not in names:
        raise DataError(unknown(f"file of {name}", wanted, names))
    return locate(name) / wanted


def _advice(entry: Dataset) -> str:
    if entry.downloadable:
        return (
            f"Run `recurra data get {entry.name}`, or set RECURRA_DATA to a folder that holds it."
        )
    names = ", ".join(f"{entry.folder}/{file.name}" for file in entry.files)
    return (
        f"It has no download with a known hash: get it from {entry.page}, and set RECURRA_DATA to "
        f"a folder that holds {names}."
    )


def get(
    name: str, out: Path | None = None, *, fetch: Fetch | None = None
) -> tuple[Path, list[str]]:
    """Download what is missing of the set into `out` (default: the cache).

    Returns the folder and the names of the files that were downloaded; files that are there and
    whole are kept. `fetch(url, limit)` returns the bytes at an address (tests pass their own).
    Raises: DataError when the set has no download, an address does not answer, or a hash is wrong.
    """
    entry = dataset(name)
    folder = (out or cache_folder()) / entry.folder
    missing = [file for file in entry.files if not _is_whole(folder / file.name, file)]
    if missing and not entry.downloadable:
        raise DataError(f"the data set {name!r} cannot be downloaded. {_advice(entry)}")
    for file in missing:
        assert file.url is not None
        raw = (fetch or download)(file.url, file.bytes + _SLACK)
        content = raw if not file.url.endswith(".gz") else _unpack(raw, ".gz", file)
        _check(content, file)
        write_bytes(folder / file.name, _pack(content, Path(file.name).suffix))
    return folder, [file.name for file in missing]


def _is_whole(path: Path, file: DataFile) -> bool:
    if not path.is_file():
        return False
    with explained(path, "read"):
        raw = path.read_bytes()
    try:
        _check(_unpack(raw, path.suffix, file), file)
    except DataError:
        return False
    return True


def _check(content: bytes, file: DataFile) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(
            f"{file.url or file.name} is not the file that was expected: it has {len(content)} "
            f"bytes with sha256 {found}, expected {file.bytes} bytes with sha256 {file.sha256}. "
            "The file there has changed, or something on the way altered it; nothing was kept."
        )


def _unpack(raw: bytes, suffix: str, file: DataFile) -> bytes:
    """The content of a compressed file; never unpacks more than the known size."""
    if suffix not in (".xz", ".gz"):
        return raw
    unpacker = lzma.LZMADecompressor() if suffix == ".xz" else zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(raw, file.bytes + 1)
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{file.name} is damaged ({error}); delete it and get it again.") from error
    if not unpacker.eof:
        raise DataError(
            f"{file.name} is cut short, or holds more than the {file.bytes} bytes expected; "
            "delete it and get it again."
        )
    return content


def _pack(content: bytes, suffix: str) -> bytes:
    """The content as it is stored under that suffix: the layout is that of RECURRA_DATA."""
    if suffix == ".xz":
        return lzma.compress(content, preset=1)
    if suffix == ".gz":
        return gzip.compress(content, mtime=0)
    return content


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects as urllib does, but never to an address that is not https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise DataError(f"{url} is not an https address; nothing was downloaded from it.")


def download(url: str, limit: int) -> bytes:
    """The bytes at an https address.

    Raises: DataError when it is not https, does not answer, or sends more than `limit` bytes.
    """
    _check_address(url)
    opener = urllib.request.build_opener(_SecureRedirects)
    request = urllib.request.Request(url, headers={"User-Agent": "recurra"})
    try:
        with opener.open(request, timeout=60) as response:
            content: bytes = response.read(limit + 1)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"the server answered {error.code} {error.reason}"
        raise DataError(f"cannot download {url}: {reason}. {_BY_HAND}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error))
        raise DataError(f"cannot download {url}: {reason}. {_BY_HAND}") from error
    if len(content) > limit:
        raise DataError(f"{url} sends more than the {limit} bytes expected; nothing was kept.")
    return content


_BY_HAND = (
    "Try again later, or fetch it by other means and set RECURRA_DATA to a folder that holds it."
)
