"""The networks compared: one recurrent layer, or several, and a linear head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recurra.errors import ConfigError, unknown
from recurra.nn.gru import GRU
from recurra.nn.lem import LEM
from recurra.nn.lstm import LSTM
from recurra.nn.min_gru import MinGRU
from recurra.nn.rg_lru import RGLRU
from recurra.nn.rnn import RNN
from recurra.nn.slstm import SLSTM


@dataclass(frozen=True)
class Variant:
    """One row of the comparison: a layer, and whether it starts with gates for long memories."""

    label: str
    layer: Callable[..., nn.Module]
    chrono: bool = False


# The one place to add a row: any layer with torch's constructor and returns.
VARIANTS: dict[str, Variant] = {
    "elman": Variant("Elman", RNN),
    "lstm": Variant("LSTM", LSTM),
    "lstm-chrono": Variant("LSTM, chrono", LSTM, chrono=True),
    "gru": Variant("GRU", GRU),
    "min-gru": Variant("minGRU", MinGRU),
    "rg-lru": Variant("RG-LRU", RGLRU),
    "lem": Variant("LEM", LEM),
    "slstm": Variant("sLSTM", SLSTM),
}


def find_variant(name: str) -> Variant:
    """The row of that name.

    Raises: ConfigError for an unknown name, with the nearest one.
    """
    if name not in VARIANTS:
        raise ConfigError(unknown("cell", name, VARIANTS))
    return VARIANTS[name]


class Network(nn.Module):
    """y = W h + b, with h the output of a recurrent layer at the steps that are asked about.

    Shapes: inputs (B, T, input_size), mask (B, T) bool, y (number of True in mask, output_size).

    >>> network = Network(RNN(2, 8, batch_first=True), 8, 3)
    >>> mask = torch.tensor([[False, False, True], [False, True, True]])
    >>> network(torch.zeros(2, 3, 2), mask).shape
    torch.Size([3, 3])
    """

    def __init__(self, layer: nn.Module, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden_size, output_size)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        output, _ = self.layer(inputs)
        y: Tensor = self.head(output[mask])
        return y


def make_network(
    variant: Variant,
    *,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    output_size: int,
    length: int,
    seed: int,
) -> Network:
    """A network of this kind with weights drawn from `seed`; torch's random state stays as it is.

    length   the longest memory in steps, for chrono initialisation
    """
    options: dict[str, Any] = {"num_layers": num_layers, "batch_first": True}
    if variant.chrono:
        options |= {"init": "chrono", "chrono_length": length}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(variant.layer(input_size, hidden_size, **options), hidden_size, output_size)
