"""Labelled sets beside NAB: five servers, a satellite and a rover, four of the UCR archive.

Each series has a part to learn from, without labels, and a part that is scored.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recurra.data.catalogue import locate
from recurra.data.datasets import DATASETS
from recurra.errors import DataError
from recurra.tasks.anomaly.lanes import Array, Flags

MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Labelled:
    """One series: train (n, C), test (m, C), labels (m,) of the test part."""

    name: str
    train: Array
    test: Array
    labels: Flags

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.test) or self.train.shape[1:] != self.test.shape[1:]:
            raise DataError(
                f"{self.name}: train has the shape {self.train.shape}, test {self.test.shape}, and "
                f"there are {len(self.labels)} labels; expected a label for each row of test, and "
                "the same channels. Get the files again."
            )


def read_smd() -> list[Labelled]:
    """Five machines of the Server Machine Dataset, 38 channels each."""
    train, test, labels = (locate(f"smd-{part}") for part in ("train", "test", "labels"))
    return [
        Labelled(
            file.name.removesuffix(".txt.xz"),
            _numbers(train / file.name),
            _numbers(test / file.name),
            _numbers(labels / file.name.removesuffix(".xz"))[:, 0] > 0,
        )
        for file in DATASETS["smd-train"].files
    ]


def read_smap_msl() -> list[Labelled]:
    """The telemetry of SMAP and MSL: of each channel the first column, which the others command."""
    folder = locate("smap-msl")
    arrays = {part: _arrays(folder / f"{part}.tar.xz") for part in ("train", "test")}
    flags: dict[str, Flags] = {}
    with (folder / "labeled_anomalies.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = row["chan_id"]
            label = flags.setdefault(name, np.zeros(len(arrays["test"][name]), bool))
            for start, end in json.loads(row["anomaly_sequences"]):
                label[start : end + 1] = True
    return [
        Labelled(name, arrays["train"][name][:, :1], arrays["test"][name][:, :1], label)
        for name, label in sorted(flags.items())
        if label.any() and not label.all()
    ]


def read_ucr() -> list[Labelled]:
    """Series whose names end in the rows where training ends and the anomaly begins and ends."""
    folder = locate("ucr-anomaly")
    made = []
    for file in DATASETS["ucr-anomaly"].files:
        values = _numbers(folder / file.name).reshape(-1, 1)
        learned, start, end = (int(n) for n in file.name.removesuffix(".txt.xz").split("_")[-3:])
        labels = np.zeros(len(values), bool)
        labels[start - 1 : end] = True  # counted from 1, and the end belongs to it
        name = "_".join(file.name.split("_")[:4])
        made.append(Labelled(name, values[:learned], values[learned:], labels[learned:]))
    return made


READERS: Mapping[str, Callable[[], list[Labelled]]] = {
    "smd": read_smd,
    "smap-msl": read_smap_msl,
    "ucr": read_ucr,
}


def _numbers(path: Path) -> Array:
    """Rows of numbers, separated by commas or blanks, of a text file that may be compressed."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".xz":
            raw = lzma.LZMADecompressor().decompress(raw, max_length=MOST_BYTES)
        return np.loadtxt(io.StringIO(raw.decode().replace(",", " ")), ndmin=2)
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise DataError(f"{path} is not rows of numbers ({error}). Get the file again.") from error


def _arrays(path: Path) -> dict[str, Array]:
    """The .npy files of an archive, by their names; files that hold objects are refused."""
    try:
        raw = lzma.LZMADecompressor().decompress(path.read_bytes(), max_length=MOST_BYTES)
        found = {}
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            for member in archive.getmembers():
                if member.isfile() and member.name.endswith(".npy"):
                    content = archive.extractfile(member).read()  # type: ignore[union-attr]
                    array = np.load(io.BytesIO(content), allow_pickle=False)
                    found[Path(member.name).stem] = np.asarray(array, np.float64)
        return found
    except (OSError, lzma.LZMAError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{path} is not an archive of arrays ({error}). Get it again.") from error
