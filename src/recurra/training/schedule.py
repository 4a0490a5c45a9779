"""The learning rate over a run, as a factor of the highest rate.

cooldown    linear warm-up, constant, then linear to 0 over the last `cooldown_share` of the steps;
            the part before the cooldown does not depend on the total, so a clock may fix it late.
            Source: Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed
            Training Durations", section 3.
cosine      linear warm-up, then half a cosine to 0 (Loshchilov and Hutter 2017, eq. 5).
one_cycle   cosine rise from 1/25 over the first 30 %, cosine fall to 1/250000 (Smith and Topin
            2018; torch's OneCycleLR with its defaults, momentum kept constant).
"""

from __future__ import annotations

import math

from recurra.training.settings import TrainingSettings


def cooldown_start(total: int, share: float) -> int:
    """Step at which the cooldown of a run of `total` steps begins."""
    return math.floor((1.0 - share) * total)


def total_for_cooldown(start: int, share: float) -> int:
    """Smallest total whose cooldown begins at step `start`; inverse of `cooldown_start`.

    >>> total_for_cooldown(700, 0.3)
    1000
    """
    total = max(0, math.floor(start / (1.0 - share)) - 2)
    # cooldown_start never falls and rises by at most 1 per step of total, so it meets every value.
    while cooldown_start(total, share) < start:
        total += 1
    return total


def rate_factor(settings: TrainingSettings, step: int, total: int | None) -> float:
    """Factor of the learning rate at `step` (from 0) of a run of `total` steps.

    `total` None means not fixed yet, which only the schedule "cooldown" allows.
    """
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "cooldown":
        return warm if total is None else min(warm, _cooldown(settings, step, total))
    assert total is not None
    if settings.schedule == "one_cycle":
        return _one_cycle(step, total)
    if step < settings.warmup_steps:
        return warm
    done = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    return _cosine(1.0, 0.0, done)


def _cooldown(settings: TrainingSettings, step: int, total: int) -> float:
    start = cooldown_start(total, settings.cooldown_share)
    # One more in the divisor: the first step of the cooldown is below 1, the last one above 0.
    return min(1.0, (total - step) / (total - start + 1))


def _one_cycle(step: int, total: int) -> float:
    low, lowest = 1 / 25, 1 / 25 / 1e4
    peak, last = max(0.3 * total - 1, 0.0), max(total - 1, 1)
    if step < peak:
        return _cosine(low, 1.0, step / peak)
    return _cosine(1.0, lowest, (step - peak) / (last - peak))


def _cosine(begin: float, end: float, done: float) -> float:
    return end + (begin - end) / 2.0 * (1.0 + math.cos(math.pi * min(1.0, done)))
