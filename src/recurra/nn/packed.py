"""torch's PackedSequence to a padded tensor with lengths, and back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def unpack(x: PackedSequence, batch_first: bool) -> tuple[Tensor, Tensor]:
    """The padded tensor and the lengths (B,), rows in the order they had before packing."""
    return pad_packed_sequence(x, batch_first)


def pack(output: Tensor, like: PackedSequence, batch_first: bool) -> PackedSequence:
    """The padded output, packed in the order of `like`."""
    if like.sorted_indices is not None:
        output = output.index_select(0 if batch_first else 1, like.sorted_indices)
    rows = torch.arange(int(like.batch_sizes[0]))
    lengths = (like.batch_sizes.unsqueeze(1) > rows).sum(0)
    data = pack_padded_sequence(output, lengths, batch_first).data
    return PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)
