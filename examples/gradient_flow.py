"""The vanishing gradient, seen: an Elman network beside an LSTM. python examples/gradient_flow.py

Both read sequences as in the adding problem (Hochreiter and Schmidhuber 1997): numbers, two of
which are marked, and the sum of these two is to be said at the end. While they learn, the norm of
dLoss/dState is measured after every step of time, and drawn as docs/pictures/gradient-flow.png:
the Elman network's gradient is gone long before it reaches the first steps; the LSTM's comes
through.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recurra import nn
from recurra.report.drawing import save
from recurra.report.maps import HeatMap, heat_maps
from recurra.training import GradientFlow, gradient_flow

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "gradient-flow.png"
TIME, BATCH, HIDDEN = 60, 32, 32


class LastStep(torch.nn.Module):
    """A number from the last output of a recurrent layer."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = torch.nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.layer(x)[0][:, -1])
        return output.squeeze(-1)


def adding_problem(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """x (B, T, 2): numbers in [0, 1) and marks, one in each half; the sum of the marked (B,)."""
    numbers = torch.rand(BATCH, TIME, generator=rng)
    marks = torch.zeros(BATCH, TIME)
    for begin in (0, TIME // 2):
        at = torch.randint(begin, begin + TIME // 2, (BATCH, 1), generator=rng)
        marks.scatter_(1, at, 1.0)
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(1)


def loss(model: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, target = batch
    return torch.nn.functional.mse_loss(model(x), target)


def train(
    model: torch.nn.Module, steps: int, every: int, seed: int
) -> list[tuple[int, GradientFlow]]:
    """Learn, and measure every so many steps: (updates done, flow)."""
    rng = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    measured = []
    for step in range(steps):
        batch = adding_problem(rng)
        if step % every == 0:
            measured.append((step, gradient_flow(model, batch, loss)))
        optimiser.zero_grad()
        loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return measured


def heat_map(title: str, measured: list[tuple[int, GradientFlow]]) -> HeatMap:
    """The norm of the whole state's gradient, for every measurement and step of time."""
    layers = [flow.layers[0] for _, flow in measured]
    parts = np.array([list(layer.norms.values()) for layer in layers])
    return HeatMap(
        title,
        np.array([step for step, _ in measured]),
        np.array(layers[0].steps),
        np.sqrt((parts**2).sum(1)),
    )


def main(arguments: list[str] | None = None) -> list[HeatMap]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = {
        "Elman network": nn.RNN(2, HIDDEN, batch_first=True),
        "LSTM, init='chrono'": nn.LSTM(
            2, HIDDEN, batch_first=True, init="chrono", chrono_length=TIME
        ),
    }
    maps = []
    for name, layer in layers.items():
        measured = train(LastStep(layer), options.steps, options.every, seed=1)
        last = measured[-1][1].layers[0]
        norms = np.sqrt(sum(np.square(part) for part in last.norms.values()))
        print(f"{name}: at the first step {norms[0] / norms.max():.1e} of the largest norm")
        maps.append(heat_map(f"{name}: norm of dLoss/dState", measured))
    save(heat_maps(maps, "log10 norm"), options.out)
    print(f"wrote {options.out}")
    return maps


if __name__ == "__main__":
    main()
