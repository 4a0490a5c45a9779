"""Backpropagation through time over a long sequence: full, or truncated with a carried state.

Truncated, BPTT(k2; k1): an update every k1 steps, from the gradient of the losses of these k1
steps, taken back over the k2 ≥ k1 steps that end at the update. The window of an update begins from
the state that the window before had there, detached: the forward pass goes on as in one long run,
while a gradient reaches back to the start of its window and no further.

    steps        0   2   4   6   8  10         k1 = 4, k2 = 6
    update 0     c c c c                       c  counted: its loss is part of this update
    update 1         h h c c c c               h  history: only run again, so that the gradient
    update 2             h h h h c c              of the counted steps can go through it

With k1 = k2 the windows do not overlap, and nothing is run twice. Otherwise an update costs k2 / k1
times as much, and its history is run under newer weights than the state that it begins from. With
k2 the whole length, every gradient is the full one.
Source: Williams and Peng 1990, BPTT(h; h') with h = k2 and h' = k1; the names k1 and k2 are from
Sutskever 2013, "Training recurrent neural networks".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurra.errors import ArgumentError, ConfigError, DataError, ShapeError
from recurra.nn.recurrent import Recurrent
from recurra.training.nested import map_tensors

Run = Callable[[Tensor, Any, Tensor | None], tuple[Tensor, Any]]
"""A model over time: (inputs, state, reset) → (output (B, T, ...), state after the last step)."""


def detach_state(state: Any) -> Any:
    """Same nested state, cut off from the graph, in memory of its own.

    A copy, not a view: the last row of an output would keep the whole output alive, and a restored
    state, which is a fresh tensor too, could not be told from this one by strides or alignment,
    which matrix products may round differently for.
    """
    return map_tensors(state, lambda t: t.detach().clone(memory_format=torch.contiguous_format))


class StreamBatch(NamedTuple):
    """The window of one update, for `run_window`.

    inputs    (B, T) tokens or (B, T, F) features: the history, then the C counted steps
    targets   (B, C, ...) of the counted steps, which are the last ones
    reset     (B, T) bool, True where the state goes back to the initial one before the step; None
              when that is nowhere
    carry     1..T, the step of this window before which the next one begins (T: right after it);
              None when the next one begins where the streams begin
    """

    inputs: Tensor
    targets: Tensor
    reset: Tensor | None
    carry: int | None


def run_window(run: Run, batch: StreamBatch, state: Any) -> tuple[Tensor, Any]:
    """Run one window: (output (B, C, ...) of its counted steps, state for the next window).

    run     any layer, stack or model, called as run(inputs, state, reset); its output is
            (B, T, ...), its state any nesting of tuples, lists and dicts. It is called once, or
            twice where the next window begins inside this one, so a mask that it draws for a whole
            sequence is drawn twice then, and layers that also read backwards in time cannot be cut
    state   what this function returned for the window before; None is a fresh start

    The returned state is detached, in memory of its own; None when the next window starts afresh.

    Raises: ShapeError when the output is not (B, T, ...); ConfigError for a batch that counts or
    carries more steps than it has; ArgumentError for a run that is a bare layer or does not return
    (output, state), and for what is no StreamBatch.

    >>> from recurra import nn
    >>> gru = nn.GRU(3, 5, batch_first=True)
    >>> streams = StreamBatches(torch.randn(40, 3), batch_size=2, k1=4, k2=6)
    >>> state = None
    >>> for step in range(streams.updates):
    ...     batch = streams.batch(step)
    ...     output, state = run_window(lambda x, h, r: gru(x, h, reset=r), batch, state)
    ...     loss = (output[..., :3] - batch.targets).square().mean()  # backward, clip, update
    >>> batch.inputs.shape, output.shape, state
    (torch.Size([2, 6, 3]), torch.Size([2, 3, 5]), None)

    Source: Williams and Peng 1990.
    """
    if isinstance(run, Recurrent) or not callable(run):
        raise ArgumentError(
            f"run_window: run is a {type(run).__name__}; expected a function of (inputs, state, "
            "reset). For a layer: lambda x, state, reset: layer(x, state, reset=reset)."
        )
    if not isinstance(batch, StreamBatch):
        raise ArgumentError(
            f"run_window: batch is a {type(batch).__name__}; expected a StreamBatch. Take it from "
            "StreamBatches(...).batch(step)."
        )
    steps, counted = batch.inputs.shape[1], batch.targets.shape[1]
    carry = steps if batch.carry is None else batch.carry
    if not (0 < counted <= steps and 0 < carry <= steps):
        raise ConfigError(
            f"run_window: the batch has {steps} steps, targets for {counted} of them and "
            f"carry={batch.carry}; expected 1 to {steps} of both (carry=None for no next window). "
            "Take the batch from StreamBatches."
        )
    output, state = _run_part(run, batch, slice(0, carry), state)
    carried = None if batch.carry is None else detach_state(state)
    begin = steps - counted
    if carry == steps:
        return output[:, begin:], carried
    later, _ = _run_part(run, batch, slice(carry, steps), state)
    if begin >= carry:
        return later[:, begin - carry :], carried
    return torch.cat([output[:, begin:], later], 1), carried


def _run_part(run: Run, batch: StreamBatch, part: slice, state: Any) -> tuple[Tensor, Any]:
    inputs = batch.inputs[:, part]
    returned = run(inputs, state, None if batch.reset is None else batch.reset[:, part])
    pair = isinstance(returned, tuple | list) and len(returned) == 2
    if not pair or not isinstance(returned[0], Tensor):
        what = f"a {type(returned).__name__}"
        if isinstance(returned, tuple | list):
            what += f" of ({', '.join(type(value).__name__ for value in returned)})"
        raise ArgumentError(
            f"run_window: run returned {what}; expected (output, state), the output a tensor "
            "(B, T, ...) with every step. Return both, also where the state is not used."
        )
    output, state = returned
    if output.shape[:2] != inputs.shape[:2]:
        raise ShapeError(
            f"run_window: run returned an output of shape {tuple(output.shape)} for inputs of "
            f"shape {tuple(inputs.shape)}; expected the same batch and time on the first two axes. "
            "Give layers batch_first=True, and return an output for every step."
        )
    return output, state


class StreamBatches:
    """A long sequence as `batch_size` contiguous streams, read window by window.

    Row b of the batch reads positions b·L to (b + 1)·L, where L = steps // batch_size. Update u
    counts steps u·k1 to (u + 1)·k1 of every row, the last one of a pass maybe fewer; its window is
    the k2 steps that end there, near the beginning those that there are. Each step is counted once
    in `updates` updates; then the streams start again, with reset. At most batch_size − 1 positions
    at the very end are not read.

    sequence   (N,) tokens or (N, F) features
    k1         steps from one update to the next; None takes whole streams, that is full BPTT
    k2         steps that a gradient goes back from the update, at least k1; None means k1
    targets    (N, ...) one per position; None means the next element of `sequence`
    reset      (N,) bool, True where a new document or series begins

    Raises: ConfigError for steps below 1 or k2 < k1; ShapeError when lengths differ; DataError when
    the sequence is shorter than the batch.

    >>> streams = StreamBatches(torch.arange(13), batch_size=2, k1=2, k2=3)
    >>> streams.batch(1).inputs.tolist(), streams.batch(1).targets.tolist()
    ([[1, 2, 3], [7, 8, 9]], [[3, 4], [9, 10]])

    Source: Williams and Peng 1990.
    """

    def __init__(
        self,
        sequence: Tensor,
        *,
        batch_size: int,
        k1: int | None = None,
        k2: int | None = None,
        targets: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> None:
        if not (_is_count(batch_size) and _is_steps(k1) and _is_steps(k2)):
            raise ConfigError(
                f"StreamBatches: batch_size={batch_size!r}, k1={k1!r} and k2={k2!r}; expected "
                "integers of at least 1 each (k1=None for whole streams, k2=None for k2 = k1)."
            )
        _check_together(sequence, targets, reset)
        steps = len(sequence) - 1 if targets is None else len(sequence)
        self.length = max(0, steps) // batch_size  # of one stream
        if self.length == 0:
            raise DataError(
                f"StreamBatches: {len(sequence)} positions do not give {batch_size} streams of at "
                "least one step. Give more data or a smaller batch_size."
            )
        between = self.length if k1 is None else k1
        back = between if k2 is None else k2
        if back < between:
            whole = " (whole streams)" if k1 is None else ""
            raise ConfigError(
                f"StreamBatches: k2={back} is less than k1={between}{whole}, so that some losses "
                "would have no gradient. Give k2 of at least k1, or k2=None for k2 = k1."
            )
        self.batch_size = batch_size
        self.k1 = min(between, self.length)
        self.k2 = min(back, self.length)
        self.updates = -(-self.length // self.k1)
        self._inputs = self._streams(sequence)
        self._targets = self._streams(sequence[1:] if targets is None else targets)
        self._reset = None if reset is None else self._streams(reset.bool())

    def _streams(self, values: Tensor) -> Tensor:
        used = values[: self.batch_size * self.length]
        return used.reshape(self.batch_size, self.length, *values.shape[1:])

    def batch(self, step: int) -> StreamBatch:
        """The window of training step 0, 1, 2, ..."""
        update = step % self.updates
        begin, end = self._window(update)
        inputs = self._inputs[:, begin:end].contiguous()
        targets = self._targets[:, update * self.k1 : end].contiguous()
        reset = None if self._reset is None else self._reset[:, begin:end].clone()
        if begin == 0:
            if reset is None:
                reset = torch.zeros(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
            reset[:, 0] = True
        elif reset is not None and not bool(reset.any()):
            reset = None
        following, _ = self._window((update + 1) % self.updates)
        return StreamBatch(inputs, targets, reset, following - begin if following > 0 else None)

    def _window(self, update: int) -> tuple[int, int]:
        end = min((update + 1) * self.k1, self.length)
        # Without this, a shorter last window would reach back into the one before.
        history = end - self.k2 if self.k2 > self.k1 else update * self.k1
        return max(0, history), end


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_steps(value: Any) -> bool:
    return value is None or _is_count(value)


def _check_together(sequence: Tensor, targets: Tensor | None, reset: Tensor | None) -> None:
    """That each is a tensor, with an entry for each position of the sequence."""
    for name, value in (("sequence", sequence), ("targets", targets), ("reset", reset)):
        _check_tensor(name, value, optional=name != "sequence")
    if sequence.dim() not in (1, 2):
        raise ShapeError(
            f"StreamBatches: sequence has shape {tuple(sequence.shape)}; "
            "expected (N,) tokens or (N, F) features."
        )
    for name, other in (("targets", targets), ("reset", reset)):
        if other is not None and other.shape[:1] != sequence.shape[:1]:
            raise ShapeError(
                f"StreamBatches: {name} has shape {tuple(other.shape)}, sequence has "
                f"{len(sequence)} positions; expected one entry for each."
            )
    if reset is not None and reset.dim() != 1:
        raise ShapeError(
            f"StreamBatches: reset has shape {tuple(reset.shape)}; expected "
            f"({len(sequence)},), True where a new document or series begins."
        )


def _check_tensor(name: str, value: Any, optional: bool) -> None:
    if isinstance(value, Tensor) or (optional and value is None):
        return
    raise ShapeError(
        f"StreamBatches: {name} is a {type(value).__name__}; expected a tensor"
        f"{' or None' if optional else ', (N,) tokens or (N, F) features'}. Use "
        f"torch.as_tensor({name})."
    )
