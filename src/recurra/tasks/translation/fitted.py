"""The trained part of a translator: one value that saves, loads and translates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from recurra.errors import ConfigError, RunError
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.translation.network import TranslationNetwork
from recurra.tasks.translation.settings import TranslationSettings
from recurra.tasks.translation.tokens import TokenPair

TASK = "translation"


class RunConfig(BaseModel):
    """What config.json holds under `config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TranslationSettings
    training: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """A trained network and the tokens it reads and writes."""

    tokens: TokenPair
    network: TranslationNetwork
    training: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> TranslationSettings:
        """What it was made with."""
        return self.network.settings

    def save(self, run: RunFolder) -> None:
        """Write tokenizers, tensors and config.json, which seals them."""
        write_tensors(run.model_path, self.network.state_dict())
        self.tokens.save(run.tokenizer_path)
        config = RunConfig(settings=self.settings, training=dict(self.training), notes=self.notes)
        files = (run.model_path, run.tokenizer_path)
        run.write_config(TASK, config.model_dump(mode="json"), files)

    @classmethod
    def load(cls, run: RunFolder) -> Fitted:
        """Read a run folder; no code is run.

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
        tokens = TokenPair.load(run.tokenizer_path)
        weights, _ = read_tensors(run.model_path)
        network = _empty_network(run, weights, tokens, config.settings)
        network.load_state_dict(weights)
        return cls(tokens, network.eval(), config.training, config.notes)


def _empty_network(
    run: RunFolder, weights: Mapping[str, Tensor], tokens: TokenPair, settings: TranslationSettings
) -> TranslationNetwork:
    """A network whose shapes are those of the weights, compared before memory is taken for it."""
    advice = "Restore all files from the same run."
    if settings.joint != tokens.joint:
        raise RunError(f"{run.tokenizer_path} does not fit {run.config_path}: {advice}")
    sizes = tokens.source.vocab_size, tokens.target.vocab_size
    try:
        if settings.encoder_layers + settings.decoder_layers > len(weights):
            raise ConfigError(
                f"{settings.encoder_layers} and {settings.decoder_layers} layers out of "
                f"{len(weights)} tensors."
            )
        with torch.device("meta"):
            mould = TranslationNetwork(*sizes, settings)
    except (RuntimeError, ConfigError) as error:  # sizes whose product is no integer
        raise RunError(
            f"{run.config_path} describes no network: {str(error).splitlines()[0]} {advice}"
        ) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in mould.state_dict().items()}
    for name in sorted(shapes.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else None
        if found != shapes.get(name):
            raise RunError(
                f"{run.model_path} does not fit {run.config_path}: {name!r} has the shape {found}, "
                f"expected {shapes.get(name)}. {advice}"
            )
        if not torch.isfinite(weights[name]).all():
            raise RunError(
                f"{run.model_path} cannot be used: {name!r} has NaN or infinite numbers."
            )
    return TranslationNetwork(*sizes, settings)
