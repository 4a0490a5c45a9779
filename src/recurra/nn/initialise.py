"""How the parameters of a recurrent layer are drawn.

"torch"       as the cell draws them: for torch's cells uniform on ±1/√hidden_size, in torch's
              order of draws, so that the same seed gives the same weights
"orthogonal"  each gate's recurrent block orthogonal, its input block Glorot uniform, biases 0, and
              the forget gate's bias 1; Saxe, McClelland and Ganguli 2014, "Exact solutions to the
              nonlinear dynamics of learning in deep linear neural networks"; Jozefowicz, Zaremba
              and Sutskever 2015, "An empirical exploration of recurrent network architectures"
"chrono"      weights as "torch"; for memories of up to T_max = chrono_length steps the forget bias
              is log U(1, T_max − 1), an LSTM's input bias its negative, all other biases 0; Tallec
              and Ollivier 2018, "Can recurrent neural networks warp time?", eq. 16

The forget gate is f in an LSTM. In a GRU it is z, which keeps the state at 1 (the last paper calls
1 − z the gate). Biases come in pairs; what is said here holds for their sum, `bias_hh` being 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recurra.cells.cell import Cell, Params
from recurra.errors import ConfigError, unknown

METHODS = ("torch", "orthogonal", "chrono")
ORTHOGONAL = ("Elman", "LSTM", "GRU")
FORGET_GATES = {"LSTM": "f", "GRU": "z"}


@dataclass(frozen=True)
class Init:
    """A way to draw parameters: `method` as above, forget_bias None for what the method says."""

    method: str = "torch"
    forget_bias: float | None = None
    chrono_length: int | None = None

    def check(self, cell: Cell, who: str) -> None:
        """Raise ConfigError for settings that are unknown, contradict each other or the cell."""
        if self.method not in METHODS:
            raise ConfigError(f"{who}: {unknown('init', self.method, METHODS)}")
        if self.method == "orthogonal" and cell.name not in ORTHOGONAL:
            raise ConfigError(
                f"{who}: init='orthogonal' is not defined for {cell.name}. "
                "Leave init out: the layer draws its weights as its paper does."
            )
        chrono = self.method == "chrono"
        if chrono != (self.chrono_length is not None):
            raise ConfigError(
                f"{who}: init={self.method!r} with chrono_length={self.chrono_length}. "
                "chrono_length is the longest memory in time steps; give it with init='chrono' and "
                "only then."
            )
        if self.chrono_length is not None and self.chrono_length < 2:
            raise ConfigError(
                f"{who}: chrono_length is {self.chrono_length}, but must be at least 2 time steps."
            )
        bias = self.forget_bias
        if bias is not None and (isinstance(bias, bool) or not isinstance(bias, int | float)):
            raise ConfigError(
                f"{who}: forget_bias is a {type(bias).__name__}, but must be a number, one for all "
                "units, or None."
            )
        if not chrono and self.forget_bias is None:
            return
        setting = "init='chrono'" if chrono else f"forget_bias={self.forget_bias}"
        if chrono and self.forget_bias is not None:
            raise ConfigError(
                f"{who}: {setting} draws the forget bias, and forget_bias={self.forget_bias} sets "
                "it. Choose one."
            )
        if cell.name not in FORGET_GATES:
            raise ConfigError(
                f"{who}: {setting} sets the forget gate of {', '.join(FORGET_GATES)}; it is not "
                f"defined for {cell.name}. Leave it out."
            )
        if "bias_ih" not in cell.parameter_shapes():
            raise ConfigError(f"{who}: {setting} needs biases, and bias=False. Leave one out.")

    def fill(self, cell: Cell, params: Params) -> None:
        """Draw the parameters in place, from torch's global generator."""
        cell.draw(params)
        if self.method == "orthogonal":
            _orthogonal(cell, params)
        if self.chrono_length is not None:
            _chrono(cell, params, self.chrono_length)
        if self.forget_bias is not None:
            _set_bias(cell, params, FORGET_GATES[cell.name], self.forget_bias)


def _orthogonal(cell: Cell, params: Params) -> None:
    for name, value in params.items():
        if name == "weight_hh":
            for block in value.chunk(len(cell.gates)):
                # Drawn on a copy: nn.init.orthogonal_ does not write through every kind of view.
                block.copy_(nn.init.orthogonal_(torch.empty_like(block)))
        elif name == "weight_ih":
            for block in value.chunk(len(cell.gates)):
                nn.init.xavier_uniform_(block)
        elif value.dim() == 2:
            nn.init.xavier_uniform_(value)
        elif not name.startswith("norm_"):
            nn.init.zeros_(value)
    if cell.name == "LSTM" and "bias_ih" in params:
        _set_bias(cell, params, "f", 1.0)


def _chrono(cell: Cell, params: Params, longest: int) -> None:
    nn.init.zeros_(params["bias_ih"])
    nn.init.zeros_(params["bias_hh"])
    drawn = params["bias_ih"].new_empty(cell.hidden_size).uniform_(1, longest - 1).log()
    _set_bias(cell, params, FORGET_GATES[cell.name], drawn)
    if "i" in cell.gates:
        _set_bias(cell, params, "i", -drawn)


def _set_bias(cell: Cell, params: Params, gate: str, value: Tensor | float) -> None:
    """Make the summed bias of one gate equal to value."""
    at = cell.gates.index(gate) * cell.hidden_size
    params["bias_ih"][at : at + cell.hidden_size] = value
    params["bias_hh"][at : at + cell.hidden_size] = 0
