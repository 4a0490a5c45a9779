"""The language-model network: embedding, recurrent layers, and a soft-max over the vocabulary.

    e_t = E[token_t];  x = e;  x = layer_k(x) for each layer, with norms and residuals where asked;
    p(token_{t+1}) = softmax(W x_t + b)

Tied, W = E, and e_t = √size · E[token_t], so that rows which are small enough to be an output's are
large enough to be seen as an input.

Dropouts, in training only, each with a probability of its own (Merity, Keskar and Socher 2017,
"Regularizing and optimizing LSTM language models", section 4): `embedding_dropout` leaves out whole
tokens' vectors, `input_dropout` acts on e, `hidden_dropout` between layers, `output_dropout` before
the soft-max. Locked, they draw one mask for a whole sequence; otherwise one for each step (Zaremba,
Sutskever and Vinyals 2014). `weight_drop`, `recurrent_dropout` and `zoneout` are the layers' own.
Tying: Press and Wolf 2017, Inan, Khosravi and Socher 2017.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurra.errors import ConfigError, unknown
from recurra.nn.adaptive_softmax import AdaptiveSoftmax
from recurra.nn.dropouts import lock_input
from recurra.nn.gru import GRU
from recurra.nn.ind_rnn import IndRNN
from recurra.nn.lem import LEM
from recurra.nn.lru import LRU
from recurra.nn.lstm import LSTM
from recurra.nn.min_gru import MinGRU
from recurra.nn.min_lstm import MinLSTM
from recurra.nn.mlstm import MLSTM
from recurra.nn.recurrent import Recurrent
from recurra.nn.rg_lru import RGLRU
from recurra.nn.rnn import RNN
from recurra.nn.slstm import SLSTM

CELLS: dict[str, Callable[..., Recurrent]] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
    "ind-rnn": IndRNN,
    "lem": LEM,
    "min-gru": MinGRU,
    "min-lstm": MinLSTM,
    "rg-lru": RGLRU,
    "lru": LRU,
    "slstm": SLSTM,
    "mlstm": MLSTM,
}
LayerStates = list[Any]
"""The state of each layer, as the layer returns it."""


class LanguageNetwork(nn.Module):
    """Predicts the next token after each one.

    embedding_size   features of a token; None for hidden_size. Tied, the last layer has this size
    norm, residual   RMS norm of each layer's input and of the last output; inputs added to outputs
                     where the sizes are equal
    cutoffs          bands of the soft-max, see `AdaptiveSoftmax`
    layer_options    further keywords of the recurrent layers

    Shapes: tokens (B, T) int, features (B, T, output_size), state one entry for each layer (None:
    the initial ones), reset (B, T) bool.
    Raises: ConfigError for an unknown cell, and for what its layer refuses.

    >>> network = LanguageNetwork(10, hidden_size=8)
    >>> features, state = network(torch.tensor([[1, 2, 3]]))
    >>> network.log_probs(features[:, -1]).shape
    torch.Size([1, 10])
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        cell: str = "lstm",
        hidden_size: int,
        num_layers: int = 1,
        embedding_size: int | None = None,
        tied: bool = False,
        norm: bool = False,
        residual: bool = False,
        cutoffs: Sequence[int] = (),
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        output_dropout: float = 0.0,
        locked: bool = True,
        layer_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ConfigError(unknown("cell", cell, CELLS))
        embedded = hidden_size if embedding_size is None else embedding_size
        sizes = [embedded] + [hidden_size] * num_layers
        if tied:
            sizes[-1] = embedded
        self.vocab_size = vocab_size
        self.residual = residual
        self.embedding_dropout = embedding_dropout
        self.input_dropout = input_dropout
        self.hidden_dropout = hidden_dropout
        self.output_dropout = output_dropout
        self.locked = locked
        self.output_size = sizes[-1]
        self.embedding = nn.Embedding(vocab_size, embedded)
        options = {"batch_first": True, **(layer_options or {})}
        self.layers = nn.ModuleList(
            CELLS[cell](sizes[k], sizes[k + 1], **options) for k in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.RMSNorm(size, eps=1e-6) for size in (sizes if norm else ()))
        self.output_weight = None if tied else nn.Parameter(torch.empty(vocab_size, sizes[-1]))
        self.softmax = AdaptiveSoftmax(sizes[-1], vocab_size, cutoffs)
        self._scale = math.sqrt(embedded) if tied else 1.0
        nn.init.uniform_(self._weight, -0.1, 0.1)  # that of the output; an embedding is normal

    def forward(
        self, tokens: Tensor, state: LayerStates | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, LayerStates]:
        """(features after each token, state after the last one), without the output's dropout."""
        x = self._drop(self._embed(tokens), self.input_dropout)
        after = []
        for k, layer in enumerate(self.layers):
            if k:
                x = self._drop(x, self.hidden_dropout)
            y, final = layer(self._norm(k, x), None if state is None else state[k], reset=reset)
            x = self._add(x, y)
            after.append(final)
        return self._norm(len(self.layers), x), after

    def drop_output(self, features: Tensor) -> Tensor:
        """`output_dropout` on features, for the loss; what `forward` returns has none."""
        return self._drop(features, self.output_dropout)

    def nll(self, features: Tensor, targets: Tensor) -> Tensor:
        """−log p (…,) of the targets (…,) after features (…, output_size), in nats."""
        rows = features.reshape(-1, self.output_size)
        return self.softmax.nll(rows, targets.reshape(-1), self._weight).view(targets.shape)

    def log_probs(self, features: Tensor) -> Tensor:
        """log p (N, vocab_size) of every token after features (N, output_size)."""
        return self.softmax.log_probs(features, self._weight)

    def stream(self) -> LanguageStream:
        """A handle that reads one token at a time, at a constant cost."""
        return LanguageStream(self)

    @property
    def _weight(self) -> Tensor:
        return self.embedding.weight if self.output_weight is None else self.output_weight

    def _embed(self, tokens: Tensor) -> Tensor:
        weight = self.embedding.weight
        if self.training and self.embedding_dropout > 0:
            weight = weight * F.dropout(weight.new_ones(len(weight), 1), self.embedding_dropout)
        return F.embedding(tokens.long(), weight) * self._scale

    def _drop(self, x: Tensor, p: float) -> Tensor:
        if not self.training or p == 0:
            return x
        return lock_input(x, p, True) if self.locked else F.dropout(x, p)

    def _norm(self, k: int, x: Tensor) -> Tensor:
        return self.norms[k](x) if len(self.norms) else x

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if self.residual and x.shape == y.shape else y


