"""The cudnn backend: what it says it cannot do. What it computes is held by tests/laws."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch

from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.kernels import cudnn, dispatch
from recurra.kernels.sequence import Features, Sequence

CUDA = torch.device("cuda")


@dataclass(frozen=True)
class Changed(LSTM):
    """A cell that inherits from a stock one computes something else."""


@pytest.mark.parametrize(
    ("cell", "features", "dtype", "reason"),
    [
        (Changed(2, 3), Features(1, 1), torch.float32, "Elman, LSTM and GRU only"),
        (GRU(2, 3, reset_after=False), Features(1, 1), torch.float32, "reset_after=False"),
        (GRU(2, 3), Features(1, 1, reset=True), torch.float32, "reset the state"),
        (GRU(2, 3), Features(1, 1, masks=True), torch.float32, "dropout mask"),
        (GRU(2, 3), Features(1, 1, zoneout=True), torch.float32, "it has no zoneout"),
        (GRU(2, 3), Features(0, 7), torch.float32, r"empty call \(batch 0, time 7\)"),
        (GRU(2, 3), Features(7, 0), torch.float32, r"empty call \(batch 7, time 0\)"),
        (GRU(2, 3), Features(1, 65_536), torch.float32, "65535 time steps, and x has 65536"),
        (GRU(2, 3), Features(1, 1), torch.complex64, "no torch.complex64"),
    ],
)
def test_reasons_name_what_is_in_the_way(cell, features, dtype, reason) -> None:
    with pytest.raises(dispatch.BackendError, match=reason):
        dispatch.select("cudnn", cell, features, dtype, CUDA)


@pytest.mark.parametrize(
    "cell", [Elman(2, 3, activation="relu"), LSTM(2, 3, proj_size=1), GRU(2, 3)]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_stock_cells_with_lengths_and_direction_can_run(cell, dtype) -> None:
    features = Features(4, 65_535, lengths=True, reverse=True)
    assert cudnn.why_not(cell, features, dtype, CUDA) is None


def test_transforms_of_torch_func_are_left_to_the_reference() -> None:
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(cudnn.why_not(GRU(2, 3), Features(1, 1), x.dtype, CUDA))
        return x

    torch.func.vmap(look)(torch.zeros(3))
    assert "torch.func" in str(seen[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("cell", [Elman(4, 5), LSTM(4, 5), LSTM(4, 5, proj_size=3), GRU(4, 5)])
def test_weights_reach_cudnn_as_one_chunk_without_a_warning(cell) -> None:
    params = {
        name: torch.randn(shape, device="cuda", requires_grad=True)
        for name, shape in cell.parameter_shapes().items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output, _ = cudnn.run(Sequence(cell, torch.randn(2, 3, 4, device="cuda"), params))
        output.sum().backward()
    assert all(value.grad is not None for value in params.values())
