"""The arguments of `Translator`, checked when they are made."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from recurra.checked import CheckedSettings
from recurra.errors import unknown
from recurra.nn.attention import Kind as AttentionKind
from recurra.nn.language import CELLS

Tokens = Literal["subword", "word", "char"]
Dropout = Field(default=0.0, ge=0.0, lt=1.0)


class CheckedModel(CheckedSettings):
    """Settings of translation, checked when they are made."""

    about = "translation"


class TranslationSettings(CheckedModel):
    """What a translator is made of, and how long it is trained; see `Translator`."""

    tokens: Tokens = "subword"
    vocab_size: int = Field(default=4000, ge=3, le=1_000_000)
    joint: bool = True
    cell: str = "gru"
    embedding_size: int = Field(default=128, ge=1, le=65_536)
    hidden_size: int = Field(default=256, ge=1, le=65_536)
    encoder_layers: int = Field(default=1, ge=1, le=64)
    decoder_layers: int = Field(default=2, ge=1, le=64)
    attention: AttentionKind = "multiplicative"
    input_feeding: bool = False
    subword_dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    word_dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    input_dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    hidden_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    output_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    weight_drop: float = Dropout
    recurrent_dropout: float = Dropout
    zoneout: float = Dropout
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    batch_tokens: int = Field(default=1500, ge=1)
    max_length: int = Field(default=100, ge=1)
    max_ratio: float = Field(default=5.0, ge=1.0)
    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    validation: float = Field(default=0.02, gt=0.0, le=0.5)
    patience: int | None = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cell not in CELLS:
            raise ValueError(unknown("cell", self.cell, CELLS))
        return self
