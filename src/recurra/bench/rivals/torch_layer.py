"""torch.nn's layers and recurra.nn's: the same calls, so the same file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays, parameter_names
from recurra.bench.job import Job
from recurra.bench.truth import TORCH_LAYERS


def make(case: Case, arrays: Arrays, participant: str) -> Job:
    torch.set_num_threads(case.threads)
    ours = participant.startswith("recurra")
    layer = make_layer(case, arrays, our_layers() if ours else TORCH_LAYERS)
    x = torch.from_numpy(arrays["x"])
    runs_on = _backend(layer, x) if ours else ""
    if case.mode == "step":
        job = _step_stream(layer, x, participant == "recurra-out") if ours else _step(layer, x)
        job.runs_on = runs_on
        return job
    forwards: dict[str, Callable[[], Tensor]] = {"run": lambda: layer(x)[0]}
    if case.is_ragged:
        forwards = {
            "ragged": _ragged(layer, x, torch.from_numpy(arrays["lengths"]), ours),
            "padded": forwards["run"],
        }
    if not case.trains:
        layer.eval()
        first = next(iter(forwards.values()))
        return Job(
            dict(forwards), lambda: {"output": first().numpy()}, torch.inference_mode, runs_on
        )
    d_output = torch.from_numpy(arrays["d_output"])
    calls = {name: _training(layer, forward, d_output) for name, forward in forwards.items()}
    first_call = next(iter(calls.values()))

    def results() -> Arrays:
        output = first_call()
        names = parameter_names(case.shape[-1])
        return {
            "output": output.detach().numpy(),
            **{f"grad.{name}": getattr(layer, name).grad.numpy() for name in names},
        }

    return Job(dict(calls), results, contextlib.nullcontext, runs_on)


def our_layers() -> dict[str, Callable[..., torch.nn.Module]]:
    """recurra.nn's layers; imported here, so that torch's worker has nothing of recurra's core."""
    from recurra.nn.gru import GRU
    from recurra.nn.lstm import LSTM
    from recurra.nn.rnn import RNN

    return {"lstm": LSTM, "gru": GRU, "rnn": RNN}


def make_layer(
    case: Case, arrays: Arrays, layers: dict[str, Callable[..., torch.nn.Module]]
) -> torch.nn.Module:
    """The layer with the weights of the case."""
    _, _, inputs, hidden, count = case.shape
    layer = layers[case.cell](inputs, hidden, count)
    layer.load_state_dict({name: torch.from_numpy(arrays[name]) for name in parameter_names(count)})
    return layer


def _training(
    layer: torch.nn.Module, forward: Callable[[], Tensor], d_output: Tensor
) -> Callable[[], Tensor]:
    parameters = list(layer.parameters())

    def call() -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        output = forward()
        output.backward(d_output)  # type: ignore[no-untyped-call]
        return output

    return call


def _ragged(layer: Any, x: Tensor, lengths: Tensor, ours: bool) -> Callable[[], Tensor]:
    """A ragged batch as users write it: lengths= here, pack and unpack in torch."""
    if ours:
        return lambda: layer(x, lengths=lengths)[0]

    def packed() -> Tensor:
        output, _ = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(output, total_length=len(x))[0]

    return packed


def _step(layer: Any, x: Tensor) -> Job:
    """Sequences of one step, the state kept by the caller."""
    layer.eval()
    state: Any = None
    x_t = x[:1]

    def call() -> None:
        nonlocal state
        _, state = layer(x_t, state)

    def results() -> Arrays:
        outputs, kept = [], None
        for k in range(len(x)):
            output, kept = layer(x[k : k + 1], kept)
            outputs.append(output)
        return {"output": torch.cat(outputs).numpy()}

    return Job({"run": call}, results, torch.inference_mode)


def _step_stream(layer: Any, x: Tensor, with_out: bool) -> Job:
    """recurra's stream: push(x_t) gives a new tensor, push(x_t, out=y) fills one that is there."""
    layer.eval()
    stream = layer.stream(batch_size=1)
    x_t = x[0]
    y = torch.empty(1, layer.hidden_size)
    out = {"out": y} if with_out else {}

    def results() -> Arrays:
        fresh = layer.stream(batch_size=1)
        return {"output": torch.stack([fresh.push(row, **out).clone() for row in x]).numpy()}

    call = (lambda: stream.push(x_t, out=y)) if with_out else (lambda: stream.push(x_t))
    return Job({"run": call}, results, torch.inference_mode)


def _backend(layer: Any, x: Tensor) -> str:
    """The backends that recurra.explain names for the layers, as "cpu" or "cpu, reference"."""
    from recurra.nn.explain import explain

    lines = [line.strip() for line in explain(layer, x).splitlines()]
    chosen = [line.partition(": ")[2] for line in lines if line.startswith("layer ")]
    return ", ".join(dict.fromkeys(chosen))
