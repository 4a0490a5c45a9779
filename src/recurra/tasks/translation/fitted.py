"""The trained part of a translator: one value that saves, loads and translates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from recurra.errors import RunError
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.translation.network import TranslationNetwork
from recurra.tasks.translation.settings import TranslationSettings
from recurra.tasks.translation.tokens import TokenPair
from recurra.training.restore import read_config, restore_network

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
        config = read_config(run, RunConfig)
        tokens = TokenPair.load(run.tokenizer_path)
        weights, _ = read_tensors(run.model_path)
        settings = config.settings
        if settings.joint != tokens.joint:
            raise RunError(
                f"{run.tokenizer_path} does not fit {run.config_path}: Restore all files from the "
                "same run."
            )
        sizes = tokens.source.vocab_size, tokens.target.vocab_size
        network = restore_network(
            run,
            lambda: TranslationNetwork(*sizes, settings),
            weights,
            layers=settings.encoder_layers + settings.decoder_layers,
        )
        return cls(tokens, network, config.training, config.notes)
