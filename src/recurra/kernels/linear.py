"""A linear map whose bits for a row depend on that row alone, for the heads of streamed models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from recurra.kernels import core, cpu


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
