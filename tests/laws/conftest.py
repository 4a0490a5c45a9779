"""Exact float32 on CUDA: the laws compare at the tolerance of the dtype, not of TF32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from recurra.kernels import chunkwise


@pytest.fixture(autouse=True, scope="session")
def _no_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(autouse=True, scope="module")
def _short_chunks() -> Iterator[None]:
    """Sequences of the laws are short: chunks must be too, or there would never be a second one."""
    before, chunkwise.CHUNK = chunkwise.CHUNK, 2
    yield
    chunkwise.CHUNK = before
