"""The mLSTM of xLSTM: a matrix for a memory, written by keys and read by queries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.cells.cell import NO_MASKS, Cell, Masks, Params, State, Step, Structure
from recurra.cells.heads import check_heads
from recurra.cells.slstm import FORGET_GATES, ForgetGate
from recurra.errors import ConfigError, unknown


class MLSTMState(NamedTuple):
    """c (B, num_heads * d * d), its normaliser n (B, num_heads * d), log scale m (B, num_heads)."""

    c: Tensor
    n: Tensor
    m: Tensor


class Projected(NamedTuple):
    """What a step reads of x: q, k, v (..., num_heads, d), o (..., hidden_size), and for each head
    the logarithms of the input and forget gates (..., num_heads)."""

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    log_i: Tensor
    log_f: Tensor


@dataclass(frozen=True)
class MLSTM(Cell):
    """Long short-term memory with a matrix for a memory, one step of each head.

    q = W_q x + b_q;  k = (W_k x + b_k) / √d;  v = W_v x + b_v;  o = σ(W_o x + b_o)
    i = exp(w_i x + b_i);  f = σ(w_f x + b_f) or exp(w_f x + b_f), one number for each head
    C' = f C + i v kᵀ;  n' = f n + i k;  h' = o ⊙ C' q / max(|n'ᵀ q|, 1)

    C and n are held as C exp(−m) and n exp(−m), so that no gate overflows; h does not depend on m:

    m' = max(log f + m, log i);  i becomes exp(log i − m'), f becomes exp(log f + m − m'), and the
    1 in h becomes exp(−m')

    Shapes: x (B, input_size), h (B, hidden_size), C (d, d) and n (d,) in each of num_heads heads of
    d = hidden_size / num_heads units, m one number for each. The state holds them flattened, C with
    its rows, which go with v, one after another. `weight_ih` (4H + 2 num_heads, I) and `bias_ih`
    stack H rows each for q k v o, and then num_heads rows each for i f.
    forget_gate is "sigmoid" or "exp".

    h is no input of the next step: there is no recurrent product, and no dropout mask acts on one.
    The initial state is zeros, m = 0 included: with nothing in C and n its value cancels out.

    Weights are drawn as in the authors' code: W normal of variance 2 / (5 input_size), but 0 for
    the gates; b_i normal with deviation 0.1, b_f from 3 to 6 over the heads, other biases 0. With
    forget_gate="exp" b_f is log σ of that: the same gates.
    Raises: ConfigError when num_heads does not divide hidden_size, or for another forget_gate.

    >>> MLSTM(3, 6, num_heads=2).state_sizes()
    {'c': 18, 'n': 6, 'm': 2}

    Source: Beck et al. 2024, "xLSTM: extended long short-term memory". The key's bias is divided by
    √d too, as in the authors' code; the block around the cell (convolution, normalisation of heads,
    skips) is not part of it.
    """

    bias: bool = True
    num_heads: int = 1
    forget_gate: ForgetGate = "sigmoid"

    name: ClassVar[str] = "mLSTM"
    structure: ClassVar[Structure] = "matrix"
    gates: ClassVar[tuple[str, ...]] = ("q", "k", "v", "o", "i", "f")
    can_learn_start: ClassVar[bool] = False  # n must not be negative
    has_recurrent_product: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.name, self.num_heads, self.hidden_size)
        if self.forget_gate not in FORGET_GATES:
            raise ConfigError(unknown("forget_gate", self.forget_gate, FORGET_GATES))

    @property
    def head_size(self) -> int:
        """Units of one head."""
        return self.hidden_size // self.num_heads

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        stacked = 4 * self.hidden_size + 2 * self.num_heads
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (stacked, self.input_size)}
        if self.bias:
            shapes["bias_ih"] = (stacked,)
        return shapes

    def state_sizes(self) -> dict[str, int]:
        return {
            "c": self.hidden_size * self.head_size,
            "n": self.hidden_size,
            "m": self.num_heads,
        }

    def make_state(self, *parts: Tensor) -> State:
        return MLSTMState(*parts)

    def draw(self, params: Params) -> None:
        gates = 4 * self.hidden_size
        params["weight_ih"].normal_(0, math.sqrt(2 / (5 * self.input_size)))
        params["weight_ih"][gates:] = 0
        if self.bias:
            bias = params["bias_ih"].zero_()
            i, f = bias[gates:].chunk(2)
            i.normal_(0, 0.1)
            drawn = torch.linspace(3, 6, self.num_heads)
            f.copy_(drawn if self.forget_gate == "sigmoid" else F.logsigmoid(drawn))

    def project(self, x: Tensor, params: Params) -> Tensor:
        """x (..., input_size) to q k v o i f side by side (..., 4 H + 2 num_heads), i and f as
        logarithms, for all time steps at once."""
        size, heads = self.hidden_size, self.num_heads
        stacked = F.linear(x, params["weight_ih"], params.get("bias_ih"))
        q, k, v, o, i, f = stacked.split_with_sizes([size] * 4 + [heads] * 2, dim=-1)
        log_f = F.logsigmoid(f) if self.forget_gate == "sigmoid" else f
        return torch.cat([q, k / math.sqrt(self.head_size), v, torch.sigmoid(o), i, log_f], -1)

    def split(self, projected: Tensor) -> Projected:
        """What `project` has stacked on the last axis, taken apart and by head."""
        size, heads = self.hidden_size, self.num_heads
        *qkv, o, i, f = projected.split_with_sizes([size] * 4 + [heads] * 2, dim=-1)
        q, k, v = (part.reshape(*part.shape[:-1], heads, self.head_size) for part in qkv)
        return Projected(q, k, v, o, i, f)

    def bind(self, params: Params, masks: Masks = NO_MASKS) -> Step:
        heads, size = self.num_heads, self.head_size

        def step(projected_t: Tensor, state: MLSTMState) -> tuple[Tensor, State]:
            c, n = state[0].reshape(-1, heads, size, size), state[1].reshape(-1, heads, size)
            q, k, v, o, log_i, log_f = self.split(projected_t)
            kept = log_f + state[2]
            m = torch.maximum(kept, log_i)
            i, f = torch.exp(log_i - m).unsqueeze(-1), torch.exp(kept - m).unsqueeze(-1)
            c = f.unsqueeze(-1) * c + (i * v).unsqueeze(-1) * k.unsqueeze(-2)
            n = f * n + i * k
            read = normalised((c @ q.unsqueeze(-1)).squeeze(-1), (n * q).sum(-1), m)
            return o * read.flatten(1), MLSTMState(c.flatten(1), n.flatten(1), m)

        return step


def normalised(c_q: Tensor, n_q: Tensor, m: Tensor) -> Tensor:
    """C q / max(|nᵀ q|, exp(−m)) for C q (..., d), nᵀ q (...) and m (...).

    m is clamped where exp(−m) would overflow, or be 0 beside an nᵀ q of 0.
    """
    limit = 0.9 * math.log(torch.finfo(m.dtype).max)
    least = torch.exp((-m).clamp(-limit, limit))
    return c_q / torch.maximum(n_q.abs(), least).unsqueeze(-1)
