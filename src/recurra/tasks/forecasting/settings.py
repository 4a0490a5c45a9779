"""What a forecaster is made of: the validated settings that its config.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from recurra.checked import CheckedSettings
from recurra.errors import ConfigError, unknown
from recurra.nn.quantile import check_quantile_levels
from recurra.runs import MOST_MEMBERS

QUANTILE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
Loss = Literal["scaled", "relative", "balanced", "competition", "huber"]
Head = Literal["quantiles", "counts"]
Design = Literal["forking", "segments", "autoregressive"]
Weights = Literal["equal", "validation"]
MEMBER_FIELDS = (
    "model",
    "segment",
    "linear",
    "context",
    "stride",
    "sequence_length",
    "cell",
    "hidden_size",
    "num_layers",
    "dropout",
    "skip",
    "profile",
    "level",
    "aligned",
    "smoothing",
    "loss",
    "steps",
    "batch_size",
    "training",
)
"""The settings in which the networks of an ensemble may differ."""
SEEDS_APART = 1000
WINDOWED_ONLY: dict[str, Any] = {
    "stride": 1,
    "sequence_length": 1,
    "profile": 0,
    "level": None,
    "smoothing": False,
}
ONLY: dict[str, dict[str, Any]] = {
    "segments": {**WINDOWED_ONLY, "cell": "gru", "num_layers": 1, "skip": None},
    "autoregressive": WINDOWED_ONLY,
}
"""What the designs that read a window alone have no choice in."""
ONLY_WHY = {
    "stride": "which has no steps between windows",
    "sequence_length": "which has no steps between windows",
    "cell": "which is a GRU",
    "num_layers": "which has one layer",
    "skip": "which has no seasonal skip",
    "profile": "which sees its window alone",
    "level": "whose windows have their last value as level",
    "smoothing": "which sees its window as it is",
}


class CheckedModel(CheckedSettings):
    """Settings of forecasting, checked when they are made."""

    about = "forecaster"


class ModelSettings(CheckedModel):
    """Shape of the network and of the window that each of its steps sees; checked when made.

    model    "forking", "segments" or "autoregressive", see `network.py`, `segments.py` and
             `autoregressive.py`; the latter two have a window and no steps: stride and
             sequence_length are 1
    segment  rows in a segment of the window, with model="segments"
    linear   whether a linear map of the window, solved in closed form, carries the forecast of
             model="segments", which then learns what is missing
    horizon  steps ahead                     context  rows in the window of one step
    season   rows in one season, 1 for none  stride   rows between two recurrent steps
    sequence_length  recurrent steps of one training sequence
    loss     what errors are measured in while training, see `losses.py`
    skip     rows that a seasonal skip path looks back before training, a season when None; a week,
             say, where days are the season but weeks repeat better
    profile  past seasons, of `skip` rows when that is given, whose mean shape the network sees
             besides the window; 0 for none
    level    rows at the end of a window whose mean is its level; a season, where one fits in the
             window, or else the last row alone when None
    aligned  whether training windows end whole seasons before the end of each series, at the phase
             of the forecast after it, in place of anywhere
    smoothing  whether level and season of each window are taken out by exponential smoothing, whose
             rates are learned, and carried on into the forecast, see `smoothing.py`
    head     "quantiles", or "counts" for a negative binomial distribution, see `counts.py`
    """

    model: Design = "forking"
    segment: int | None = Field(default=None, ge=1, le=100_000)
    linear: bool = False
    horizon: int = Field(ge=1, le=10_000)
    context: int = Field(ge=1, le=100_000)
    season: int = Field(ge=1, le=10_000_000)
    stride: int = Field(ge=1, le=100_000)
    sequence_length: int = Field(ge=1, le=100_000)
    cell: Literal["gru", "lstm", "rnn"] = "gru"
    hidden_size: int = Field(default=128, ge=1, le=16_384)
    num_layers: int = Field(default=1, ge=1, le=64)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    quantile_levels: tuple[float, ...] = QUANTILE_LEVELS
    loss: Loss = "scaled"
    skip: int | None = Field(default=None, ge=1)
    profile: int = Field(default=0, ge=0, le=1000)
    level: int | None = Field(default=None, ge=1)
    aligned: bool = False
    smoothing: bool = False
    head: Head = "quantiles"

    @field_validator("quantile_levels")
    @classmethod
    def _check_levels(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return check_quantile_levels(value)

    @model_validator(mode="after")
    def _check_design(self) -> ModelSettings:
        if self.model != "segments":
            for name in ("segment", "linear"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name}={getattr(self, name)} has no meaning with model={self.model!r}; "
                        "leave it out, or use model='segments'"
                    )
        for name, only in ONLY.get(self.model, {}).items():
            value = getattr(self, name)
            if value != only:
                raise ValueError(
                    f"{name}={value!r} has no meaning with model={self.model!r}, "
                    f"{ONLY_WHY[name]}; leave it out, or use model='forking'"
                )
        if self.model == "segments" and (self.segment is None or self.segment > self.context):
            raise ValueError(
                f"segment={self.segment} does not fit into the window of context={self.context} "
                "rows; expected a smaller one, or a larger context"
            )
        if self.model == "autoregressive" and (len(self.quantile_levels) < 2 or self.context < 2):
            raise ValueError(
                f"model='autoregressive' draws each row from its quantiles, after those of a "
                f"window; expected two quantile_levels or more, not {list(self.quantile_levels)}, "
                f"and a context of 2 rows or more, not {self.context}"
            )
        return self

    @model_validator(mode="after")
    def _check_skip(self) -> ModelSettings:
        if self.skip is not None and self.skip > self.context:
            raise ValueError(
                f"skip={self.skip} looks back beyond the window of context={self.context} rows; "
                "expected a smaller one, or a larger context"
            )
        return self

    @model_validator(mode="after")
    def _check_profile(self) -> ModelSettings:
        if self.profile and self.period < 2:
            raise ValueError(
                f"profile={self.profile} needs a season of two rows or more, and season is "
                f"{self.season}; give season, or leave profile out"
            )
        return self

    @model_validator(mode="after")
    def _check_level(self) -> ModelSettings:
        if self.level is not None and self.level > self.context:
            raise ValueError(
                f"level={self.level} is the mean of more rows than the window has, which is "
                f"context={self.context}; expected a smaller one, or a larger context"
            )
        if self.aligned and self.season < 2:
            raise ValueError(
                f"aligned=True needs a season of two rows or more, and season is {self.season}; "
                "give season, or leave aligned out"
            )
        return self

    @model_validator(mode="after")
    def _check_smoothing(self) -> ModelSettings:
        if self.smoothing and not 2 <= self.period <= self.context // 2:
            raise ValueError(
                f"smoothing=True needs two whole seasons in a window, and the window has "
                f"context={self.context} rows, a season {self.period}; expected a season of two "
                "rows or more and a context of twice that, or no smoothing"
            )
        if self.smoothing and self.profile:
            raise ValueError(
                f"profile={self.profile} has no meaning with smoothing=True, which has a season "
                "of its own; leave one of them out"
            )
        return self

    @property
    def level_rows(self) -> int:
        """Rows at the end of a window whose mean is its level."""
        return self.level or (self.season if self.season_in_window else 1)

    @property
    def period(self) -> int:
        """Rows that the seasonal skip path, the profile and the smoothing look back."""
        return self.skip or self.season

    @property
    def profile_size(self) -> int:
        """Columns of the profile: the steps ahead, up to one period."""
        return min(self.horizon, self.period) if self.profile else 0

    @property
    def rows_read(self) -> int:
        """Rows up to an origin that its window and profile are made of."""
        return max(self.context, self.profile * self.period)

    @property
    def window_size(self) -> int:
        """Columns of the window of one step, the profile included."""
        return self.context + self.profile_size

    @model_validator(mode="after")
    def _check_head(self) -> ModelSettings:
        if self.head == "counts" and (self.windowed or self.loss != "scaled"):
            raise ValueError(
                f"head='counts' has a likelihood of its own and goes with model='forking' and "
                f"loss='scaled', not model={self.model!r} and loss={self.loss!r}; leave these out"
            )
        return self

    @property
    def windowed(self) -> bool:
        """Whether a forecast depends on the last `context` rows alone, and no state is kept."""
        return self.model != "forking"

    @property
    def season_in_window(self) -> bool:
        """Whether a whole season fits in the window, so that the window itself shows the phase."""
        return 1 < self.season <= self.context

    @property
    def long_season(self) -> bool:
        """Whether the season is longer than the window; last season's rows are then an input."""
        return self.season > self.context

    @property
    def season_smoothing(self) -> int:
        """Rows on either side over which last season's value is averaged when it is long."""
        return min(7, self.season // 24)

    @property
    def reach(self) -> int:
        """Rows before an origin that its step reads, the origin included."""
        if self.windowed:
            return self.context
        season = self.season + self.season_smoothing if self.long_season else 0
        return max(self.rows_read, season) + self.stride


class ForecasterSettings(CheckedModel):
    """The arguments of `Forecaster`; None leaves a choice to the data."""

    model: Design = "forking"
    segment: int | None = Field(default=None, ge=1, le=100_000)
    linear: bool = False
    horizon: int = Field(ge=1, le=10_000)
    context: int | None = Field(default=None, ge=1, le=100_000)
    season: int | None = Field(default=None, ge=1, le=10_000_000)
    stride: int | None = Field(default=None, ge=1, le=100_000)
    sequence_length: int | None = Field(default=None, ge=1, le=100_000)
    cell: Literal["gru", "lstm", "rnn"] = "gru"
    hidden_size: int = Field(default=128, ge=1, le=16_384)
    num_layers: int = Field(default=1, ge=1, le=64)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    quantile_levels: tuple[float, ...] = QUANTILE_LEVELS
    loss: Loss = "scaled"
    skip: int | None = Field(default=None, ge=1)
    profile: int = Field(default=0, ge=0, le=1000)
    level: int | None = Field(default=None, ge=1)
    aligned: bool = False
    smoothing: bool = False
    head: Head = "quantiles"
    logarithm: bool | None = None
    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=48, ge=1)
    validation: float = Field(default=0.15, ge=0.0, le=0.5)
    patience: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    frequency: str | None = None
    duplicates: Literal["error", "mean", "first", "last"] = "error"
    time_format: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    ensemble: int | tuple[dict[str, Any], ...] = 1
    weights: Weights = "equal"
    calibrate: bool = False

    @field_validator("ensemble")
    @classmethod
    def _check_ensemble(
        cls, value: int | tuple[dict[str, Any], ...]
    ) -> int | tuple[dict[str, Any], ...]:
        return check_ensemble(value)

    @field_validator("quantile_levels")
    @classmethod
    def _check_levels(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return check_quantile_levels(value)

    @model_validator(mode="after")
    def _check_loss(self) -> ForecasterSettings:
        if self.loss == "huber" and self.quantile_levels != (0.5,):
            raise ValueError(
                "loss='huber' makes one point forecast and no quantiles; expected "
                f"quantile_levels=[0.5], not {list(self.quantile_levels)}"
            )
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> ForecasterSettings:
        count = self.ensemble if isinstance(self.ensemble, int) else len(self.ensemble)
        if self.weights == "validation" and count == 1:
            raise ValueError(
                "weights='validation' has nothing to weigh with one network; expected an ensemble "
                "of two or more, as in ensemble=3, or weights='equal'"
            )
        return self


def check_ensemble(
    value: int | Sequence[Mapping[str, Any]],
) -> int | tuple[dict[str, Any], ...]:
    """The number of networks, or what is different in each, with names that may differ.

    Raises: ConfigError otherwise.
    """
    count = value if isinstance(value, int) else len(value)
    if not 1 <= count <= MOST_MEMBERS:
        raise ConfigError(
            f"ensemble has {count} networks; expected 1 to {MOST_MEMBERS}, as a number or as a "
            "list with the settings of each."
        )
    if isinstance(value, int):
        return value
    for different in value:
        for name in different:
            if name not in MEMBER_FIELDS:
                raise ConfigError(unknown("setting of an ensemble's network", name, MEMBER_FIELDS))
    return tuple(dict(different) for different in value)


def members(settings: ForecasterSettings) -> tuple[ForecasterSettings, ...]:
    """The settings of each network of an ensemble, which has seeds of its own and shares `minutes`.

    The first has the seed of `settings`. Raises: ConfigError for a value that is out of range.
    """
    ensemble = settings.ensemble
    each = ({},) * ensemble if isinstance(ensemble, int) else ensemble
    made = []
    for number, different in enumerate(each):
        values = {**settings.model_dump(), **different, "ensemble": 1, "weights": "equal"}
        values["seed"] = settings.seed + SEEDS_APART * number
        values["training"] = {**settings.training, **different.get("training", {})}
        if different.get("steps") is not None:
            values["minutes"] = None
        elif settings.minutes is not None:
            values["minutes"] = settings.minutes / len(each)
        made.append(ForecasterSettings(**values))
    return tuple(made)
