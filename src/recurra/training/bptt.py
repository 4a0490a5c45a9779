"""Backpropagation through time over a long sequence: full, or truncated with a carried state.

Truncated: the sequence is cut into chunks of `bptt_length` steps. The state is carried from chunk
to chunk, so the forward pass is that of one long run, but it is detached in between, so a gradient
reaches back to the start of its chunk and no further.
Source: Williams and Peng 1990, BPTT(h; h'), with h = h' = bptt_length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurra.errors import ConfigError, DataError, ShapeError
from recurra.training.nested import map_tensors


def detach_state(state: Any) -> Any:
    """Same nested state, cut off from the graph, in memory of its own.

    A copy, not a view: the last row of an output would keep the whole output alive, and a restored
    state, which is a fresh tensor too, could not be told from this one by strides or alignment,
    which matrix products may round differently for.
    """
    return map_tensors(state, lambda t: t.detach().clone(memory_format=torch.contiguous_format))


class StreamBatch(NamedTuple):
    """One chunk: inputs and targets (B, T) tokens or (B, T, F) features, and where rows start.

    reset   (B, T) bool, True where the state goes back to the initial one before the step; None
            when that is nowhere
    """

    inputs: Tensor
    targets: Tensor
    reset: Tensor | None


class StreamBatches:
    """A long sequence as `batch_size` contiguous streams, read chunk by chunk.

    Row b of the batch reads positions b·L to (b + 1)·L, where L = steps // batch_size, and chunk k
    continues where chunk k − 1 ended, so a state carried over is the right one for every row. After
    `chunks` chunks the streams start again, with reset. The last chunk may be shorter; at most
    batch_size − 1 positions at the very end are not read.

    sequence      (N,) tokens or (N, F) features
    bptt_length   steps per chunk; None takes whole streams, that is full BPTT
    targets       (N, ...) one per position; None means the next element of `sequence`
    reset         (N,) bool, True where a new document or series begins

    Raises: ShapeError when lengths differ; DataError when the sequence is shorter than the batch.

    >>> streams = StreamBatches(torch.arange(13), batch_size=2, bptt_length=4)
    >>> streams.batch(1).inputs.tolist(), streams.batch(1).targets.tolist()
    ([[4, 5], [10, 11]], [[5, 6], [11, 12]])
    """

    def __init__(
        self,
        sequence: Tensor,
        *,
        batch_size: int,
        bptt_length: int | None = None,
        targets: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> None:
        if batch_size < 1 or (bptt_length is not None and bptt_length < 1):
            raise ConfigError(
                f"StreamBatches: batch_size={batch_size} and bptt_length={bptt_length}; "
                "expected at least 1 each (bptt_length=None for whole streams)."
            )
        if sequence.dim() not in (1, 2):
            raise ShapeError(
                f"StreamBatches: sequence has shape {tuple(sequence.shape)}; "
                "expected (N,) tokens or (N, F) features."
            )
        for name, other in (("targets", targets), ("reset", reset)):
            if other is not None and len(other) != len(sequence):
                raise ShapeError(
                    f"StreamBatches: {name} has {len(other)} entries, sequence has "
                    f"{len(sequence)}; expected one per position."
                )
        steps = len(sequence) - 1 if targets is None else len(sequence)
        self.length = max(0, steps) // batch_size  # of one stream
        if self.length == 0:
            raise DataError(
                f"StreamBatches: {len(sequence)} positions do not give {batch_size} streams of at "
                "least one step. Give more data or a smaller batch_size."
            )
        self.batch_size = batch_size
        self.bptt_length = min(bptt_length or self.length, self.length)
        self.chunks = -(-self.length // self.bptt_length)
        self._inputs = self._streams(sequence)
        self._targets = self._streams(sequence[1:] if targets is None else targets)
        self._reset = None if reset is None else self._streams(reset.bool())

    def _streams(self, values: Tensor) -> Tensor:
        used = values[: self.batch_size * self.length]
        return used.reshape(self.batch_size, self.length, *values.shape[1:])

    def batch(self, step: int) -> StreamBatch:
        """The chunk of training step 0, 1, 2, ..."""
        chunk = step % self.chunks
        part = slice(chunk * self.bptt_length, (chunk + 1) * self.bptt_length)
        inputs = self._inputs[:, part].contiguous()
        targets = self._targets[:, part].contiguous()
        reset = None if self._reset is None else self._reset[:, part].clone()
        if chunk == 0:
            if reset is None:
                reset = torch.zeros(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
            reset[:, 0] = True
        elif reset is not None and not bool(reset.any()):
            reset = None
        return StreamBatch(inputs, targets, reset)
