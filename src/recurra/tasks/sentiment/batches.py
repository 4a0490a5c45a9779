"""Texts side by side as the network wants them, and the order in which training sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recurra.tasks.sentiment.words import Ids, WordTable

_POOL = 50  # batches among which texts of like lengths are put together


class Batch(NamedTuple):
    """Some texts: their distinct words, and which word stands where.

    Shapes: numbers and offsets (U,), buckets (G,), tokens (B, T) which of the U words, lengths
    (B,), lexical (B, C), targets (B,) or None.
    """

    numbers: Tensor
    buckets: Tensor
    offsets: Tensor
    tokens: Tensor
    lengths: Tensor
    lexical: Tensor
    targets: Tensor | None


def collate(
    table: WordTable,
    texts: Sequence[Ids],
    lexical: Tensor,
    targets: Tensor | None = None,
) -> Batch:
    """One batch out of texts (entries of the table), padded at their ends."""
    lengths = np.array([len(text) for text in texts], np.int64)
    distinct, where = np.unique(np.concatenate(texts), return_inverse=True)
    tokens = np.zeros((len(texts), lengths.max()), np.int64)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = where
    numbers, buckets, offsets = (torch.from_numpy(part) for part in table.select(distinct))
    return Batch(
        numbers,
        buckets,
        offsets,
        torch.from_numpy(tokens),
        torch.from_numpy(lengths),
        lexical,
        targets,
    )


def shorten(text: Ids, most: int) -> Ids:
    """A text of at most so many words: its beginning and its end, where opinions are said."""
    if len(text) <= most:
        return text
    head = most // 2
    return np.concatenate([text[:head], text[len(text) - (most - head) :]])


def order_of_epoch(lengths: Ids, batch_size: int, rng: np.random.Generator) -> list[Ids]:
    """All texts in a new order, cut into batches of like lengths, themselves in random order."""
    order = rng.permutation(len(lengths))
    pooled = []
    for begin in range(0, len(order), _POOL * batch_size):
        part = order[begin : begin + _POOL * batch_size]
        pooled.append(part[np.argsort(lengths[part], kind="stable")])
    sorted_ = np.concatenate(pooled)
    batches = [sorted_[k : k + batch_size] for k in range(0, len(sorted_), batch_size)]
    return [batches[k] for k in rng.permutation(len(batches))]


def like_lengths(lengths: Ids, words: int) -> list[Ids]:
    """All texts in batches of like lengths, each of about so many words with the padding."""
    order = np.argsort(lengths, kind="stable")
    batches, begin = [], 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and (end + 1 - begin) * lengths[order[end]] <= words:
            end += 1
        batches.append(order[begin:end])
        begin = end
    return batches
