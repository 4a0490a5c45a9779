"""The list of public data sets: addresses, licences, and the hash of every file's content.

It stands in datasets.toml, where an entry is

[ett]
about = "Electricity transformer temperature"
folder = "forecasting/ett"                  # relative to RECURRA_DATA or the cache
licence = "CC BY-ND 4.0"
citation = "Zhou et al. (2021), AAAI"
page = "https://github.com/zhouhaoyi/ETDataset"
address = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/"
files = [
  { name = "ETTh1.csv.xz", bytes = 2589657, sha256 = "f18d..." },
]

`name` is how a file is stored, and may be compressed; bytes and sha256 are of the uncompressed
content, which for a set with an address is the official file byte for byte. It is downloaded from
the address, followed by the name without .xz, or by the file's `path`. Without an address there is
no download.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from recurra.errors import DataError


@dataclass(frozen=True)
class DataFile:
    """One file: its stored name, and the size and hash of what is in it."""

    name: str
    bytes: int
    sha256: str
    url: str | None = None


@dataclass(frozen=True)
class Dataset:
    """One data set; `folder` is relative to RECURRA_DATA or the cache."""

    name: str
    about: str
    folder: str
    files: tuple[DataFile, ...]
    licence: str
    citation: str
    page: str

    @property
    def bytes(self) -> int:
        """Size of the uncompressed files together."""
        return sum(file.bytes for file in self.files)

    @property
    def downloadable(self) -> bool:
        """Whether every file has an official address."""
        return all(file.url is not None for file in self.files)


_Text = Annotated[str, Field(min_length=1)]
# A path that cannot leave the folder it is put into.
_Path = Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    path: _Path | None = None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    about: _Text
    folder: _Path
    licence: _Text
    citation: _Text
    page: str = Field(pattern="^https://")
    address: str | None = Field(default=None, pattern="^https://.*/$")
    files: tuple[_File, ...] = Field(min_length=1)

    def named(self, name: str) -> Dataset:
        files = tuple(
            DataFile(file.name, file.bytes, file.sha256, self._url(file)) for file in self.files
        )
        return Dataset(name, self.about, self.folder, files, self.licence, self.citation, self.page)

    def _url(self, file: _File) -> str | None:
        if self.address is None:
            return None
        return self.address + (file.path or file.name.removesuffix(".xz"))


def read_datasets(path: Path) -> dict[str, Dataset]:
    """The data sets of a TOML file, by name.

    Raises: DataError naming what is wrong with it.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        entries = TypeAdapter(dict[str, _Entry]).validate_python(raw)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is no TOML file: {error}. Correct it.") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        raise DataError(f"{path} is no list of data sets: {faults}. Correct it.") from error
    return {name: entry.named(name) for name, entry in entries.items()}


DATASETS = read_datasets(Path(__file__).with_name("datasets.toml"))
