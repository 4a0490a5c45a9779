"""The trained part of a language model: one value that saves, loads, scores and writes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from recurra.data.tokenizer import Tokenizer, read_tokenizer, write_tokenizer
from recurra.decoding.sampling import Sampler
from recurra.errors import ConfigError
from recurra.nn.language import LanguageNetwork
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.language.settings import Design
from recurra.training.restore import check_tensors, read_config, restore_network

TASK = "language"
_COUNTS = "counts"
_SCALE = "gradients/"


class RunConfig(BaseModel):
    """What config.json holds under `config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    design: Design
    training: dict[str, Any]
    language: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """A trained network and its tokenizer.

    counts            (vocab_size,) int64, how often the training text has each token
    gradient_scale    the root mean square of each parameter's gradient over the training text, by
                      name, which dynamic evaluation divides its steps by
    """

    tokenizer: Tokenizer
    design: Design
    network: LanguageNetwork
    counts: Tensor
    gradient_scale: Mapping[str, Tensor] = field(repr=False)
    training: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def sampler(self, **rules: Any) -> Sampler:
        """A sampler for this model, with the rules of `recurra.decoding.sampling.Sampler`.

        Tokens that are `never_written` are never drawn.
        """
        return Sampler(banned=rules.pop("banned", self.never_written), **rules)

    @property
    def never_written(self) -> tuple[int, ...]:
        """The unknown token, where the training text did not have it."""
        unk = self.tokenizer.unk_id
        return () if unk is None or int(self.counts[unk]) else (unk,)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def save(self, run: RunFolder, language: Mapping[str, Any]) -> None:
        """Write tokenizer, tensors and config.json, which seals them."""
        write_tensors(run.model_path, self.network.state_dict())
        scale = {f"{_SCALE}{name}": tensor for name, tensor in self.gradient_scale.items()}
        write_tensors(run.state_path, {_COUNTS: self.counts, **scale})
        write_tokenizer(run.tokenizer_path, self.tokenizer)
        config = RunConfig(
            design=self.design,
            training=dict(self.training),
            language=dict(language),
            notes=self.notes,
        )
        files = (run.model_path, run.state_path, run.tokenizer_path)
        run.write_config(TASK, config.model_dump(mode="json"), files)

    @classmethod
    def load(cls, run: RunFolder) -> tuple[Fitted, dict[str, Any]]:
        """(fitted, the arguments of `LanguageModel`) from a run folder; no code is run.

        Raises: RunError when a file is damaged or the files do not belong together.
        """
        config = read_config(run, RunConfig)
        tokenizer = read_tokenizer(run.tokenizer_path)
        weights, _ = read_tensors(run.model_path)
        tensors, _ = read_tensors(run.state_path)
        fits = f" and a vocabulary of {tokenizer.vocab_size} tokens"
        network = restore_network(
            run,
            lambda: make_network(tokenizer.vocab_size, config.design),
            weights,
            layers=config.design.num_layers,
            fits=fits,
        )
        named = network.named_parameters()
        shapes = {f"{_SCALE}{name}": tuple(parameter.shape) for name, parameter in named}
        shapes[_COUNTS] = (tokenizer.vocab_size,)
        check_tensors(run, run.state_path, tensors, shapes, fits=fits)
        counts = tensors.pop(_COUNTS)
        scale = {name.removeprefix(_SCALE): tensor for name, tensor in tensors.items()}
        fitted = cls(
            tokenizer, config.design, network, counts, scale, config.training, config.notes
        )
        return fitted, config.language


def make_network(vocab_size: int, design: Design) -> LanguageNetwork:
    """An untrained network of this design.

    Raises: ConfigError for a vocabulary or a cell that does not fit the design.
    """
    options = {
        name: getattr(design, name)
        for name in ("weight_drop", "recurrent_dropout", "zoneout")
        if getattr(design, name)
    }
    if design.cutoffs and design.cutoffs[-1] >= vocab_size:
        raise ConfigError(
            f"cutoffs={list(design.cutoffs)} do not fit the vocabulary of {vocab_size} tokens; "
            f"expected cut-offs below {vocab_size}. Leave them out, or give a larger vocab_size."
        )
    return LanguageNetwork(
        vocab_size,
        cell=design.cell,
        hidden_size=design.hidden_size,
        num_layers=design.num_layers,
        embedding_size=design.embedding_size,
        tied=design.tied,
        norm=design.norm,
        residual=design.residual,
        cutoffs=design.cutoffs,
        embedding_dropout=design.embedding_dropout,
        input_dropout=design.input_dropout,
        hidden_dropout=design.hidden_dropout,
        output_dropout=design.output_dropout,
        locked=design.locked,
        layer_options=options,
    )
