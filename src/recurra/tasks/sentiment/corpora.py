"""The published data sets as examples: how each of their files is read, and its official split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recurra.data.catalogue import locate
from recurra.data.textfiles import read_bytes
from recurra.errors import DataError
from recurra.tasks.sentiment.examples import Examples, read_examples

_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_BRACKETS = {"-LRB-": "(", "-RRB-": ")"}
_BREAK = re.compile(r"<br\s*/?>")


class Split(NamedTuple):
    """Examples to learn from, to choose by (None: a share of the first), and to be scored."""

    train: Examples
    valid: Examples | None
    test: Examples


def read_splits(name: str, *, labels: int | None, folds: int | None, seed: int) -> list[Split]:
    """The splits of a data set: the official one, or those of a cross-validation.

    labels   2 or 5, for "sst" only: 2 leaves the neutral sentences out
    folds    for sets without an official split; the seed says which text is in which fold
    Raises: DataError when the set is not there, or has no such split.
    """
    if name not in READERS:
        raise DataError(
            f"the data set {name!r} is not one of labelled texts: {', '.join(READERS)}."
        )
    if (name in _WHOLE) != (folds is not None) or (name == "sst") != (labels is not None):
        raise DataError(
            f"{name}: folds={folds}, labels={labels}; expected folds for {', '.join(_WHOLE)} only, "
            "and labels for sst only."
        )
    if folds is None:
        return [READERS[name](locate(name), labels)]
    whole = READERS[name](locate(name), labels).train
    return list(_cross_validate(whole, folds, seed))


def _cross_validate(whole: Examples, folds: int, seed: int) -> Iterator[Split]:
    order = np.random.default_rng(seed).permutation(len(whole.texts))
    for fold in range(folds):
        test = order[fold::folds]
        yield Split(whole.take(np.setdiff1d(order, test)), None, whole.take(np.sort(test)))


def _read_trec(folder: Path, labels: int | None) -> Split:
    def read(file: str) -> Examples:
        rows = [line.split(" ", 1) for line in _lines(folder / file, "latin-1")]
        classes = tuple(label.partition(":")[0] for label, _ in rows)
        return Examples(tuple(question for _, question in rows), classes, file)

    return Split(read("TREC.train"), None, read("TREC.test"))


def _read_imdb(folder: Path, labels: int | None) -> Split:
    def read(file: str) -> Examples:
        found = read_examples(folder / file, "text", "label")
        return Examples(tuple(_BREAK.sub("\n", t) for t in found.texts), found.labels, file)

    return Split(read("train.csv.xz"), None, read("test.csv.xz"))


def _read_classes(folder: Path, files: Sequence[str], names: Sequence[str]) -> Split:
    texts: list[str] = []
    classes: list[str] = []
    for file, name in zip(files, names, strict=True):
        lines = _lines(folder / file, "cp1252")
        texts += lines
        classes += [name] * len(lines)
    whole = Examples(tuple(texts), tuple(classes), folder.name)
    return Split(whole, None, whole)


def _read_mr(folder: Path, labels: int | None) -> Split:
    return _read_classes(folder, ("rt-polarity.neg.xz", "rt-polarity.pos.xz"), ("neg", "pos"))


def _read_subj(folder: Path, labels: int | None) -> Split:
    return _read_classes(folder, ("subj.objective.xz", "subj.subjective.xz"), ("obj", "subj"))


def _read_sst(folder: Path, labels: int | None) -> Split:
    """Training has every distinct phrase of the trees, validation and test whole sentences."""

    def read(file: str, phrases: bool) -> Examples:
        pairs = [
            (text, label)
            for line in _lines(folder / file, "utf-8")
            for text, label in (read_tree(line) if phrases else read_tree(line)[-1:])
        ]
        if phrases:
            pairs = list(dict.fromkeys(pairs))
        if labels == 2:
            names = {"0": "negative", "1": "negative", "3": "positive", "4": "positive"}
            pairs = [(text, names[label]) for text, label in pairs if label != "2"]
        return Examples(tuple(text for text, _ in pairs), tuple(label for _, label in pairs), file)

    valid, test = read("dev.txt.xz", False), read("test.txt.xz", False)
    return Split(read("train.txt.xz", True), valid, test)


def read_tree(line: str) -> list[tuple[str, str]]:
    """(text, label) of every node of a tree, the root last.

    Raises: DataError for a line that is no tree.

    >>> read_tree("(3 (2 It) (4 works))")
    [('It', '2'), ('works', '4'), ('It works', '3')]
    """
    nodes: list[tuple[str, str]] = []
    stack: list[list[str]] = []
    for token in _TOKEN.findall(line):
        if token == "(":
            stack.append([])
        elif token == ")" and stack and len(stack[-1]) > 1:
            label, *words = stack.pop()
            nodes.append((" ".join(words), label))
            if stack:
                stack[-1].extend(words)
        elif token != ")" and stack:
            stack[-1].append(_BRACKETS.get(token, token))
        else:
            stack.append([])
            break
    if stack or not nodes:
        raise DataError(f"{line[:40]!r} is no labelled tree; expected (3 (2 It) (4 works)).")
    return nodes


def _lines(path: Path, encoding: str) -> list[str]:
    """The lines that are not blank; only a line feed ends one."""
    text = b"".join(read_bytes(path)).decode(encoding, "replace")
    return [line.strip() for line in text.split("\n") if line.strip()]


READERS: dict[str, Callable[[Path, int | None], Split]] = {
    "imdb": _read_imdb,
    "mr": _read_mr,
    "sst": _read_sst,
    "subj": _read_subj,
    "trec": _read_trec,
}
_WHOLE = ("mr", "subj")
