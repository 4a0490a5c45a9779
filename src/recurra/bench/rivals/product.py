"""The matrix product that says what the machine can do at this moment: 1024³ in float32."""

from __future__ import annotations

import torch

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays
from recurra.bench.job import Job

SIZE = 1024
GFLOP = 2 * SIZE**3 / 1e9


def make(case: Case, arrays: Arrays, participant: str) -> Job:
    torch.set_num_threads(case.threads)
    # Random numbers: on some processors constant ones draw less power and run at a higher clock.
    a, b = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    c = torch.empty(SIZE, SIZE)
    return Job({"run": lambda: torch.mm(a, b, out=c)}, dict, torch.inference_mode)
