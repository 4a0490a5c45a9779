"""A transcriber as the training loop wants it: batches of perturbed features, loss, errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.decoding.ctc import GreedyDecoder
from recurra.decoding.transducer import TransducerGreedy
from recurra.nn.transducer import transducer_loss
from recurra.tasks.speech.examples import Store
from recurra.tasks.speech.network import SpeechNetwork
from recurra.tasks.speech.perturbation import (
    change_loudness,
    mask_features,
    perturb_by_noise,
)
from recurra.tasks.speech.settings import Design, SpeechSettings
from recurra.tasks.speech.transducer import TransducerNetwork
from recurra.tasks.speech.wer import character_errors
from recurra.training.seeds import step_seed

Network = SpeechNetwork | TransducerNetwork
WIDEST_JOINT = 256
"""Units in which a transducer puts together what it heard and said, at most."""
_ORDER = 17
"""Purpose of the random numbers that put an epoch in order, beside those of the loop."""


class Batch(NamedTuple):
    """Normalised features (B, T, bins), frames (B,), all labels one after another, labels (B,)."""

    features: Tensor
    lengths: Tensor
    labels: Tensor
    label_lengths: Tensor


class SpeechTask:
    """Recordings to learn from, and recordings to stop by.

    The first epoch goes from short to long (Amodei et al. 2016, "Deep Speech 2", SortaGrad), later
    ones take batches of similar length in random order.

    noises        features (T, bins) of noise to mix in
    blank_share   of the frames of the last validation; None before one
    """

    def __init__(
        self,
        network: Network,
        train: Store,
        valid: Store | None,
        design: Design,
        settings: SpeechSettings,
        mean: Tensor,
        deviation: Tensor,
        noises: Sequence[Tensor] = (),
    ) -> None:
        self.model: Network = network
        self.blank_share: float | None = None
        self._train, self._valid = train, valid
        self._design, self._settings = design, settings
        self._mean, self._deviation, self._noises = mean, deviation, noises
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        self.updates = -(-len(train.examples) // settings.batch_size)
        """Updates in an epoch."""

    def batch(self, step: int, rng: torch.Generator) -> Batch:
        """Recordings of similar length, each at a random speed and loudness, in noise, masked."""
        epoch, number = divmod(step, self.updates)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        rows, chosen = [], self._epoch[1][number]
        for at in chosen:
            example = self._train.examples[at]
            speed = int(torch.randint(len(example.frames), (), generator=rng))
            features = torch.from_numpy(self._train.features(example, speed))
            features = change_loudness(features, self._settings.gain_db, rng)
            features = perturb_by_noise(features, self._noises, self._settings, rng)
            rows.append(mask_features(self._normalise(features), self._settings, rng))
        return make_batch(rows, [self._train.examples[at].labels for at in chosen])

    def loss(self, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        """Mean nats per character."""
        if isinstance(self.model, TransducerNetwork):
            labels = pad_labels(batch)
            logits, lengths = self.model(batch.features, batch.lengths, labels)
            nats = transducer_loss(logits.float(), lengths, labels, batch.label_lengths)
            return nats.sum() / batch.label_lengths.sum(), None
        logits, lengths = self.model(batch.features, batch.lengths)
        return ctc_loss(logits, lengths, batch.labels, batch.label_lengths), None

    def validate(self) -> float | None:
        """Wrong characters, as a share of those that are right, of the greedy search."""
        if self._valid is None:
            return None
        size = self._settings.batch_size
        ordered = self._valid.longest_first()
        device = self.model.head.weight.device
        texts, blanks, frames = [], 0, 0
        for begin in range(0, len(ordered), size):
            some = ordered[begin : begin + size]
            rows = [
                self._normalise(torch.from_numpy(self._valid.features(example))) for example in some
            ]
            batch = make_batch(rows, [example.labels for example in some])
            listener = encoder_of(self.model)
            outputs, lengths = listener(batch.features.to(device), batch.lengths.to(device))
            for row, length in zip(outputs, lengths.tolist(), strict=True):
                tokens, first = decode_greedily(self.model, row[:length])
                texts.append(self._design.decode(tokens))
                blanks += int((first.argmax(-1) == 0).sum())
                frames += length
        self.blank_share = blanks / max(1, frames)
        return character_errors([example.text for example in ordered], texts)

    def _normalise(self, features: Tensor) -> Tensor:
        return (features - self._mean) / self._deviation

    def _order(self, epoch: int) -> list[list[int]]:
        """The examples of each batch of an epoch, from the seed and the epoch alone."""
        lengths = torch.tensor([example.frames[0] for example in self._train.examples])
        size = self._settings.batch_size
        if epoch == 0:
            ordered = lengths.argsort(stable=True).tolist()
            return [ordered[k : k + size] for k in range(0, len(ordered), size)]
        rng = torch.Generator().manual_seed(step_seed(self._settings.seed, epoch, _ORDER))
        # Lengths a little blurred, so that a recording does not always have the same company.
        blurred = lengths * (1 + 0.2 * torch.rand(len(lengths), generator=rng))
        ordered = blurred.argsort().tolist()
        batches = [ordered[k : k + size] for k in range(0, len(ordered), size)]
        return [batches[k] for k in torch.randperm(len(batches), generator=rng).tolist()]


def make_batch(rows: Sequence[Tensor], labels: Sequence[Sequence[int]]) -> Batch:
    """Rows of features (T, bins) padded with zeros to the longest, and their labels."""
    return Batch(
        torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True),
        torch.tensor([len(row) for row in rows]),
        torch.tensor([label for row in labels for label in row]),
        torch.tensor([len(row) for row in labels]),
    )


def pad_labels(batch: Batch) -> Tensor:
    """The labels of each row (B, U), padded with zeros."""
    rows = torch.split(batch.labels, batch.label_lengths.tolist())
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def encoder_of(network: Network) -> SpeechNetwork:
    """The part that hears."""
    return network.encoder if isinstance(network, TransducerNetwork) else network


def decode_greedily(network: Network, outputs: Tensor) -> tuple[list[int], npt.NDArray[np.float32]]:
    """(labels, log p (steps, labels) of what comes first at each step) of the outputs of a sound.

    outputs   (steps, ·) of `encoder_of(network)`
    """
    if isinstance(network, TransducerNetwork):
        transducer = TransducerGreedy(network)
        rows = transducer.push(list(outputs))
        return [one.token for one in transducer.emissions], np.array(rows, np.float32)
    log_probs = outputs.log_softmax(-1).cpu().numpy()
    decoder = GreedyDecoder()
    decoder.push(log_probs)
    return [one.token for one in decoder.emissions], log_probs


def ctc_loss(logits: Tensor, lengths: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
    """−log p of the labels by CTC, in nats per character, the mean over the batch's characters."""
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    nats = F.ctc_loss(log_probs, labels, lengths, label_lengths, blank=0, reduction="sum")
    return nats / label_lengths.sum()


def make_network(design: Design) -> Network:
    """An untrained network of this design."""
    outputs = len(design.alphabet) + 1
    if design.criterion == "ctc":
        return _make_encoder(design, outputs)
    size = min(WIDEST_JOINT, design.hidden_size)
    return TransducerNetwork(_make_encoder(design, size), outputs, size, design.dropout)


def _make_encoder(design: Design, outputs: int) -> SpeechNetwork:
    return SpeechNetwork(
        design.bins,
        outputs,
        cell=design.cell,
        hidden_size=design.hidden_size,
        num_layers=design.num_layers,
        bidirectional=not design.streaming,
        stacked=design.stacked,
        look_ahead=design.steps_ahead,
        dropout=design.dropout,
    )
