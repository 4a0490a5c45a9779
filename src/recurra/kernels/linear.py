"""A linear map whose bits for a row depend on that row alone, for the heads of streamed models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from recurra.kernels import core, cpu

# A second thread pays from about this many rows of a streamed head; below, waking it costs more.
ROWS_OF_A_THREAD = 256


def can_run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether the core computes `linear` here: plain tensors on a CPU, no derivative to record."""
    if torch.compiler.is_compiling() or core.module is None:
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        core.are_plain(tensors)
        and x.dtype in cpu.DTYPES
        and all(t.is_cpu and t.dtype is x.dtype for t in tensors)
        and x.shape[-1:] == weight.shape[1:]
        and (bias is None or bias.shape == weight.shape[:1])
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
        and not core.is_tracing()
        and not core.is_transformed()
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
    )


class FixedLinear:
    """`linear` with a copy of the weights, for a stream: y is given, and nothing is allocated.

    Shapes: x (..., input_size) and y (..., output_size), both contiguous, of the weights' dtype.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.detach().clone().contiguous()
        self._bias = None if bias is None else bias.detach().clone().contiguous()
        self._in_core = core.module is not None and weight.is_cpu and weight.dtype in cpu.DTYPES
        self._double = weight.dtype == torch.float64
        self._outputs, self._inputs = weight.shape
        self._addresses = (
            self._weight.data_ptr(),
            0 if self._bias is None else self._bias.data_ptr(),
        )
        threads = cpu.choice.threads or torch.get_num_threads()
        self._alone, self._together = (cpu.choice._replace(threads=n) for n in (1, threads))

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """y, with x Wᵀ + b in it."""
        if not self._in_core:
            return y.copy_(F.linear(x, self._weight, self._bias))
        rows = x.numel() // self._inputs
        weight, bias = self._addresses
        core.module.linear(
            self._together if rows >= ROWS_OF_A_THREAD else self._alone,
            self._double,
            rows,
            self._inputs,
            self._outputs,
            x.data_ptr(),
            self._inputs,
            weight,
            bias,
            y.data_ptr(),
        )
        return y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b; every output is one sum over k in ascending order, however many rows there are.

    Shapes: x (..., input_size), weight (output_size, input_size), bias (output_size,),
    y (..., output_size). Without the core, where a gradient is recorded, and for tensors that it
    does not take, this is torch's own with its errors; its bits may depend on the number of rows.
    """
    if not can_run(x, weight, bias):
        return F.linear(x, weight, bias)
    outputs, inputs = weight.shape
    count = x.shape[:-1].numel()
    rows = core.dense_rows(x.reshape(count, inputs))
    y = x.new_empty(*x.shape[:-1], outputs)
    weight = core.stored(weight).contiguous()
    bias = None if bias is None else core.stored(bias).contiguous()
    threads = cpu.choice.threads or torch.get_num_threads()
    core.module.linear(
        cpu.choice._replace(threads=threads),
        x.dtype == torch.float64,
        count,
        inputs,
        outputs,
        rows.data_ptr(),
        rows.stride(0),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
    )
    return y
