"""A classifier as the training loop wants it: batches of like lengths, cross entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.tasks.sentiment.batches import Batch, collate, like_lengths, order_of_epoch
from recurra.tasks.sentiment.calibration import find_temperature, nll
from recurra.tasks.sentiment.network import SentimentNetwork
from recurra.tasks.sentiment.words import Ids, WordTable
from recurra.training.nested import map_tensors

WORDS_A_BATCH = 8192
"""Words, padding among them, that are read side by side where nothing is learned."""


class Corpus:
    """Encoded texts: entries of `table`, naive-Bayes scores (N, C), labels (N,)."""

    def __init__(
        self, table: WordTable, texts: Sequence[Ids], lexical: Tensor, targets: Tensor | None
    ) -> None:
        self.table = table
        self.texts = texts
        self.lexical = lexical
        self.targets = targets
        self.lengths = np.array([len(text) for text in texts], np.int64)

    def batch(self, rows: Ids) -> Batch:
        """These texts side by side."""
        at = torch.from_numpy(rows)
        targets = None if self.targets is None else self.targets[at]
        return collate(self.table, [self.texts[k] for k in rows], self.lexical[at], targets)


@torch.no_grad()
def all_logits(network: SentimentNetwork, corpus: Corpus) -> Tensor:
    """Logits (N, C) of all texts on the CPU, in their order, in bounded memory."""
    device = network.embedding.weight.device
    logits = torch.empty(len(corpus.texts), network.head.out_features)
    for rows in like_lengths(corpus.lengths, WORDS_A_BATCH):
        batch = map_tensors(corpus.batch(rows), lambda part: part.to(device))
        logits[torch.from_numpy(rows)] = network(batch).cpu()
    return logits


class SentimentTask:
    """Texts to learn from, and texts to stop by."""

    def __init__(
        self, network: SentimentNetwork, train: Corpus, valid: Corpus, batch_size: int, seed: int
    ) -> None:
        self.model = network
        self._train = train
        self._valid = valid
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order: list[Ids] = []

    @property
    def steps_per_epoch(self) -> int:
        """Updates in which every text is seen once."""
        return -(-len(self._train.texts) // self._batch_size)

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """The next batch of the epoch; each epoch has an order of its own, drawn from the seed."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            drawn = np.random.default_rng([self._seed, epoch])
            self._order = order_of_epoch(self._train.lengths, self._batch_size, drawn)
            self._epoch = epoch
        return self._train.batch(self._order[at])

    def loss(self, batch: Batch, state: None) -> tuple[Tensor, None]:
        """Mean cross entropy, with the labels smoothed where asked."""
        smoothing = self.model.settings.label_smoothing
        assert batch.targets is not None
        return F.cross_entropy(self.model(batch), batch.targets, label_smoothing=smoothing), None

    def validate(self) -> float:
        """Mean −log p of the true labels at the best temperature, so that only order counts
        against a model and not how sure it is of itself: that is calibrated afterwards."""
        logits, targets = all_logits(self.model, self._valid), self._valid.targets
        assert targets is not None
        return nll(logits, targets, find_temperature(logits, targets))
