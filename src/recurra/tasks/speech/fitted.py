"""The trained part of a transcriber: one value that saves, loads, transcribes and streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from recurra.data.audio import Samples
from recurra.data.logmel import log_mel
from recurra.decoding.ctc import GreedyDecoder, PrefixBeam, Scorer, align
from recurra.decoding.transducer import TransducerBeam, TransducerGreedy
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.speech.fitting import Network, decode_greedily, encoder_of, make_network
from recurra.tasks.speech.settings import Design
from recurra.tasks.speech.transcripts import Transcript, make_transcript
from recurra.tasks.speech.transducer import TransducerNetwork
from recurra.training.restore import check_tensors, read_config, restore_network

TASK = "speech"
Decoder = GreedyDecoder | TransducerGreedy


class RunConfig(BaseModel):
    """What config.json holds under `config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    design: Design
    commonest: str
    training: dict[str, Any]
    speech: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """A trained network, and what its features are normalised by.

    mean, deviation   (bins,) of the training recordings' features; one for all, so that sound is
                      heard the same whole and in pieces
    commonest         the commonest transcript of the training, which is the naive answer
    """

    design: Design
    network: Network
    mean: Tensor
    deviation: Tensor
    commonest: str
    training: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()

    def normalise(self, features: npt.NDArray[np.float32]) -> Tensor:
        """Features (T, bins) as the network takes them."""
        return (torch.from_numpy(features) - self.mean) / self.deviation

    @torch.no_grad()
    def listen(self, samples: Samples) -> Tensor:
        """What the network hears at every step (steps, ·) of whole samples, for a decoder."""
        features = self.normalise(log_mel(samples, self.design.sample_rate, self.design.bins))
        encoder = encoder_of(self.network)
        if len(features) < self.design.stacked:
            return torch.zeros(0, encoder.head.out_features)
        outputs: Tensor = encoder(features[None], torch.tensor([len(features)]))[0]
        return outputs[0]

    def log_probs(self, samples: Samples) -> npt.NDArray[np.float32]:
        """log p (steps, 1 + len(alphabet)) of the blank and every character, of whole samples.

        Of a transducer: of what comes first at each step, after what a greedy search said before.
        """
        outputs = self.listen(samples)
        if not len(outputs):
            return np.zeros((0, len(self.design.alphabet) + 1), np.float32)
        return decode_greedily(self.network, outputs)[1]

    def make_decoder(self) -> Decoder:
        """A greedy search, of `scores`."""
        if isinstance(self.network, TransducerNetwork):
            return TransducerGreedy(self.network)
        return GreedyDecoder()

    def scores(self, outputs: Tensor) -> Any:
        """Outputs of the network as its decoders take them: log p, or what a transducer heard."""
        return outputs if isinstance(self.network, TransducerNetwork) else log_softmax(outputs)

    def transcribe(
        self, samples: Samples, width: int | None = None, scorer: Scorer | None = None
    ) -> Transcript:
        """What is said in samples at the model's rate.

        width    the likeliest text that a prefix beam of so many finds; None: the likeliest label
                 at every step
        scorer   what the beam adds to the sound, see `Search.scorer`
        """
        scores = self.scores(self.listen(samples))
        if width is None:
            decoder = self.make_decoder()
            decoder.push(scores)
            return make_transcript(decoder.emissions, self.design)
        if isinstance(self.network, TransducerNetwork):
            search = TransducerBeam(self.network, width, scorer=scorer)
            search.push(scores)
            return make_transcript(search.emissions, self.design)
        beam = PrefixBeam(width, scorer=scorer)
        beam.push(scores)
        return make_transcript(align(scores, beam.best()[0][0]), self.design)

    def save(self, run: RunFolder, speech: Mapping[str, Any]) -> None:
        """Write tensors and config.json, which seals them."""
        write_tensors(run.model_path, self.network.state_dict())
        write_tensors(run.state_path, {"mean": self.mean, "deviation": self.deviation})
        config = RunConfig(
            design=self.design,
            commonest=self.commonest,
            training=dict(self.training),
            speech=dict(speech),
            notes=self.notes,
        )
        run.write_config(TASK, config.model_dump(mode="json"), (run.model_path, run.state_path))

    @classmethod
    def load(cls, run: RunFolder) -> tuple[Fitted, dict[str, Any]]:
        """(fitted, the arguments of `Transcriber`) from a run folder; no code is run.

        Raises: RunError when a file is damaged or the files do not belong together.
        """
        config = read_config(run, RunConfig)
        weights, _ = read_tensors(run.model_path)
        tensors, _ = read_tensors(run.state_path)
        network = restore_network(
            run,
            lambda: make_network(config.design),
            weights,
            layers=config.design.num_layers,
        )
        bins = (config.design.bins,)
        check_tensors(run, run.state_path, tensors, {"mean": bins, "deviation": bins})
        fitted = cls(
            config.design,
            network,
            tensors["mean"],
            tensors["deviation"],
            config.commonest,
            config.training,
            config.notes,
        )
        return fitted, config.speech


def log_softmax(logits: Tensor) -> npt.NDArray[np.float32]:
    """log p of logits (T, outputs), the bits of each row its own."""
    return logits.log_softmax(-1).numpy()
