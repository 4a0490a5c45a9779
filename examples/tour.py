"""The pictures of docs/tour.md, from synthetic data. python examples/tour.py

tour-neuron.png     the state of one recurrent neuron after a pulse, for four self-connections
tour-gradients.png  the norm of dLoss/dState on its way back, for three spectral radii and an LSTM
tour-gates.png      the gates of an LSTM of one unit that has learned to be a memory
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from recurra import nn
from recurra.training.clipping import make_clipper
from recurra.training.flow import gradient_flow

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
# Okabe and Ito 2008: distinct with every common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
SELF_CONNECTIONS = (0.5, 0.95, 1.5, -0.9)
RADII = (0.8, 1.0, 1.2)
TIME = 50


class Memory(NamedTuple):
    """One sequence of the memory problem, and what the LSTM did: each of the arrays (T,)."""

    inputs: np.ndarray  # (T, 3): value, write, read
    target: np.ndarray
    output: np.ndarray
    cell: np.ndarray
    gates: Mapping[str, np.ndarray]


def pulse_response(u: float, time: int = 30) -> Tensor:
    """h (T,) of h' = tanh(x + u h) after x = 1 at step 0."""
    neuron = nn.RNN(1, 1, bias=False, batch_first=True)
    pulse = torch.zeros(1, time, 1)
    pulse[0, 0] = 1
    with torch.no_grad():
        neuron.weight_ih_l0.fill_(1)
        neuron.weight_hh_l0.fill_(u)
        return neuron(pulse)[0].flatten()


def elman(radius: float) -> nn.RNN:
    """32 units whose recurrent matrix is orthogonal times `radius`."""
    torch.manual_seed(0)
    rnn = nn.RNN(1, 32, batch_first=True, init="orthogonal")
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(radius)
    return rnn


def way_back(layer: torch.nn.Module, scale: float) -> np.ndarray:
    """The norm of dLoss/dState (T,) for a loss of the last step, beside the norm there."""
    x = scale * torch.randn(4, TIME, 1, generator=torch.Generator().manual_seed(1))
    flow = gradient_flow(layer, x, lambda model, x: model(x)[0][:, -1].sum())
    parts = np.array(list(flow.layers[0].norms.values()))
    norms = np.sqrt((parts**2).sum(0))
    return norms / norms[-1]


def memory_problem(rng: torch.Generator, batch: int, time: int = 40) -> tuple[Tensor, Tensor]:
    """x (B, T, 3): value, write, read; target (B, T): what was last written, 0 if not read."""
    value = 2 * torch.rand(batch, time, generator=rng) - 1
    write = torch.rand(batch, time, generator=rng) < 0.1
    read = torch.rand(batch, time, generator=rng) < 0.2
    write[:, 0] = True
    last = torch.where(write, torch.arange(time), 0).cummax(1).values
    return torch.stack([value, write, read], -1), value.gather(1, last) * read


