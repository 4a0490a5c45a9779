"""The output layer of language models: a soft-max, whole or in bands of frequency.

With cut-offs c_1 < … < c_K, tokens 0 … c_1 − 1 are the head and each band k holds those from c_k to
c_{k+1} − 1:

    p(w | x) = softmax_head(x)[w]                              w in the head
    p(w | x) = softmax_head(x)[band k] · softmax_k(x)[w]       w in band k

A training step computes a band only where its tokens occur, which are few when ids are in falling
order of frequency, as `recurra.data.tokenizer` gives them. Every output has a row of one weight of
full width, which may be the embedding's own; without cut-offs this is the plain soft-max.

Source: Grave, Joulin, Cissé, Grangier and Jégou 2017, "Efficient softmax approximation for GPUs",
section 4.2; they narrow the rows of bands, here all rows have one width so that they can be tied.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.errors import ConfigError, ShapeError
from recurra.kernels.linear import FixedLinear, linear


class AdaptiveSoftmax(nn.Module):
    """log p(token | x) over `vocab_size` tokens; `cutoffs` as above, none for a plain soft-max.

    The weight (vocab_size, input_size) is given at each call, so that an embedding can be it.

    Shapes: x (N, input_size), targets (N,) int, nll (N,), log_probs (N, vocab_size).
    Raises: ConfigError for cut-offs that do not rise between 1 and vocab_size.

    >>> head = AdaptiveSoftmax(8, 10, cutoffs=(4,))
    >>> weight, x = torch.randn(10, 8), torch.randn(3, 8)
    >>> head.log_probs(x, weight).exp().sum(1)
    tensor([1.0000, 1.0000, 1.0000], grad_fn=<SumBackward1>)
    """

    def __init__(self, input_size: int, vocab_size: int, cutoffs: Sequence[int] = ()) -> None:
        super().__init__()
        bounds = [0, *cutoffs, vocab_size]
        if any(low >= high for low, high in itertools.pairwise(bounds)):
            raise ConfigError(
                f"AdaptiveSoftmax: cutoffs={list(cutoffs)} for a vocabulary of {vocab_size}; "
                f"expected rising numbers from 1 to {vocab_size - 1}, or none."
            )
        self.vocab_size = vocab_size
        self.cutoffs = tuple(cutoffs)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self._bands = list(itertools.pairwise(bounds[1:]))
        if self._bands:
            self.band_weight = nn.Parameter(torch.empty(len(self._bands), input_size))
            self.band_bias = nn.Parameter(torch.zeros(len(self._bands)))
            nn.init.normal_(self.band_weight, std=input_size**-0.5)

    def nll(self, x: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """−log p of each target, in nats; costs as much as the bands that the targets are in."""
        self._check(x, weight)
        targets = targets.long()
        if not self._bands:
            logits = linear(x, weight, self.bias)
            return F.cross_entropy(logits, targets, reduction="none")
        band = torch.bucketize(targets, self._edges(targets), right=True)  # 0 is the head
        at = torch.where(band == 0, targets, self.cutoffs[0] - 1 + band)
        nll = F.cross_entropy(self._head(x, weight), at, reduction="none")
        for k, (low, high) in enumerate(self._bands, start=1):
            rows = (band == k).nonzero().squeeze(1)
            if len(rows):
                logits = linear(x[rows], weight[low:high], self.bias[low:high])
                inside = F.cross_entropy(logits, targets[rows] - low, reduction="none")
                nll = nll.index_add(0, rows, inside)
        return nll

    def log_probs(self, x: Tensor, weight: Tensor) -> Tensor:
        """log p of every token."""
        self._check(x, weight)
        if not self._bands:
            return F.log_softmax(linear(x, weight, self.bias), 1)
        head = F.log_softmax(self._head(x, weight), 1)
        parts = [head[:, : self.cutoffs[0]]]
        for k, (low, high) in enumerate(self._bands):
            inside = F.log_softmax(linear(x, weight[low:high], self.bias[low:high]), 1)
            parts.append(inside + head[:, self.cutoffs[0] + k, None])
        return torch.cat(parts, 1)

    def fixed(self, weight: Tensor) -> FixedSoftmax:
        """`log_probs` with copies of this weight and of all parameters, for a stream."""
        self._check(weight[:0], weight)
        return FixedSoftmax(self, weight)

    def extra_repr(self) -> str:
        return f"vocab_size={self.vocab_size}, cutoffs={self.cutoffs}"

    def _head(self, x: Tensor, weight: Tensor) -> Tensor:
        first = self.cutoffs[0]
        rows = torch.cat([weight[:first], self.band_weight])
        return linear(x, rows, torch.cat([self.bias[:first], self.band_bias]))

    def _edges(self, like: Tensor) -> Tensor:
        return torch.tensor(self.cutoffs, device=like.device)

    def _check(self, x: Tensor, weight: Tensor) -> None:
        if weight.shape[:1] != (self.vocab_size,) or x.shape[-1:] != weight.shape[1:]:
            raise ShapeError(
                f"AdaptiveSoftmax: x has shape {tuple(x.shape)} and weight {tuple(weight.shape)}; "
                f"expected (N, size) and ({self.vocab_size}, size)."
            )


class FixedSoftmax:
    """What `AdaptiveSoftmax.log_probs` gives, bit for bit in the core, by weights packed once.

    >>> head = AdaptiveSoftmax(8, 10, cutoffs=(4,))
    >>> weight, x = torch.randn(10, 8), torch.randn(3, 8)
    >>> torch.allclose(head.fixed(weight).log_probs(x), head.log_probs(x, weight))
    True
    """

    def __init__(self, softmax: AdaptiveSoftmax, weight: Tensor) -> None:
        first = softmax.cutoffs[0] if softmax.cutoffs else softmax.vocab_size
        rows, bias = [weight[:first]], [softmax.bias[:first]]
        if softmax.cutoffs:
            rows += [softmax.band_weight, weight[first:]]
            bias += [softmax.band_bias, softmax.bias[first:]]
        self._linear = FixedLinear(torch.cat(rows), torch.cat(bias))
        self._outputs = sum(map(len, rows))
        self._first = first
        # Columns of the logits: the head with the bands' own, then the tokens of each band.
        ends = [first + len(softmax.cutoffs)]
        ends += [end + ends[0] - first for end in (*softmax.cutoffs[1:], softmax.vocab_size)]
        self._bands = list(itertools.pairwise(ends)) if softmax.cutoffs else []
        self._head = ends[0]

    @torch.no_grad()
    def log_probs(self, x: Tensor) -> Tensor:
        """log p (N, vocab_size) of every token after x (N, input_size)."""
        logits = self._linear(x.contiguous(), x.new_empty(len(x), self._outputs))
        head = F.log_softmax(logits[:, : self._head], 1)
        if not self._bands:
            return head
        parts = [head[:, : self._first]]
        for k, (low, high) in enumerate(self._bands):
            inside = F.log_softmax(logits[:, low:high], 1)
            parts.append(inside + head[:, self._first + k, None])
        return torch.cat(parts, 1)
