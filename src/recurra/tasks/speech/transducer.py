"""The recurrent transducer: a speech network that also knows what it has written so far.

    heard_t = encoder(sound)_t                 `network.py`, whole or streamed
    said_u  = W LSTM(embedding(label_1 ... label_u)),      the blank's embedding at the beginning
    logits(t, u) = W_o tanh(heard_t + said_u)

A network with CTC says each character knowing the sound alone; this one knows those before, too.

Source: Graves 2012, "Sequence transduction with recurrent neural networks"; the sum and the tanh
are of Graves, Mohamed and Hinton 2013, "Speech recognition with deep recurrent neural networks".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recurra.nn.linear import Linear
from recurra.nn.lstm import LSTM
from recurra.tasks.speech.network import NetworkStream, SpeechNetwork


class Said(NamedTuple):
    """What was said: its vector (size,), and the state of the network that reads it."""

    vector: Tensor
    state: Any


class TransducerNetwork(nn.Module):
    """Logits of the next label, label 0 the blank, at every step after every number of labels.

    encoder   a network of `size` outputs

    Shapes: features (B, T, bins), lengths (B,) in frames, labels (B, U) padded with zeros; logits
    (B, T // stacked, U + 1, outputs) and the lengths of the steps. In between is a tensor with
    `size` in the place of `outputs`, which is what training needs memory for.
    """

    def __init__(self, encoder: SpeechNetwork, outputs: int, size: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding = nn.Embedding(outputs, size)
        self.reader = LSTM(size, size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.exit = Linear(size, size)
        self.head = Linear(size, outputs)

    def forward(self, features: Tensor, lengths: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(logits, the lengths of their steps)."""
        heard, steps = self.encoder(features, lengths)
        tokens = torch.cat([labels.new_zeros(len(labels), 1), labels], 1)
        said = self.exit(self.dropout(self.reader(self.dropout(self.embedding(tokens)))[0]))
        logits: Tensor = self.head(torch.tanh(heard[:, :, None] + said[:, None]))
        return logits, steps

    def stream(self) -> NetworkStream:
        """What is heard of one sound that comes in pieces."""
        return self.encoder.stream()

    def begin(self) -> Said:
        """Nothing has been said."""
        return self._read(None, 0)

    def extend(self, said: Said, token: int) -> Said:
        """What has been said, and another label."""
        return self._read(said.state, token)

    @torch.no_grad()
    def _read(self, state: Any, token: int) -> Said:
        tokens = torch.tensor([[token]], device=self.head.weight.device)
        output, state = self.reader(self.embedding(tokens), state)
        return Said(self.exit(output)[0, 0], state)

    @torch.no_grad()
    def log_probs(self, heard: Tensor, said: Sequence[Said]) -> npt.NDArray[np.float32]:
        """log p (n, outputs) of what comes next at a step, heard (size,), after each of n."""
        vectors = torch.stack([one.vector for one in said])
        logits: Tensor = self.head(torch.tanh(heard + vectors))
        return logits.log_softmax(-1).cpu().numpy()
