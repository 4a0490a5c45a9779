"""The arguments of `SentimentClassifier`, checked when they are made."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from recurra.checked import CheckedSettings
from recurra.errors import unknown
from recurra.nn.language import CELLS

Pooling = Literal["max", "mean", "last", "attention"]
Probability = Field(default=0.0, ge=0.0, lt=1.0)


class CheckedModel(CheckedSettings):
    """Settings of sentiment analysis, checked when they are made."""

    about = "sentiment"


class SentimentSettings(CheckedModel):
    """What a classifier is made of, and how long it is trained; see `SentimentClassifier`."""

    text: str = Field(default="text", min_length=1)
    label: str = Field(default="label", min_length=1)
    cell: str = "gru"
    hidden_size: int = Field(default=128, ge=1, le=65_536)
    num_layers: int = Field(default=1, ge=1, le=64)
    bidirectional: bool = True
    embedding_size: int = Field(default=100, ge=1, le=65_536)
    vocab_size: int = Field(default=30_000, ge=1, le=10_000_000)
    min_count: int = Field(default=2, ge=1)
    buckets: int = Field(default=16_384, ge=0, le=100_000_000)
    pooling: tuple[Pooling, ...] = Field(default=("max", "mean"), min_length=1)
    lexical_features: int = Field(default=100_000, ge=0, le=10_000_000)
    word_dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    input_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    hidden_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    output_dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    weight_drop: float = Probability
    recurrent_dropout: float = Probability
    zoneout: float = Probability
    label_smoothing: float = Probability
    chunk: int = Field(default=128, ge=1)
    train_words: int = Field(default=400, ge=2)
    batch_size: int = Field(default=32, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    validation: float = Field(default=0.1, gt=0.0, le=0.5)
    patience: int | None = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cell not in CELLS:
            raise ValueError(unknown("cell", self.cell, CELLS))
        if len(set(self.pooling)) != len(self.pooling):
            raise ValueError(f"pooling={list(self.pooling)} names one way twice")
        if self.text == self.label:
            raise ValueError(f"text and label are both the column {self.text!r}; expected two")
        return self
