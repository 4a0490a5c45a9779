"""Lengths and resets: what is accepted, and what the messages say."""

from __future__ import annotations

import pytest
import torch

from recurra.errors import ShapeError
from recurra.kernels.sequence import check_lengths, check_reset

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_dtype_will_do(dtype) -> None:
    checked = check_lengths(torch.tensor([3, 0, 4], dtype=dtype), 3, 4, CPU, "GRU")
    assert checked.values.tolist() == [3, 0, 4]
    assert (checked.shortest, checked.longest) == (0, 4)
    assert checked.mask(4).tolist() == [
        [True, True, True, False],
        [False, False, False, False],
        [True, True, True, True],
    ]


def test_no_rows_have_no_lengths() -> None:
    checked = check_lengths(torch.zeros(0, dtype=torch.int64), 0, 4, CPU, "GRU")
    assert checked.mask(4).shape == (0, 4)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 4], r"GRU: lengths is a list, but must be an integer tensor of shape \(2,\)"),
        (torch.tensor([3.0, 4.0]), r"lengths has dtype torch.float32, but must be integer"),
        (torch.tensor([True, False]), r"lengths has dtype torch.bool"),
        (torch.tensor([3, 4, 5]), r"lengths has shape \(3,\), but x holds 2 sequences"),
        (torch.tensor([[3, 4]]), r"lengths has shape \(1, 2\)"),
        (torch.tensor([3, 6]), r"lengths\[1\] is 6, but x has 5 time steps.*within 0\.\.5"),
        (torch.tensor([-1, 4]), r"lengths\[0\] is -1"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, message) -> None:
    with pytest.raises(ShapeError, match=message):
        check_lengths(lengths, 2, 5, CPU, "GRU")


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        ([[True]], r"LSTM: reset is list, but must be a bool tensor of shape \(2, 5\)"),
        (torch.zeros(2, 5), r"reset is torch.float32, but must be a bool tensor"),
        (torch.zeros(5, 2, dtype=torch.bool), r"shape \(5, 2\).*= \(2, 5\), whatever batch_first"),
    ],
)
def test_resets_that_do_not_fit_are_refused(reset, message) -> None:
    with pytest.raises(ShapeError, match=message):
        check_reset(reset, 2, 5, CPU, "LSTM")
