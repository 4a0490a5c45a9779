"""The list of data sets is well formed, and true of the real files where they are here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recurra.data import catalogue
from recurra.data.datasets import DATASETS, DataFile, read_datasets
from recurra.errors import DataError

TOY = """
[toy]
about = "A toy."
folder = "forecasting/toy"
licence = "none"
citation = "Nobody"
page = "https://example.org"
address = "https://example.org/data/"
files = [
  { name = "a.csv.xz", bytes = 7, sha256 = "SHA_A" },
  { name = "b.csv", bytes = 8, sha256 = "SHA_B", path = "more/b.csv" },
]
""".replace("SHA_A", "a" * 64).replace("SHA_B", "b" * 64)


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


def test_an_address_and_a_name_make_the_place_to_download_from(tmp_path: Path) -> None:
    path = tmp_path / "sets.toml"
    path.write_text(TOY)
    assert read_datasets(path)["toy"].files == (
        DataFile("a.csv.xz", 7, "a" * 64, "https://example.org/data/a.csv"),
        DataFile("b.csv", 8, "b" * 64, "https://example.org/data/more/b.csv"),
    )
    path.write_text(TOY.replace('address = "https://example.org/data/"\n', ""))
    assert not read_datasets(path)["toy"].downloadable


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("licence", "license", r"toy\.licence: Field required; toy\.license: Extra inputs"),
        ("a" * 64, "a" * 63, r"toy\.files\.0\.sha256: String should match"),
        ("bytes = 7", "bytes = 0", r"toy\.files\.0\.bytes: .* greater than or equal to 1"),
        ('"b.csv"', '"../b.csv"', r"toy\.files\.1\.name: String should match"),
        ("forecasting/toy", "forecasting/../toy", r"toy\.folder: String should match"),
        ("https://example.org/data/", "http://example.org/", r"toy\.address: String should match"),
        ("[toy]", "[toy", "is no TOML file: .* Correct it"),
    ],
)
def test_what_is_wrong_in_the_list_is_named(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    path = tmp_path / "sets.toml"
    path.write_text(TOY.replace(right, wrong))
    with pytest.raises(DataError, match=message):
        read_datasets(path)
