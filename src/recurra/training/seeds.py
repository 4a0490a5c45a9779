"""Random numbers of a training step, from nothing but the run's seed and the step's number.

Nothing has to be saved to resume: step 1000 draws the same batch and the same dropout masks
whether or not the process was restarted before it.
"""

from __future__ import annotations

import torch

BATCH, MODEL, VALIDATION = 1, 2, 3

_MASK = 0xFFFFFFFF


def step_seed(seed: int, step: int, purpose: int) -> int:
    """Seed in [0, 2**32) of one purpose (BATCH, MODEL, VALIDATION) at one step.

    torch's CPU generator reads 32 bits of a seed only. For a given seed and purpose this is a
    bijection of the step modulo 2**32, so no two steps of a run share their random numbers.
    Source: splitmix64 (Steele, Lea, Flood 2014) mixes seed and purpose into an offset, the
    finaliser of MurmurHash3 (Appleby 2011) scatters neighbouring steps.
    """
    z = (seed * 4 + purpose) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    x = ((z ^ z >> 31) + step) & _MASK
    x = (x ^ x >> 16) * 0x85EBCA6B & _MASK
    x = (x ^ x >> 13) * 0xC2B2AE35 & _MASK
    return x ^ x >> 16


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's global generator, which dropout draws from, on the CPU and on `device`.

    Not `torch.manual_seed`: where CUDA is installed but unused, that queues a call with a formatted
    stack trace every time, far too slow for every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
