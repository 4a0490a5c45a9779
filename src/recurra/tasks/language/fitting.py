"""A language model as the training loop wants it: windows of text, cross entropy, penalties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recurra.nn.language import LanguageNetwork
from recurra.tasks.language.settings import Design
from recurra.training.bptt import StreamBatch, StreamBatches, run_window

_VALIDATION_K1 = 256
_VALIDATION_ROWS = 20


class LanguageTask:
    """Text to learn from, and text to stop by.

    valid      (M,) token ids that are not learned from, None for none
    sampled    called after each validation with the step that was done, for sample texts
    """

    def __init__(
        self,
        network: LanguageNetwork,
        batches: StreamBatches,
        valid: Tensor | None,
        design: Design,
        sampled: Callable[[int], None] | None = None,
    ) -> None:
        self.model = network
        self._batches = batches
        self._design = design
        self._sampled = sampled
        self._done = 0  # steps; only named beside samples
        self._valid: StreamBatches | None = None
        if valid is not None:
            rows = max(1, min(_VALIDATION_ROWS, len(valid) // _VALIDATION_K1))
            self._valid = StreamBatches(valid, batch_size=rows, k1=_VALIDATION_K1)

    def batch(self, step: int, rng: torch.Generator) -> StreamBatch:
        """The next window of all streams; each pass goes through the text in the same order."""
        self._done = step + 1
        return self._batches.batch(step)

    def loss(self, batch: StreamBatch, state: Any) -> tuple[Tensor, Any]:
        """Mean nats of the counted tokens, and the penalties on what goes into the soft-max."""
        features, state = run_window(self.model, batch, state)
        dropped = self.model.drop_output(features)
        loss = self.model.nll(dropped, batch.targets).mean()
        if self._design.activation_penalty:
            loss = loss + self._design.activation_penalty * dropped.square().mean()
        if self._design.change_penalty and features.shape[1] > 1:
            change = features[:, 1:] - features[:, :-1]
            loss = loss + self._design.change_penalty * change.square().mean()
        return loss, state

    def validate(self) -> float | None:
        """Mean nats over the kept text, cut into a few streams that are read side by side."""
        if self._valid is None:
            return None
        total, count, state = 0.0, 0, None
        device = self.model.embedding.weight.device
        for update in range(self._valid.updates):
            batch = _moved(self._valid.batch(update), device)
            features, state = run_window(self.model, batch, state)
            nll = self.model.nll(features, batch.targets)
            total += float(nll.double().sum())
            count += nll.numel()
        if self._sampled is not None:
            self._sampled(self._done)
        return total / count


def _moved(batch: StreamBatch, device: torch.device) -> StreamBatch:
    reset = None if batch.reset is None else batch.reset.to(device)
    return StreamBatch(batch.inputs.to(device), batch.targets.to(device), reset, batch.carry)
