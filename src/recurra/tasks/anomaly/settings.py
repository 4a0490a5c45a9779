"""What a detector is made of: the validated settings that its config.json holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recurra.checked import CheckedSettings

WARMING = 50
"""Rows of a lane before its surprise means anything."""


class CheckedModel(CheckedSettings):
    """Settings of anomaly detection, checked when they are made."""

    about = "anomaly"


class AnomalySettings(CheckedModel):
    """The settings of `AnomalyDetector`, where each is explained."""

    model: Literal["memory", "forecaster"] = "memory"
    head: Literal["alarm", "segment"] = "alarm"
    threshold: float | None = Field(default=None, gt=0.0)
    false_alarms: float | None = Field(default=None, gt=0.0, le=1000.0)
    refractory: int = Field(default=100, ge=0)
    jump: float = Field(default=1.5, ge=0.0)
    relearn: int | None = Field(default=None, ge=100)
    hidden_size: int = Field(default=32, ge=1, le=1024)
    steps: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0.0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    time_format: str | None = None
