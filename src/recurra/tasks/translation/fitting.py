"""A translator as the training loop wants it: batches by token count, smoothed cross entropy."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from recurra.data.tokenizer import Ids
from recurra.tasks.translation.batches import Batch, Rows, collate, cut, order_of_epoch
from recurra.tasks.translation.network import TranslationNetwork
from recurra.tasks.translation.tokens import SubwordDropout, lengths
from recurra.training.nested import map_tensors

TOKENS_A_BATCH = 4096
"""Target tokens, padding among them, that are read side by side where nothing is learned."""


class Corpus:
    """Encoded pairs, each side with its end; `start_id` is what a target is thought to follow."""

    def __init__(self, sources: Sequence[Ids], targets: Sequence[Ids], start_id: int) -> None:
        self.sources = sources
        self.targets = targets
        self.start_id = start_id
        self.source_sizes = lengths(sources)
        self.target_sizes = lengths(targets)

    def batch(self, rows: Rows, change: Callable[[Ids], Ids] | None = None) -> Batch:
        """These pairs side by side, `change` applied to each source."""
        sources = [self.sources[k] for k in rows.tolist()]
        if change is not None:
            sources = [change(one) for one in sources]
        return collate(sources, [self.targets[k] for k in rows.tolist()], self.start_id)

    def like_lengths(self, tokens: int = TOKENS_A_BATCH) -> list[Rows]:
        """All pairs in batches of like lengths."""
        order = np.lexsort((self.source_sizes, self.target_sizes))
        return cut(order, np.maximum(self.source_sizes, self.target_sizes), tokens)


@torch.no_grad()
def all_log_probs(network: TranslationNetwork, corpus: Corpus) -> Tensor:
    """log p (N,) of every target, its end included, in nats, in their order."""
    device = network.bias.device
    totals = torch.empty(len(corpus.targets), dtype=torch.float64)
    for rows in corpus.like_lengths():
        batch = map_tensors(corpus.batch(rows), lambda part: part.to(device))
        o, _, _ = network.decode(batch.inputs, network.read(batch.source, batch.lengths))
        losses = torch.zeros(batch.real.shape, dtype=torch.float64, device=device)
        losses[batch.real] = network.loss(o[batch.real], batch.outputs[batch.real]).double()
        totals[torch.from_numpy(rows)] = -losses.sum(1).cpu()
    return totals


class TranslationTask:
    """Pairs to learn from, and pairs to stop by; `dropout` splits subwords of the sources."""

    def __init__(
        self,
        network: TranslationNetwork,
        train: Corpus,
        valid: Corpus,
        batch_tokens: int,
        seed: int,
        dropout: SubwordDropout | None = None,
    ) -> None:
        self.model = network
        self._dropout = dropout
        self._train = train
        self._valid = valid
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._epoch = 0
        self._order = self._draw(0)
        self._begins = [0, len(self._order)]  # the step each epoch begins with

    @property
    def steps_per_epoch(self) -> int:
        """Updates of the first epoch; others have about as many."""
        return self._begins[1]

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """The next batch of the epoch; each epoch has batches of its own, drawn from the seed."""
        while self._begins[-1] <= step:
            self._begins.append(self._begins[-1] + len(self._draw(len(self._begins) - 1)))
        epoch = bisect.bisect_right(self._begins, step) - 1
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(epoch)
        rows = self._order[step - self._begins[epoch]]
        dropout = self._dropout
        if dropout is None:
            return self._train.batch(rows)
        drawn = np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
        return self._train.batch(rows, lambda ids: dropout(ids, drawn))

    def loss(self, batch: Batch, state: None) -> tuple[Tensor, None]:
        """Mean smoothed cross entropy over the target tokens, in nats."""
        source = self.model.read(batch.source, batch.lengths)
        o, _, _ = self.model.decode(batch.inputs, source)
        return self.model.loss(o[batch.real], batch.outputs[batch.real]).mean(), None

    def validate(self) -> float:
        """Mean −log p of a target token, in nats."""
        total = all_log_probs(self.model, self._valid).sum()
        return float(-total / self._valid.target_sizes.sum())

    def _draw(self, epoch: int) -> list[Rows]:
        rng = np.random.default_rng([self._seed, epoch])
        sizes = self._train.source_sizes, self._train.target_sizes
        return order_of_epoch(*sizes, self._batch_tokens, rng)
