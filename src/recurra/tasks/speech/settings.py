"""What a transcriber is made of: the arguments of `Transcriber`, and the design they give."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from recurra.checked import CheckedSettings
from recurra.data.logmel import FRAMES_PER_S

CellName = Literal[
    "lstm", "gru", "rnn", "ind-rnn", "lem", "min-gru", "min-lstm", "rg-lru", "lru", "slstm", "mlstm"
]
Criterion = Literal["ctc", "transducer"]
TRAINING: dict[str, Any] = {
    "learning_rate": 1.5e-3,
    "weight_decay": 0.01,
    "warmup_steps": 100,
    "cooldown_share": 0.6,
}
"""Settings of the training loop that a transcriber has of its own."""


class CheckedModel(CheckedSettings):
    """Settings of speech recognition, checked when they are made."""

    about = "speech"


class SpeechSettings(CheckedModel):
    """The arguments of `Transcriber`; see there. None leaves a choice to `streaming`."""

    streaming: bool = False
    look_ahead_ms: int = Field(default=300, ge=0, le=5000)
    sample_rate: int = Field(default=16_000, ge=4000, le=48_000, multiple_of=FRAMES_PER_S)
    bins: int = Field(default=80, ge=8, le=256)
    stacked: int = Field(default=3, ge=1, le=8)
    cell: CellName = "lstm"
    hidden_size: int | None = Field(default=None, ge=1, le=65_536)
    num_layers: int = Field(default=3, ge=1, le=64)
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    criterion: Criterion = "ctc"
    alphabet: str | None = Field(default=None, min_length=1, max_length=20_000)
    subwords: int | None = Field(default=None, ge=2, le=20_000)
    batch_size: int = Field(default=16, ge=1)
    speeds: tuple[float, ...] = Field(default=(0.9, 1.0, 1.1), min_length=1, max_length=16)
    gain_db: float = Field(default=6.0, ge=0.0, le=60.0)
    noise_db: tuple[float, float] | None = None
    noise_share: float = Field(default=0.5, ge=0.0, le=1.0)
    frequency_masks: int = Field(default=2, ge=0, le=16)
    frequency_width: int = Field(default=15, ge=0, le=256)
    time_masks: int = Field(default=2, ge=0, le=64)
    time_width: int = Field(default=25, ge=0, le=1000)
    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    validation: float = Field(default=0.05, ge=0.0, le=0.5)
    patience: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    training: dict[str, Any] = Field(default_factory=dict)

    @field_validator("speeds")
    @classmethod
    def _check_speeds(cls, speeds: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0.5 <= speed <= 2.0 for speed in speeds):
            raise ValueError("speeds between 0.5 and 2")
        return speeds

    @field_validator("noise_db")
    @classmethod
    def _check_noise(cls, noise_db: tuple[float, float] | None) -> tuple[float, float] | None:
        if noise_db is not None and not -20 <= noise_db[0] <= noise_db[1] <= 100:
            raise ValueError("two ratios in dB from -20 to 100, the lower one first")
        return noise_db

    @field_validator("alphabet")
    @classmethod
    def _check_alphabet(cls, alphabet: str | None) -> str | None:
        if alphabet is not None and len(set(alphabet)) < len(alphabet):
            raise ValueError("each character once")
        return alphabet

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.alphabet is not None and self.subwords is not None:
            raise ValueError("alphabet and subwords are both given; subwords find their own")
        return self

    @property
    def steps_ahead(self) -> int:
        """Steps of the future that a streaming network waits for, at most `look_ahead_ms`."""
        if not self.streaming:
            return 0
        return self.look_ahead_ms * FRAMES_PER_S // (1000 * self.stacked)

    @property
    def units(self) -> int:
        """Units of a layer, in each direction."""
        return self.hidden_size or (384 if self.streaming else 256)


class Design(CheckedModel):
    """The network and what it hears, every value decided: all that a run needs to be used.

    alphabet    the characters, or subwords, in the order of their labels, which begin at 1; 0 is
                the blank
    criterion   what it was trained by; runs that do not say are of CTC
    """

    sample_rate: int = Field(ge=4000, le=48_000, multiple_of=FRAMES_PER_S)
    bins: int = Field(ge=8, le=256)
    stacked: int = Field(ge=1, le=8)
    cell: CellName
    hidden_size: int = Field(ge=1, le=65_536)
    num_layers: int = Field(ge=1, le=64)
    dropout: float = Field(ge=0.0, lt=1.0)
    streaming: bool
    steps_ahead: int = Field(ge=0, le=500)
    alphabet: str | tuple[str, ...] = Field(min_length=1)
    criterion: Criterion = "ctc"

    @property
    def step_s(self) -> float:
        """Seconds from one answer of the network to the next."""
        return self.stacked / FRAMES_PER_S

    def decode(self, labels: Any) -> str:
        """The text of labels."""
        return "".join(self.alphabet[int(label) - 1] for label in labels)


def decide(settings: SpeechSettings, alphabet: str | tuple[str, ...]) -> Design:
    """The design that these settings and this alphabet give."""
    return Design(
        sample_rate=settings.sample_rate,
        bins=settings.bins,
        stacked=settings.stacked,
        cell=settings.cell,
        hidden_size=settings.units,
        num_layers=settings.num_layers,
        dropout=settings.dropout,
        streaming=settings.streaming,
        steps_ahead=settings.steps_ahead,
        alphabet=alphabet,
        criterion=settings.criterion,
    )
