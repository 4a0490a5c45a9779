"""The published sets are read as their papers count them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recurra.errors import DataError
from recurra.tasks.sentiment.corpora import read_splits, read_tree


def test_trec(data_file: Callable[[str], Path]) -> None:
    data_file("sentiment/trec/TREC.train")
    (split,) = read_splits("trec", labels=None, folds=None, seed=0)
    assert split.train.balance == {
        "ABBR": 86, "DESC": 1162, "ENTY": 1250, "HUM": 1223, "LOC": 835, "NUM": 896,
    }  # fmt: skip
    assert split.test.balance == {
        "ABBR": 9, "DESC": 138, "ENTY": 94, "HUM": 65, "LOC": 81, "NUM": 113,
    }  # fmt: skip


@pytest.mark.parametrize(("labels", "counts"), [(5, (1101, 2210)), (2, (872, 1821))])
def test_sst(data_file: Callable[[str], Path], labels: int, counts: tuple[int, int]) -> None:
    data_file("sentiment/sst_trees/train.txt.xz")
    (split,) = read_splits("sst", labels=labels, folds=None, seed=0)
    assert split.valid is not None
    assert (len(split.valid.texts), len(split.test.texts)) == counts
    assert len(split.train.balance) == labels
    assert not any("LRB" in text for text in split.train.texts)


def test_subj_is_cut_into_folds_of_which_each_text_is_tested_once(
    data_file: Callable[[str], Path],
) -> None:
    data_file("sentiment/subj/subj.objective.xz")
    splits = read_splits("subj", labels=None, folds=10, seed=1)
    assert sum(len(split.test.texts) for split in splits) == 10_000
    assert all(len(split.train.texts) == 9000 for split in splits)
    first = read_splits("subj", labels=None, folds=10, seed=2)[0]
    assert first.test != splits[0].test


def test_a_tree_gives_every_phrase() -> None:
    assert read_tree("(1 (2 (2 -LRB-) (2 no)) (3 -RRB-))") == [
        ("(", "2"), ("no", "2"), ("( no", "2"), (")", "3"), ("( no )", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["", "no tree", "(3 (2 It)", "(3 It))", "(3)", ")"])
def test_what_is_no_tree_is_refused(line: str) -> None:
    with pytest.raises(DataError, match="is no labelled tree"):
        read_tree(line)


@pytest.mark.parametrize(
    ("name", "labels", "folds", "message"),
    [
        ("ptb", None, None, "'ptb' is not one of labelled texts: imdb, mr, sst, subj, trec"),
        ("trec", None, 10, "expected folds for mr, subj only"),
        ("subj", None, None, "expected folds for mr, subj only"),
        ("sst", None, None, "labels for sst only"),
    ],
)
def test_splits_that_do_not_exist(
    name: str, labels: int | None, folds: int | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_splits(name, labels=labels, folds=folds, seed=0)
