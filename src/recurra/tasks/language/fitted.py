"""The trained part of a language model: one value that saves, loads, scores and writes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from recurra.data.tokenizer import Tokenizer, read_tokenizer, write_tokenizer
from recurra.decoding.sampling import Sampler
from recurra.errors import ConfigError, RunError
from recurra.nn.language import LanguageNetwork
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.language.settings import Design

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
        sealed = run.read_config()
        run.check_files(sealed)
        try:
            config = RunConfig.model_validate(sealed["config"])
        except (ValidationError, ConfigError) as error:
            raise RunError(
                f"{run.config_path} is damaged or was edited: {str(error).splitlines()[0]} "
                "Restore it from a copy or train again."
            ) from error
        tokenizer = read_tokenizer(run.tokenizer_path)
        weights, _ = read_tensors(run.model_path)
        tensors, _ = read_tensors(run.state_path)
        _check_fit(weights, tensors, tokenizer, config, run)
        network = make_network(tokenizer.vocab_size, config.design).eval()
        network.load_state_dict(weights)
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


def _check_fit(
    weights: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    config: RunConfig,
    run: RunFolder,
) -> None:
    """Compare all shapes before any memory is taken for a network of the config's size."""
    advice = "Restore all files from the same run."
    if config.design.num_layers > len(weights):  # each has several; never build a billion
        raise RunError(
            f"{run.model_path} does not fit {run.config_path}: {config.design.num_layers} layers "
            f"out of {len(weights)} tensors. {advice}"
        )
    try:
        with torch.device("meta"):
            mould = make_network(tokenizer.vocab_size, config.design)
    except (RuntimeError, ConfigError) as error:  # sizes whose product is no integer
        raise RunError(
            f"{run.config_path} describes no network: {str(error).splitlines()[0]} {advice}"
        ) from error
    shapes = {name: tensor.shape for name, tensor in mould.state_dict().items()}
    trained = {name: parameter.shape for name, parameter in mould.named_parameters()}
    stored = {f"{_SCALE}{name}": shape for name, shape in trained.items()}
    stored[_COUNTS] = torch.Size([tokenizer.vocab_size])
    for path, found, wanted in (
        (run.model_path, weights, shapes),
        (run.state_path, tensors, stored),
    ):
        for name in sorted(found.keys() | wanted.keys()):
            shape = tuple(found[name].shape) if name in found else None
            expected = tuple(wanted[name]) if name in wanted else None
            if shape != expected:
                raise RunError(
                    f"{path} does not fit {run.config_path} and a vocabulary of "
                    f"{tokenizer.vocab_size} tokens: {name!r} has the shape {shape}, expected "
                    f"{expected}. {advice}"
                )
            if not torch.isfinite(found[name]).all():
                raise RunError(f"{path} cannot be used: {name!r} has NaN or infinite numbers.")
