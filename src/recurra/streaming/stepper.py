"""What a `StreamEngine` runs: a model that takes one step for many streams at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from recurra.errors import ConfigError, RecurraError

if TYPE_CHECKING:
    from torch import Tensor

States = npt.NDArray[np.void]
"""One flat record for each stream, (N,), of a stepper's `record`."""
Refused = dict[int, RecurraError]
"""Why events were not taken, by their place in the batch."""


class Stepper(Protocol):
    """A model as the engine sees it: an initial state, and one step of N streams.

    The state of a stream is one value of the structured dtype `record`: plain numbers of fixed
    size. What a row is answered, and its next state, must depend on that row's state and input
    alone, bit for bit, whatever other rows are stepped with it.
    """

    @property
    def record(self) -> np.dtype[Any]:
        """The state of one stream: named fields of numbers, no objects."""

    @property
    def model_hash(self) -> str:
        """Hexadecimal digits that change with the weights, and all else that answers depend on."""

    @property
    def answer(self) -> np.dtype[Any] | None:
        """dtype and shape of an answer that is an array; None when answers are JSON objects."""

    def start(self, keys: Sequence[str]) -> States:
        """The states of streams before their first event."""

    def step(self, states: States, inputs: Any) -> tuple[Any, Refused]:
        """(answers, refused) of one event for each of N different streams.

        `states` (N,) becomes the states after the events, in place. inputs and answers have N
        entries: arrays with N rows, or lists. An event that is refused leaves its row of `states`
        as it was, and its answer is not looked at.
        """


def model_hash(tensors: Mapping[str, Tensor], parts: Iterable[str] = ()) -> str:
    """SHA-256 over named tensors, with their dtypes and shapes, and over further texts in order."""
    import torch

    digest = hashlib.sha256()
    for text in parts:
        _add(digest, text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        _add(digest, f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        _add(digest, tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_record(record: np.dtype[Any]) -> None:
    """Raises: ConfigError when a stepper's record is no flat, named row of numbers."""
    fields: Mapping[str, Any] = record.fields or {}
    kinds = {field[0].base.kind for field in fields.values()}
    if not fields or record.hasobject or not kinds <= set("fiub"):
        raise ConfigError(
            f"the stepper's record is {record}, but must be a structured dtype of numbers: "
            "np.dtype([('h', '<f4', (64,)), ...])."
        )


def _add(digest: Any, content: bytes) -> None:
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)
