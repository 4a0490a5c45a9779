"""The list of data sets is well formed, and true of the real files where they are here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recurra.data import catalogue
from recurra.data.datasets import DATASETS


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_an_entry_is_well_formed(name: str) -> None:
    data = DATASETS[name]
    assert name == data.name
    assert data.files
    assert not Path(data.folder).is_absolute()
    assert data.page.startswith("https://")
    for file in data.files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert Path(file.name).name == file.name
        assert file.url is None or file.url.startswith("https://")


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_the_real_files_are_those_of_the_list(
    data_file: Callable[[str], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [data_file(f"{DATASETS[name].folder}/{file.name}") for file in DATASETS[name].files]

    def fetch(url: str, limit: int) -> bytes:
        raise AssertionError(f"{url} would be downloaded although the file is there and whole")

    root = paths[0].parents[len(Path(DATASETS[name].folder).parts)]
    folder, downloaded = catalogue.get(name, root, fetch=fetch)
    assert (folder, downloaded) == (paths[0].parent, [])
    assert catalogue.locate(name).samefile(folder)
