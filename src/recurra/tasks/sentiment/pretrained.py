"""Beginning a classifier from a language model: the vectors of its words and its recurrent layers.

The language model must have read words as the classifier reads them, in lower case and with blanks
between (`recurra sentiment words` writes texts so), with all its layers of one size. The classifier
then takes over its cell and sizes and reads forwards only. Words that the language model does not
know begin as its unknown word, and vectors of n-grams as 0.

Training thaws it from the top: the head learns alone for `thaw` steps, then one more layer joins it
every `thaw` steps, the word vectors last; what lies g below the head learns at 1 / 2.6^g of the
rate.

Source: Howard and Ruder 2018, "Universal language model fine-tuning for text classification",
sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from recurra.data.tokenizer import read_tokenizer
from recurra.data.words import WordTokenizer
from recurra.errors import ConfigError, RunError
from recurra.runs import RunFolder, checksum, read_tensors
from recurra.tasks.sentiment.fitting import SentimentTask
from recurra.tasks.sentiment.network import SentimentNetwork
from recurra.tasks.sentiment.settings import SentimentSettings
from recurra.tasks.sentiment.words import Vocabulary

RATE_DECAY = 2.6
_LANGUAGE = "language"
_EMBEDDING = "embedding.weight"


class _Design(BaseModel):
    """What of a language model's design decides whether it can be taken over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cell: str
    hidden_size: int = Field(ge=1, le=65_536)
    num_layers: int = Field(ge=1, le=64)
    embedding_size: int = Field(ge=1, le=65_536)
    tied: bool
    norm: bool
    residual: bool


@dataclass(frozen=True)
class Pretrained:
    """The part of a language model that a classifier begins with.

    vectors       (words + 1, embedding_size): row 0 the unknown word's, then those of `words`
    layers        parameters of each recurrent layer by name
    fingerprint   of the run's weights
    """

    source: str
    words: tuple[str, ...] = field(repr=False)
    vectors: Tensor = field(repr=False)
    layers: tuple[dict[str, Tensor], ...] = field(repr=False)
    cell: str
    hidden_size: int
    fingerprint: str

    def settings(self, settings: SentimentSettings) -> SentimentSettings:
        """The settings with this encoder's cell and sizes, reading forwards."""
        taken = {
            "cell": self.cell,
            "hidden_size": self.hidden_size,
            "num_layers": len(self.layers),
            "embedding_size": self.vectors.shape[1],
            "bidirectional": False,
        }
        return SentimentSettings(**{**settings.model_dump(), **taken})

    def vocabulary(self, learned: Vocabulary) -> Vocabulary:
        """The words of the training texts, and after them those that only this model knows."""
        known = set(learned.words)
        more = [word for word in self.words if word not in known]
        return Vocabulary([*learned.words, *more], learned.buckets)

    @torch.no_grad()
    def load_into(self, network: SentimentNetwork, vocabulary: Vocabulary) -> None:
        """Put the vectors and the layers into a new network of `settings`."""
        rows = {word: k for k, word in enumerate(self.words, start=1)}
        at = [0, *(rows.get(word, 0) for word in vocabulary.words)]
        network.embedding.weight.copy_(self.vectors[at])
        if network.grams is not None:
            network.grams.weight.zero_()
        for layer, parameters in zip(network.layers, self.layers, strict=True):
            layer.load_state_dict(parameters)

    def check_layers(self) -> None:
        """Compare the layers with those of a network of `settings`, for which no memory is taken.

        Raises: RunError when one is another, or holds numbers that are not finite.
        """
        what = (
            f"{self.source}: its layers are not those of a {self.cell} of {self.hidden_size} units"
        )
        advice = "Restore all files from the same run."
        try:
            settings = self.settings(SentimentSettings())
            with torch.device("meta"):
                mould = SentimentNetwork(1, 2, settings)
        except (RuntimeError, ConfigError) as error:
            raise RunError(f"{what}: {str(error).splitlines()[0]} {advice}") from error
        for number, (layer, found) in enumerate(zip(mould.layers, self.layers, strict=True)):
            wanted = {name: tuple(one.shape) for name, one in layer.state_dict().items()}
            shapes = {name: tuple(one.shape) for name, one in found.items()}
            if shapes != wanted:
                raise RunError(f"{what}: layer {number} has {shapes}, expected {wanted}. {advice}")
        tensors = [self.vectors, *(one for layer in self.layers for one in layer.values())]
        if not all(bool(torch.isfinite(one).all()) for one in tensors):
            raise RunError(f"{self.source} has NaN or infinite weights. {advice}")


