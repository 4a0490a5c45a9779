"""What a detector is made of: the validated settings that its config.json holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recurra.errors import invalid_settings

WARMING = 50
"""Rows of a lane before its surprise means anything."""


class CheckedModel(BaseModel):
    """Settings that raise a ConfigError naming every value that is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Hidden from type checkers, which know the keyword arguments from the fields above.
    if not TYPE_CHECKING:

        def __init__(self, /, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                fields = type(self).model_fields
                raise invalid_settings("anomaly", error.errors(), fields) from None


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
