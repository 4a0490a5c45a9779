"""The true results of a case: torch.nn in float64. Only the benchmark's own process needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays, make_arrays, parameter_names

TORCH_LAYERS: dict[str, Callable[..., torch.nn.Module]] = {
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
    "rnn": torch.nn.RNN,
}


def true_results(case: Case, arrays: Arrays) -> Arrays:
    """Outputs and gradients of torch.nn in float64, under the names that workers compare with."""
    _, time, inputs, hidden, layers = case.shape
    layer = TORCH_LAYERS[case.cell](inputs, hidden, layers).double()
    names = parameter_names(layers)
    layer.load_state_dict({name: torch.from_numpy(arrays[name]) for name in names})
    x, d_output = (torch.from_numpy(arrays[name]).double() for name in ("x", "d_output"))
    if case.is_ragged:
        lengths = torch.from_numpy(arrays["lengths"])
        packed, _ = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        output, _ = pad_packed_sequence(packed, total_length=time)
    else:
        output, _ = layer(x)
    found = {"output": output.detach().numpy()}
    if case.trains:
        output.backward(d_output)  # type: ignore[no-untyped-call]
        found |= {f"grad.{name}": getattr(layer, name).grad.numpy() for name in names}
    return found


def write_case(case: Case, folder: Path) -> Path:
    """The file of a case in `folder`, made when it is not there yet."""
    kind = "memory" if case.mode == "memory" else "train" if case.trains else "infer"
    form = "ragged" if case.is_ragged else "full"
    path = folder / f"{case.cell}-{'-'.join(map(str, case.shape))}-{form}-{kind}.safetensors"
    if not path.exists():
        arrays = make_arrays(case)
        truth = {} if case.mode == "memory" else true_results(case, arrays)
        named = {f"true.{name}": np.ascontiguousarray(value) for name, value in truth.items()}
        save_file({**arrays, **named}, path)
    return path