def learn_memory(steps: int) -> tuple[nn.LSTM, torch.nn.Linear]:
    """One unit, taught to be a memory."""
    torch.manual_seed(2)
    lstm, head = nn.LSTM(3, 1, batch_first=True, forget_bias=1.0), torch.nn.Linear(1, 1)
    parameters = [*lstm.parameters(), *head.parameters()]
    optimiser, clipper = torch.optim.Adam(parameters, lr=0.02), make_clipper("norm", 1.0)
    rng = torch.Generator().manual_seed(2)
    for _ in range(steps):
        x, target = memory_problem(rng, 32)
        loss = (head(lstm(x)[0]).squeeze(-1) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        clipper.apply(parameters)
        optimiser.step()
    return lstm, head


@torch.no_grad()
def watch_memory(lstm: nn.LSTM, head: torch.nn.Linear, time: int = 45) -> Memory:
    """One new sequence, step by step."""
    x, target = memory_problem(torch.Generator().manual_seed(9), 1, time)
    cell = lstm.cells[0]
    params = {name.removesuffix("_l0"): value for name, value in lstm.named_parameters()}
    state, rows = cell.initial_state(1, params), []
    for projected_t in cell.project(x[0], params).split(1):
        gates = cell.gate_values(projected_t, state, params)
        h, state = cell.step(projected_t, state, params)
        rows.append(torch.cat([head(h), state.c, *gates.values()], 1))
    output, c, i, f, o = torch.cat(rows).numpy().T
    return Memory(x[0].numpy(), target[0].numpy(), output, c, {"i": i, "f": f, "o": o})


def draw_neuron(responses: Mapping[float, np.ndarray]) -> Figure:
    figure, (axes,) = make_figure(1, 2.8)
    for colour, (u, h) in zip(COLOURS, responses.items(), strict=True):
        axes.plot(h, color=colour, marker="o", markersize=3, linewidth=1.3, label=f"u = {u:g}")
    axes.set(title="One neuron after a pulse at step 0", xlabel="time step", ylabel="state h")
    axes.legend(**BESIDE)
    return figure


def draw_gradients(norms: Mapping[str, np.ndarray]) -> Figure:
    figure, (axes,) = make_figure(1, 3.0)
    for colour, (name, values) in zip(COLOURS, norms.items(), strict=True):
        axes.plot(values, color=colour, linewidth=1.6, label=name)
    axes.set_yscale("log")
    axes.set(
        title=f"A loss at step {TIME - 1}, taken back",
        xlabel="time step",
        ylabel="norm of dLoss/dState",
    )
    axes.legend(**BESIDE)
    return figure


def draw_gates(memory: Memory) -> Figure:
    figure, panels = make_figure(5, 6.4)
    value, write, read = memory.inputs.T
    steps = np.arange(len(value))
    top = panels[0]
    top.plot(steps, value, color="#b8bfc6", linewidth=0.9, label="value read in")
    written, asked = write > 0, read > 0
    top.plot(steps[written], value[written], "s", color=COLOURS[1], markersize=5, label="write")
    top.plot(steps, memory.output, color=COLOURS[0], linewidth=1.2, label="answer")
    top.plot(
        steps[asked],
        memory.target[asked],
        "o",
        color="black",
        mfc="none",
        markersize=5,
        label="read",
    )
    top.set_title("Store a number, hold it, show it: an LSTM of one unit")
    top.legend(**BESIDE)
    panels[1].step(steps, memory.cell, where="mid", color="black", linewidth=1.2)
    panels[1].set_title("cell c")
    names = {"i": "input gate i", "f": "forget gate f", "o": "output gate o"}
    colours = dict(zip(names, (COLOURS[1], COLOURS[2], COLOURS[0]), strict=True))
    marks = {"i": written, "f": written, "o": asked}
    for axes, (gate, values) in zip(panels[2:], memory.gates.items(), strict=True):
        axes.bar(steps, values, width=1.0, color=colours[gate])
        axes.vlines(steps[marks[gate]], 1.05, 1.2, color="black", linewidth=1.2)
        axes.set(ylim=(0, 1.22), yticks=(0, 1), title=names[gate])
    panels[-1].set_xlabel("time step; strokes above the bars: write (i, f), read (o)")
    return figure


BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False}


def make_figure(rows: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure that no window system knows of, its panels below each other."""
    figure = Figure(figsize=(7.2, height), layout="constrained")
    panels = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        axes.spines[["right", "top"]].set_visible(False)
    return figure, panels


class Tour(NamedTuple):
    """What was drawn."""

    responses: Mapping[float, np.ndarray]
    norms: Mapping[str, np.ndarray]
    memory: Memory


def main(arguments: list[str] | None = None) -> Tour:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="of training the one-unit LSTM")
    parser.add_argument("--out", type=Path, default=PICTURES)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    responses = {u: pulse_response(u).numpy() for u in SELF_CONNECTIONS}
    # Inputs so small that tanh is all but linear: what is seen is the matrix alone.
    norms = {f"Elman, spectral radius {r:g}": way_back(elman(r), 1e-6) for r in RADII}
    lstm = nn.LSTM(1, 32, batch_first=True, init="chrono", chrono_length=TIME)
    norms["LSTM, init='chrono'"] = way_back(lstm, 1.0)
    memory = watch_memory(*learn_memory(options.steps))
    pictures = {
        "neuron": draw_neuron(responses),
        "gradients": draw_gradients(norms),
        "gates": draw_gates(memory),
    }
    for name, figure in pictures.items():
        path = options.out / f"tour-{name}.png"
        figure.savefig(path, dpi=100, metadata={"Software": None})
        print(f"wrote {path}")
    return Tour(responses, norms, memory)


if __name__ == "__main__":
    main()
