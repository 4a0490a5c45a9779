"""Pairs side by side as the network wants them: batches of about so many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recurra.data.tokenizer import Ids

Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


class Batch(NamedTuple):
    """Some pairs: source (B, S), lengths (B,), target inputs (B, T), outputs (B, T), real (B, T).

    The output of a place is the input of the next one; after the last comes the end.
    """

    source: Tensor
    lengths: Tensor
    inputs: Tensor
    outputs: Tensor
    real: Tensor


def pad(sentences: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """(tokens (B, T), lengths (B,)) of sentences, zeros after their ends."""
    lengths = np.array([len(one) for one in sentences], np.int64)
    tokens = np.zeros((len(sentences), int(lengths.max(initial=0))), np.int64)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = np.concatenate(sentences)
    return torch.from_numpy(tokens), torch.from_numpy(lengths)


def collate(sources: Sequence[Ids], targets: Sequence[Ids], start_id: int) -> Batch:
    """One batch out of pairs of token ids, each with its end."""
    source, lengths = pad(sources)
    outputs, target_lengths = pad(targets)
    inputs = torch.cat([torch.full_like(outputs[:, :1], start_id), outputs[:, :-1]], 1)
    real = torch.arange(outputs.shape[1]) < target_lengths[:, None]
    return Batch(source, lengths, inputs, outputs, real)


def cut(order: Rows, sizes: Rows, tokens: int) -> list[Rows]:
    """Rows in this order, in batches of at most so many tokens with the padding, one row at least.

    sizes   the longer side of each pair
    """
    batches, begin, longest = [], 0, 0
    for end, row in enumerate(order):
        longest = max(longest, int(sizes[row]))
        if end > begin and (end + 1 - begin) * longest > tokens:
            batches.append(order[begin:end])
            begin, longest = end, int(sizes[row])
    if begin < len(order):
        batches.append(order[begin:])
    return batches


def order_of_epoch(
    sources: Rows, targets: Rows, tokens: int, rng: np.random.Generator
) -> list[Rows]:
    """All pairs in batches of like lengths, drawn anew in every epoch, in random order."""
    # Lengths are shaken a little, so that neighbours differ from epoch to epoch.
    key = targets + rng.uniform(0, 2, len(targets)) + 0.3 * sources
    batches = cut(np.argsort(key, kind="stable"), np.maximum(sources, targets), tokens)
    return [batches[k] for k in rng.permutation(len(batches))]
