"""Attention: a weighted mean of a memory, weighted by how well each part of it fits a query.

    multiplicative   score_s = (W q) · m_s / √D
    additive         score_s = v · tanh(W q + U m_s)
    weight = softmax over the real s of score;  context = Σ_s weight_s m_s

Sources: Luong et al. 2015, "Effective approaches to attention-based neural machine translation",
"general", here divided by √D; Bahdanau et al. 2015, "Neural machine translation by jointly learning
to align and translate", A.1.2.

What is added up over the memory would have bits that depend on how it is padded, on the batch and
on threads, so a translation could change with its neighbours. Without a gradient to record, on a
CPU, the sums are made of whole numbers instead (fixed point, in float64, which holds them exactly),
so that no order of addition can be seen in them: a row's bits depend on that row alone.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from recurra.errors import ConfigError, unknown
from recurra.kernels.pointwise import pointwise
from recurra.nn.linear import Linear

Kind = Literal["multiplicative", "additive"]
KINDS: tuple[Kind, ...] = ("multiplicative", "additive")

# 16 binary places for features, 24 for weights: 20 + 20 bits and the sum of up to 2¹³ products of
# features below 16, or 24 + 20 bits and the sum over 2⁹ places, are whole numbers below 2⁵³.
_FEATURE = 2.0**16
_WEIGHT = 2.0**24


class Memory(NamedTuple):
    """What is attended to, prepared once: values (B, S, D), mask (B, S) true where real, keys.

    keys   (B, S, D) as the scores want them; whole numbers in float64 where sums are exact
    whole  the values as such whole numbers, else the values
    """

    values: Tensor
    mask: Tensor
    keys: Tensor
    whole: Tensor

    @property
    def total(self) -> Tensor:
        """The sum (B, D) of the values over the real places."""
        total = self.whole.sum(1)
        if self.whole.dtype is self.values.dtype:
            return total
        return (total / _FEATURE).to(self.values.dtype)

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
        self.query = Linear(query_size, memory_size, bias=False)
        self.key: Linear | None = None
        self.weight: nn.Parameter | None = None
        if kind == "additive":
            self.key = Linear(memory_size, memory_size)
            self.weight = nn.Parameter(torch.empty(memory_size))
            nn.init.uniform_(self.weight, -1 / math.sqrt(memory_size), 1 / math.sqrt(memory_size))

    def prepare(self, values: Tensor, mask: Tensor) -> Memory:
        """The memory, with all that does not depend on a query."""
        values = values.masked_fill(~mask[..., None], 0)
        keys = values if self.key is None else self.key(values)
        if not _is_exact(values):
            return Memory(values, mask, keys, values)
        whole = _whole(values)
        return Memory(values, mask, keys if self.key is not None else whole, whole)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """(context, weights) of queries; see the class."""
        q = self.query(query)
        exact = memory.whole.dtype is not memory.values.dtype
        scores = self._scores(q, memory.keys, exact)
        scores = scores.masked_fill(~memory.mask[:, None], -torch.inf)
        if not exact:
            weights = torch.softmax(scores, dim=-1)
            return torch.bmm(weights, memory.values), weights
        powers = pointwise(torch.exp, scores - scores.amax(-1, keepdim=True))
        parts = torch.round(powers * _WEIGHT)
        total = parts.sum(-1, keepdim=True)
        context = torch.bmm(parts, memory.whole) / (total * _FEATURE)
        return context.to(query.dtype), (parts / total).to(query.dtype)

    def _scores(self, q: Tensor, keys: Tensor, exact: bool) -> Tensor:
        if self.weight is None:
            scale = math.sqrt(q.shape[-1])
            if not exact:
                return torch.bmm(q, keys.transpose(1, 2)) / scale
            return torch.bmm(_whole(q), keys.transpose(1, 2)) / (_FEATURE * _FEATURE * scale)
        both = pointwise(torch.tanh, q[:, :, None] + keys[:, None])
        if not exact:
            return both @ self.weight
        return (_whole(both) @ _whole(self.weight)) / (_FEATURE * _FEATURE)


def _is_exact(x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype is torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def _whole(x: Tensor) -> Tensor:
    return torch.round(x.double() * _FEATURE)
