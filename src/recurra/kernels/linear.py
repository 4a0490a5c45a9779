"""A linear map whose bits for a row depend on that row alone, for the heads of streamed models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recurra.kernels import cpu


def can_run(x: Tensor, weight: Tensor) -> bool:
    """Whether the compiled core computes `linear` here: on a CPU, without a gradient to record."""
    return (
        cpu._core is not None
        and x.is_cpu
        and x.dtype in cpu.DTYPES
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b; every output is one sum over k in ascending order, however many rows there are.

    Shapes: x (..., input_size), weight (output_size, input_size), bias (output_size,),
    y (..., output_size). Tensors have been checked by whoever calls; without the core, or where a
    gradient is recorded, this is torch's own, whose bits may depend on the number of rows.
    """
    if not can_run(x, weight):
        return F.linear(x, weight, bias)
    outputs, inputs = weight.shape
    rows = x.reshape(-1, inputs)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    y = x.new_empty(*x.shape[:-1], outputs)
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    threads = cpu.choice.threads or torch.get_num_threads()
    cpu._core.linear(
        cpu.choice._replace(threads=threads),
        x.dtype == torch.float64,
        rows.shape[0],
        inputs,
        outputs,
        rows.data_ptr(),
        rows.stride(0),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
    )
    return y
