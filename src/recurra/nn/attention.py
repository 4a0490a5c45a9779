"""Attention: a weighted mean of a memory, weighted by how well each part of it fits a query.

    multiplicative   score_s = q · (W m_s) / √D
    additive         score_s = v · tanh(W q + U m_s + b)
    weight = softmax over the real s of score;  context = Σ_s weight_s m_s

Sources: Luong et al. 2015, "Effective approaches to attention-based neural machine translation",
"general", here divided by √D; Bahdanau et al. 2015, "Neural machine translation by jointly learning
to align and translate", A.1.2.

What is added up over the memory would have bits that depend on how it is padded, on the batch and
on threads, so a translation could change with its neighbours. Without a gradient to record, on a
CPU, the sums are made exact instead (`whole.py`): a row's bits depend on it alone.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from recurra.errors import ConfigError, unknown
from recurra.kernels.pointwise import pointwise
from recurra.nn.whole import can_be_whole, linear, whole

Kind = Literal["multiplicative", "additive"]
KINDS: tuple[Kind, ...] = ("multiplicative", "additive")

# With 22 binary places of the weights, the weighted sums of features are exact below 2¹¹.
_WEIGHT = 2.0**22


class Memory(NamedTuple):
    """What is attended to, prepared once.

    values (B, S, D), mask (B, S) true where real, keys (B, S, ·) as the scores want them; whole are
    the values, rounded in float64 where the sums are made exact.
    """

    values: Tensor
    mask: Tensor
    keys: Tensor
    whole: Tensor

    @property
    def total(self) -> Tensor:
        """The sum (B, D) of the values over the real places."""
        total = self.whole.sum(1)
        return total.to(self.values.dtype)

    @property
    def is_whole(self) -> bool:
        """Whether the sums are exact."""
        return self.whole.dtype is not self.values.dtype

    def take(self, rows: Tensor) -> Memory:
        """Some rows, in this order."""
        return Memory(*(part.index_select(0, rows) for part in self))


class Attention(nn.Module):
    """Attention of queries to a memory.

    Shapes: values (B, S, memory_size), mask (B, S) bool with one true at least in each row, queries
    (B, T, query_size); context (B, T, memory_size), weights (B, T, S), which sum to 1.
    Raises: ConfigError for an unknown kind.

    >>> attention = Attention(3, 4)
    >>> memory = attention.prepare(torch.zeros(2, 5, 4), torch.ones(2, 5, dtype=torch.bool))
    >>> context, weights = attention(torch.zeros(2, 1, 3), memory)
    >>> weights[0, 0]
    tensor([0.2000, 0.2000, 0.2000, 0.2000, 0.2000], grad_fn=...)
    """

    def __init__(self, query_size: int, memory_size: int, kind: Kind = "multiplicative") -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(unknown("attention", kind, KINDS))
        self.kind = kind
        self.query = nn.Linear(query_size, memory_size, bias=False)
        self.key: nn.Linear | None = None
        self.weight: nn.Parameter | None = None
        if kind == "additive":
            self.key = nn.Linear(memory_size, memory_size)
            self.weight = nn.Parameter(torch.empty(memory_size))
            nn.init.uniform_(self.weight, -1 / math.sqrt(memory_size), 1 / math.sqrt(memory_size))

    def prepare(self, values: Tensor, mask: Tensor) -> Memory:
        """The memory, with all that does not depend on a query."""
        values = values.masked_fill(~mask[..., None], 0)
        is_whole = can_be_whole(values)
        if self.key is None:
            # W is on the memory's side, where it is applied once and not at every step.
            keys = linear(values, self.query.weight.T) / math.sqrt(self.query.out_features)
            keys = whole(keys) if is_whole else keys
        else:
            keys = linear(values, self.key.weight, self.key.bias)
        return Memory(values, mask, keys, whole(values) if is_whole else values)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """(context, weights) of queries; see the class."""
        scores = self._scores(query, memory).masked_fill(~memory.mask[:, None], -torch.inf)
        if not memory.is_whole:
            weights = torch.softmax(scores, dim=-1)
            return torch.bmm(weights, memory.values), weights
        powers = pointwise(torch.exp, scores - scores.amax(-1, keepdim=True))
        parts = torch.round(powers * _WEIGHT)
        total = parts.sum(-1, keepdim=True)
        context = torch.bmm(parts, memory.whole) / total
        return context.to(query.dtype), (parts / total).to(query.dtype)

    def _scores(self, query: Tensor, memory: Memory) -> Tensor:
        if self.weight is None:
            q = whole(query) if memory.is_whole else query
            return torch.bmm(q, memory.keys.transpose(1, 2))
        q = linear(query, self.query.weight)
        both = pointwise(torch.tanh, q[:, :, None] + memory.keys[:, None])
        if not memory.is_whole:
            return both @ self.weight
        return whole(both) @ whole(self.weight)
