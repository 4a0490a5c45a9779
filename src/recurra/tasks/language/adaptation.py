"""Models that adapt to the text they are scored on: dynamic evaluation, and a neural cache.

Both see each token only after it was scored, so their numbers are honest; but they are another kind
of number than a fixed model's, and are always reported apart.

Dynamic evaluation takes a gradient step after each segment, scaled by how large each parameter's
gradients were in training, and pulls the weights back to the trained ones:

    θ ← θ − η g / (s + ε) + min(λ s / s̄, 1/2) (θ₀ − θ)      s = √mean(g²) in training, s̄ its mean
    ε = s̄ / 10

Source: Krause, Kahembwe, Murray and Renals 2018, "Dynamic evaluation of neural sequence models",
eq. 6 to 8 (RMS with a decay to the prior); their ε is a number to choose, here it follows s̄.

The cache mixes in the words that followed similar states a short while ago:

    p(w) = (1 − λ) p_model(w) + λ Σ_i 1[w_{i+1} = w] softmax_i(θ x_t · x_i)   i = t − size … t − 1

Source: Grave, Joulin and Usunier 2017, "Improving neural language models with a continuous cache",
eq. 2 to 5 (linear interpolation).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor

from recurra.nn.language import LanguageNetwork
from recurra.tasks.language.settings import CheckedModel
from recurra.training.bptt import detach_state

_BLOCK = 256


class DynamicSettings(CheckedModel):
    """learning_rate η, decay λ, and tokens in a segment."""

    learning_rate: float = Field(default=1e-4, gt=0)
    decay: float = Field(default=1e-3, ge=0)
    segment: int = Field(default=20, ge=1)


class CacheSettings(CheckedModel):
    """size in tokens, flatness θ, weight λ of the cache."""

    size: int = Field(default=1000, ge=1)
    flatness: float = Field(default=0.3, ge=0)
    weight: float = Field(default=0.1, ge=0, lt=1)


def score_adapting(
    network: LanguageNetwork,
    scale: Mapping[str, Tensor],
    ids: Tensor,
    start_id: int,
    settings: DynamicSettings,
) -> Iterator[Tensor]:
    """Nats of every token of ids (n,) under dynamic evaluation; the network is left as it is."""
    adapting = copy.deepcopy(network).eval()
    names = [name for name, _ in adapting.named_parameters()]
    parameters: list[Tensor] = list(adapting.parameters())
    trained = [p.detach().clone() for p in parameters]
    total = sum(scale[name].numel() for name in names)
    mean = sum(float(scale[name].sum()) for name in names) / total
    mean = max(mean, 1e-30)
    step_size = [settings.learning_rate / (scale[name] + 0.1 * mean) for name in names]
    pull = [(settings.decay * scale[name] / mean).clamp(max=0.5) for name in names]
    last, state = torch.tensor([start_id]), None
    with torch.enable_grad():
        for begin in range(0, len(ids), settings.segment):
            targets = ids[begin : begin + settings.segment].long()
            inputs = torch.cat([last, targets[:-1]])
            features, after = adapting(inputs[None], state)
            nats = adapting.nll(features, targets[None])[0]
            yield nats.detach()
            gradients = torch.autograd.grad(nats.mean(), parameters)
            with torch.no_grad():
                torch._foreach_addcmul_(parameters, list(gradients), step_size, value=-1.0)
                torch._foreach_lerp_(parameters, trained, pull)
            state, last = detach_state(after), targets[-1:]


@torch.no_grad()
def score_with_cache(
    network: LanguageNetwork, ids: Tensor, start_id: int, settings: CacheSettings
) -> Iterator[Tensor]:
    """Nats of every token of ids (n,) with the cache mixed in."""
    last, state = torch.tensor([start_id]), None
    keys = torch.empty(0, network.output_size)
    followers = torch.empty(0, dtype=torch.long)
    for begin in range(0, len(ids), _BLOCK):
        targets = ids[begin : begin + _BLOCK].long()
        features, state = network(torch.cat([last, targets[:-1]])[None], state)
        x = features[0]
        model = -network.nll(x, targets)
        kept = len(keys)
        keys, followers = torch.cat([keys, x]), torch.cat([followers, targets])
        cached = _cached(x, keys, followers, targets, kept, settings)
        mixed = torch.logaddexp(
            model + math.log1p(-settings.weight),
            cached + (math.log(settings.weight) if settings.weight else -math.inf),
        )
        # The first token of all has an empty cache, and the model alone.
        yield -torch.where(torch.arange(len(targets)) + kept == 0, model, mixed)
        keys, followers = keys[-settings.size :], followers[-settings.size :]
        last = targets[-1:]


def _cached(
    x: Tensor,
    keys: Tensor,
    followers: Tensor,
    targets: Tensor,
    kept: int,
    settings: CacheSettings,
) -> Tensor:
    """log p (T,) of the targets by the cache, −∞ where it does not hold them.

    Row t may look at the entries before its own, kept + t, as far back as the cache's size.
    """
    own = torch.arange(len(x))[:, None] + kept
    at = torch.arange(len(keys))[None]
    seen = (at < own) & (at >= own - settings.size)
    scores = (settings.flatness * x @ keys.T).masked_fill(~seen, -math.inf)
    everything = scores.logsumexp(1)
    right = scores.masked_fill(followers[None] != targets[:, None], -math.inf).logsumexp(1)
    return torch.where(everything == -math.inf, everything, right - everything)
