"""What training does to features (T, bins), so that a network hears more than there is.

Loudness, noise and masks act on log-mel features, where they cost next to nothing; other speeds are
made from the sound itself, see `examples.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recurra.tasks.speech.settings import SpeechSettings

NATS_PER_DB = math.log(10) / 10  # of power
_MOST_MASKED = 0.2  # of a recording's frames, by one mask of time
_STEEPEST = 4.0  # nats from the lowest to the highest bin of a made noise
_AVERAGED = 4  # exponential powers in a bin of a made noise: a filter covers about so many lines


def change_loudness(features: Tensor, gain_db: float, rng: torch.Generator) -> Tensor:
    """Features of the sound up to `gain_db` louder or softer."""
    return features + NATS_PER_DB * gain_db * float(2 * torch.rand((), generator=rng) - 1)


def perturb_by_noise(
    features: Tensor, noises: Sequence[Tensor], settings: SpeechSettings, rng: torch.Generator
) -> Tensor:
    """Features of the sound with noise, in a share of all calls, as `settings` say.

    noises   features of recordings of noise, of which a random stretch is taken; without any, noise
             is made: steady, of a random tilt of its spectrum
    """
    if settings.noise_db is None or float(torch.rand((), generator=rng)) >= settings.noise_share:
        return features
    low, high = settings.noise_db
    ratio_db = low + (high - low) * float(torch.rand((), generator=rng))
    if noises:
        noise = noises[int(torch.randint(len(noises), (), generator=rng))]
        begin = int(torch.randint(len(noise), (), generator=rng))
        noise = noise[(begin + torch.arange(len(features))) % len(noise)]  # again where it ends
    else:
        noise = make_noise(len(features), features.shape[1], rng)
    return add_noise(features, noise, ratio_db)


def add_noise(features: Tensor, noise: Tensor, ratio_db: float) -> Tensor:
    """Log-mel features of a sound and a noise together, from those of each, both (T, bins).

    log(e^f + e^(n + level)), with the level that makes the mean power of the sound `ratio_db` above
    that of the noise. Powers of sounds that know nothing of each other add up, on average.
    """
    level = _mean_power(features) - _mean_power(noise) - NATS_PER_DB * ratio_db
    return torch.logaddexp(features, noise + level)


def make_noise(frames: int, bins: int, rng: torch.Generator) -> Tensor:
    """Log-mel features of steady noise with a random tilt: powers that fluctuate about a line."""
    slope = _STEEPEST * float(2 * torch.rand((), generator=rng) - 1)
    uniform = torch.rand(_AVERAGED, frames, bins, generator=rng).clamp_min(1e-12)
    return slope * torch.linspace(0, 1, bins) + (-uniform.log()).mean(0).log()


def mask_features(features: Tensor, settings: SpeechSettings, rng: torch.Generator) -> Tensor:
    """SpecAugment: some bands of frequency and spans of time replaced by the mean, which is 0.

    A span of time has at most a fifth of the frames.
    Source: Park et al. 2019, "SpecAugment"; without time warping, which they found to do little.
    """

    def span(length: int, widest: int) -> tuple[int, int]:
        width = int(torch.randint(min(widest, length) + 1, (), generator=rng))
        begin = int(torch.randint(length - width + 1, (), generator=rng))
        return begin, begin + width

    frames, bins = features.shape
    for _ in range(settings.frequency_masks):
        begin, end = span(bins, settings.frequency_width)
        features[:, begin:end] = 0
    for _ in range(settings.time_masks):
        begin, end = span(frames, min(settings.time_width, int(_MOST_MASKED * frames)))
        features[begin:end] = 0
    return features


def _mean_power(features: Tensor) -> float:
    """The logarithm of the mean power over all frames and bins."""
    return float(features.flatten().logsumexp(0)) - math.log(features.numel())