class LanguageStream:
    """A network and where it stands in one endless text; memory and cost per token are constant.

    The weights are those that the network had when this was made; dropout is off.

    >>> stream = LanguageNetwork(10, hidden_size=8).stream()
    >>> stream.push(3).shape
    torch.Size([10])
    """

    def __init__(self, network: LanguageNetwork) -> None:
        # A copy, so that the parts of one stream are of one time; and looked up here, once, because
        # a step may be shorter than nn.Module's detours.
        self._network = copy.deepcopy(network).eval().requires_grad_(False)
        self._softmax = self._network.softmax.fixed(self._network._weight.detach())
        self._rows = self._network.embedding.weight.detach() * self._network._scale
        self._streams = [layer.stream(1) for layer in self._network.layers]  # type: ignore[operator]
        self._norms: list[nn.Module | None] = [None] * (len(self._streams) + 1)
        if len(self._network.norms):
            self._norms = list(self._network.norms)

    def push(self, token: int) -> Tensor:
        """log p (vocab_size,) of what follows `token`, in nats."""
        x = self._rows[token : token + 1]
        for norm, stream in zip(self._norms, self._streams, strict=False):
            x = self._network._add(x, stream.push(x if norm is None else norm(x)))
        norm = self._norms[-1]
        return self.log_probs(x if norm is None else norm(x))[0]

    def log_probs(self, features: Tensor) -> Tensor:
        """log p (N, vocab_size) of every token after features (N, output_size)."""
        return self._softmax.log_probs(features)

    def push_chunk(self, tokens: Tensor) -> Tensor:
        """The features (T, output_size) after each of some tokens (T,), as `push` has them."""
        x = F.embedding(tokens.long().to(self._rows.device), self._rows)[None]
        for norm, stream in zip(self._norms, self._streams, strict=False):
            x = self._network._add(x, stream.push_chunk(x if norm is None else norm(x)))
        norm = self._norms[-1]
        features: Tensor = x if norm is None else norm(x)
        return features[0]

    @property
    def state(self) -> LayerStates:
        """A copy of the state, for `restore` and for the network's `forward`."""
        return [stream.state for stream in self._streams]

    def restore(self, state: LayerStates | None) -> None:
        """Go on from a state that `state`, or the network, handed out; None is the initial one."""
        for k, stream in enumerate(self._streams):
            stream.restore(None if state is None else state[k])
