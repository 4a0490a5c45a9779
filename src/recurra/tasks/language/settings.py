"""What a language model is made of: the arguments of `LanguageModel`, and the design they give."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from recurra.checked import CheckedSettings
from recurra.data.tokenizer import Kind
from recurra.errors import ConfigError, unknown

CellName = Literal[
    "lstm", "gru", "rnn", "ind-rnn", "lem", "min-gru", "min-lstm", "rg-lru", "lru", "slstm", "mlstm"
]
Probability = Field(default=0.0, ge=0.0, lt=1.0)
ADAPTIVE_FROM = 4000
"""Smallest vocabulary in order of frequency whose soft-max is in bands unless asked otherwise."""


class CheckedModel(CheckedSettings):
    """Settings of language modelling, checked when they are made."""

    about = "language"


class Design(CheckedModel):
    """The network, and how text goes through it in training; every value is decided.

    embedding_size      features of a token; tied, of the last layer too
    cutoffs             bands of the soft-max, see `recurra.nn.adaptive_softmax`
    …_dropout, locked   see `recurra.nn.language`; weight_drop, recurrent_dropout and zoneout are
                        those of the layers
    activation_penalty  times the mean square of what goes into the soft-max (AR)
    change_penalty      times the mean square of its change from one step to the next (TAR); Merity,
                        McCann and Socher 2017, "Revisiting activation regularization for language
                        RNNs"
    batch_size          contiguous streams that the text is cut into
    k1, k2              tokens between updates, and tokens that a gradient goes back; see
                        `recurra.training.bptt`
    """

    cell: CellName
    hidden_size: int = Field(ge=1, le=65_536)
    num_layers: int = Field(ge=1, le=64)
    embedding_size: int = Field(ge=1, le=65_536)
    tied: bool = False
    norm: bool = False
    residual: bool = False
    cutoffs: tuple[int, ...] = ()
    embedding_dropout: float = Probability
    input_dropout: float = Probability
    hidden_dropout: float = Probability
    output_dropout: float = Probability
    locked: bool = True
    weight_drop: float = Probability
    recurrent_dropout: float = Probability
    zoneout: float = Probability
    activation_penalty: float = Field(default=0.0, ge=0.0)
    change_penalty: float = Field(default=0.0, ge=0.0)
    batch_size: int = Field(ge=1)
    k1: int = Field(ge=1)
    k2: int | None = Field(default=None, ge=1)


# What a network is without a word from the user: for characters and bytes, and for words and parts
# of words.
_SMALL: dict[str, Any] = {
    "cell": "gru",
    "hidden_size": 512,
    "num_layers": 1,
    "embedding_size": 64,
    "output_dropout": 0.1,
    "batch_size": 16,
    "k1": 64,
    "training": {"learning_rate": 4e-3, "weight_decay": 0.01, "cooldown_share": 0.4},
}
_LARGE: dict[str, Any] = {
    "cell": "lstm",
    "hidden_size": 256,
    "num_layers": 2,
    "embedding_size": 256,
    "tied": True,
    "embedding_dropout": 0.05,
    "input_dropout": 0.2,
    "hidden_dropout": 0.2,
    "output_dropout": 0.3,
    "batch_size": 32,
    "k1": 32,
    "training": {"learning_rate": 3e-3, "weight_decay": 0.01, "cooldown_share": 0.4},
}
_DEFAULTS: dict[Kind, dict[str, Any]] = {
    "char": _SMALL,
    "byte": _SMALL,
    "word": _LARGE,
    "subword": _LARGE,
}


def _zaremba(size: int, dropout: float, k1: int) -> dict[str, Any]:
    return {
        "cell": "lstm",
        "hidden_size": size,
        "num_layers": 2,
        "embedding_size": size,
        "tied": False,
        "cutoffs": (),
        "locked": False,
        "embedding_dropout": 0.0,
        "input_dropout": dropout,
        "hidden_dropout": dropout,
        "output_dropout": dropout,
        "batch_size": 20,
        "k1": k1,
    }


# Published architectures and their dropouts; the optimiser is that of all runs here.
# Zaremba, Sutskever and Vinyals 2014, "Recurrent neural network regularization", section 4.1;
# Merity, Keskar and Socher 2017, section 5, with the values for Penn Treebank.
PRESETS: dict[str, dict[str, Any]] = {
    "zaremba-small": _zaremba(200, 0.0, 20),
    "zaremba-medium": _zaremba(650, 0.5, 35),
    "zaremba-large": _zaremba(1500, 0.65, 35),
    "awd-lstm": {
        "cell": "lstm",
        "hidden_size": 1150,
        "num_layers": 3,
        "embedding_size": 400,
        "tied": True,
        "cutoffs": (),
        "locked": True,
        "embedding_dropout": 0.1,
        "input_dropout": 0.4,
        "hidden_dropout": 0.25,
        "output_dropout": 0.4,
        "weight_drop": 0.5,
        "activation_penalty": 2.0,
        "change_penalty": 1.0,
        "batch_size": 20,
        "k1": 70,
        "training": {"weight_decay": 1.2e-6},
    },
}


class LanguageSettings(CheckedModel):
    """The arguments of `LanguageModel`; None leaves a choice to the kind of tokens, or the preset.

    The values of a design are checked where they are decided, in `decide`.
    """

    tokens: Kind = "char"
    vocab_size: int | None = Field(default=None, ge=1)
    preset: str | None = None
    cell: CellName | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    embedding_size: int | None = None
    tied: bool | None = None
    norm: bool | None = None
    residual: bool | None = None
    cutoffs: tuple[int, ...] | None = None
    embedding_dropout: float | None = None
    input_dropout: float | None = None
    hidden_dropout: float | None = None
    output_dropout: float | None = None
    locked: bool | None = None
    weight_drop: float | None = None
    recurrent_dropout: float | None = None
    zoneout: float | None = None
    activation_penalty: float | None = None
    change_penalty: float | None = None
    batch_size: int | None = None
    k1: int | None = None
    k2: int | None = None
    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    validation: float = Field(default=0.05, ge=0.0, le=0.5)
    validation_parts: int = Field(default=1, ge=1, le=1000)
    patience: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    training: dict[str, Any] = Field(default_factory=dict)


def decide(settings: LanguageSettings, vocab_size: int | None = None) -> Design:
    """The design: what was asked for, else what the preset says, else what the tokens need.

    vocab_size   that of the tokenizer, by which the bands of the soft-max are chosen; None before
                 there is one
    Raises: ConfigError for an unknown preset and for values out of range.
    """
    values = {**_DEFAULTS[settings.tokens], **_preset(settings)}
    values.pop("training", None)
    is_tied = values.get("tied") if settings.tied is None else settings.tied
    if is_tied and settings.hidden_size is not None:
        values["embedding_size"] = settings.hidden_size  # it follows the layer it is tied to
    given = {name: getattr(settings, name) for name in Design.model_fields}
    values |= {name: value for name, value in given.items() if value is not None}
    if "cutoffs" not in values and vocab_size is not None and settings.tokens != "subword":
        values["cutoffs"] = _bands(vocab_size)
    return Design(**values)


def training_values(settings: LanguageSettings) -> dict[str, Any]:
    """Settings of the training loop: the user's over the preset's over those of the tokens."""
    default = _DEFAULTS[settings.tokens]["training"]
    return {**default, **_preset(settings).get("training", {}), **settings.training}


def _preset(settings: LanguageSettings) -> dict[str, Any]:
    if settings.preset is None:
        return {}
    if settings.preset not in PRESETS:
        raise ConfigError(unknown("preset", settings.preset, PRESETS))
    return PRESETS[settings.preset]


def _bands(vocab_size: int) -> tuple[int, ...]:
    """Cut-offs for a vocabulary in falling order of frequency."""
    if vocab_size < ADAPTIVE_FROM:
        return ()
    return (2000,) if vocab_size <= 20_000 else (2000, 20_000)