class FineTuning(SentimentTask):
    """A `SentimentTask` whose network thaws from the top, a group every `thaw` steps."""

    thaw = 0

    def rate_factor(self, name: str, step: int) -> float:
        """0 while the parameter's group is frozen, then 1 / 2.6^g."""
        group = self._below_head(name)
        return RATE_DECAY**-group if step >= group * self.thaw else 0.0

    def _below_head(self, name: str) -> int:
        layers = len(self.model.layers)
        if name.startswith(("embedding.", "grams.")):
            return layers + 1
        if name.startswith("layers."):
            return layers - int(name.split(".")[1])
        return 0


def read_pretrained(path: str | Path) -> Pretrained:
    """The encoder of a language model's run folder; no code is run.

    Raises: RunError for a folder that holds no such run or is damaged, ConfigError for a language
    model that a classifier cannot begin with.
    """
    run = RunFolder.open(path, _LANGUAGE)
    sealed = run.read_config()
    run.check_files(sealed)
    try:
        design = _Design.model_validate(sealed["config"].get("design"))
    except ValidationError as error:
        raise RunError(
            f"{run.config_path} describes no language model: {_first(error)}. Restore it from a "
            "copy or train again."
        ) from error
    tokenizer = read_tokenizer(run.tokenizer_path)
    _check_design(run, design, getattr(tokenizer, "kind", None))
    assert isinstance(tokenizer, WordTokenizer)
    weights, _ = read_tensors(run.model_path)
    layers = tuple(_parts(weights, f"layers.{k}.") for k in range(design.num_layers))
    embedding = weights.get(_EMBEDDING)
    wanted = (tokenizer.vocab_size, design.embedding_size)
    if embedding is None or tuple(embedding.shape) != wanted or not all(layers):
        raise RunError(
            f"{run.model_path} does not fit {run.config_path}: expected {_EMBEDDING!r} of shape "
            f"{wanted} and {design.num_layers} layers. Restore all files from the same run."
        )
    first: dict[str, int] = {}
    special = {tokenizer.unk_id, tokenizer.end_id}
    for number, word in enumerate(tokenizer.words):
        if number not in special:
            first.setdefault(word.lower(), number)  # the most frequent of "Good" and "good"
    vectors = embedding[[tokenizer.unk_id, *first.values()]]
    if design.tied:  # as the language model reads them
        vectors = vectors * math.sqrt(design.embedding_size)
    found = Pretrained(
        str(path),
        tuple(first),
        vectors,
        layers,
        design.cell,
        design.embedding_size if design.tied and design.num_layers == 1 else design.hidden_size,
        checksum(run.model_path),
    )
    found.check_layers()
    return found


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def thaw_steps(steps_per_epoch: int, steps: int | None, groups: int) -> int:
    """Steps between the thawings of two groups: an epoch, and all in the first third of a run."""
    most = steps_per_epoch if steps is None else steps // (3 * groups)
    return min(steps_per_epoch, most)


def _check_design(run: RunFolder, design: _Design, kind: Any) -> None:
    wrong = None
    if kind != WordTokenizer.kind:
        wrong = f"its tokens are {kind!r}, expected 'word'"
    elif design.norm or design.residual:
        wrong = f"it has norm={design.norm} and residual={design.residual}, expected neither"
    elif design.tied and design.num_layers > 1 and design.embedding_size != design.hidden_size:
        wrong = (
            f"its last layer has embedding_size={design.embedding_size} units and the others "
            f"hidden_size={design.hidden_size}, expected one size"
        )
    if wrong is not None:
        raise ConfigError(
            f"{run.path}: a classifier cannot begin with this language model: {wrong}. Train one "
            "with `recurra lm train WORDS --tokens word`, on what `recurra sentiment words` writes."
        )


def _parts(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
