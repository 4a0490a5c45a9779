"""The trained part of a classifier: one value that saves, loads, predicts and explains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from recurra.errors import RunError
from recurra.runs import RunFolder, read_json, read_tensors, write_bytes, write_tensors
from recurra.tasks.sentiment.fitting import Corpus, all_logits
from recurra.tasks.sentiment.naive_bayes import NaiveBayes
from recurra.tasks.sentiment.network import SentimentNetwork
from recurra.tasks.sentiment.settings import SentimentSettings
from recurra.tasks.sentiment.words import Ids, Vocabulary, WordTable, written_words
from recurra.training.restore import check_tensors, read_config, restore_network

TASK = "sentiment"
_FORMAT = 1
_TOGETHER = 4096  # texts whose words are held in memory side by side


class RunConfig(BaseModel):
    """What config.json holds under `config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: SentimentSettings
    labels: tuple[str, ...] = Field(min_length=2)
    temperature: float = Field(gt=0)
    training: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """A trained network and all that goes with it.

    temperature   what logits are divided by
    seen          fingerprints of the training texts, sorted
    """

    labels: tuple[str, ...]
    vocabulary: Vocabulary
    bayes: NaiveBayes
    network: SentimentNetwork
    temperature: float
    seen: Ids = field(repr=False)
    training: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits (N, C) of some texts, not divided by the temperature."""
        parts = [torch.empty(0, len(self.labels))]
        for begin in range(0, len(texts), _TOGETHER):
            words = [written_words(text) for text in texts[begin : begin + _TOGETHER]]
            table = WordTable(self.vocabulary)
            scores = np.stack([self.bayes.score(text) for text in words])
            corpus = Corpus(
                table, [table.add(text) for text in words], torch.from_numpy(scores), None
            )
            parts.append(all_logits(self.network, corpus))
        return torch.cat(parts)

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (N, C) of the labels."""
        return self.calibrated(self.logits(texts))

    def calibrated(self, logits: Tensor) -> npt.NDArray[np.float64]:
        """Probabilities (N, C) out of logits."""
        return torch.softmax(logits.double() / self.temperature, dim=1).numpy()

    def save(self, run: RunFolder) -> None:
        """Write vocabulary, tensors and config.json, which seals them."""
        write_tensors(run.model_path, self.network.state_dict())
        counts = {
            "counts": torch.from_numpy(self.bayes.counts),
            "texts": torch.from_numpy(self.bayes.texts),
            "seen": torch.from_numpy(self.seen),
        }
        write_tensors(run.state_path, counts)
        words = {
            "format": _FORMAT,
            "vocabulary": self.vocabulary.to_json(),
            "features": self.bayes.features,
        }
        write_bytes(run.tokenizer_path, json.dumps(words, ensure_ascii=False).encode() + b"\n")
        config = RunConfig(
            settings=self.network.settings,
            labels=self.labels,
            temperature=self.temperature,
            training=dict(self.training),
            notes=self.notes,
        )
        files = (run.model_path, run.state_path, run.tokenizer_path)
        run.write_config(TASK, config.model_dump(mode="json"), files)

    @classmethod
    def load(cls, run: RunFolder) -> Fitted:
        """Read a run folder; no code is run.

        Raises: RunError when a file is damaged or the files do not belong together.
        """
        config = read_config(run, RunConfig)
        vocabulary, features = _read_words(run)
        weights, _ = read_tensors(run.model_path)
        tensors, _ = read_tensors(run.state_path)
        labels = len(config.labels)
        shapes = {
            "counts": (len(features), labels),
            "texts": (labels,),
            "seen": (tensors["seen"].numel() if "seen" in tensors else 0,),
        }
        check_tensors(run, run.state_path, tensors, shapes)
        network = restore_network(
            run,
            lambda: SentimentNetwork(vocabulary.size, labels, config.settings),
            weights,
            layers=config.settings.num_layers,
        )
        bayes = NaiveBayes(features, tensors["counts"].numpy(), tensors["texts"].numpy())
        return cls(
            config.labels,
            vocabulary,
            bayes,
            network,
            config.temperature,
            tensors["seen"].numpy(),
            config.training,
            config.notes,
        )


def _read_words(run: RunFolder) -> tuple[Vocabulary, list[str]]:
    value = read_json(run.tokenizer_path)
    try:
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ValueError(f"expected an object of format {_FORMAT}")
        features = value.get("features")
        if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
            raise ValueError("its features are no texts")
        return Vocabulary.from_json(value.get("vocabulary")), features
    except ValueError as error:
        raise RunError(
            f"{run.tokenizer_path} holds no words of ours: {error}. Restore it from a copy or "
            "train again."
        ) from error
