"""torch.nn's cells, one step at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recurra.bench.cases import Case
from recurra.bench.inputs import Arrays
from recurra.bench.job import Job

CELLS: dict[str, Any] = {
    "lstm": torch.nn.LSTMCell,
    "gru": torch.nn.GRUCell,
    "rnn": torch.nn.RNNCell,
}


def make(case: Case, arrays: Arrays, participant: str) -> Job:
    torch.set_num_threads(case.threads)
    _, _, inputs, hidden, layers = case.shape
    cells = []
    for layer in range(layers):
        cell = CELLS[case.cell](inputs if layer == 0 else hidden, hidden)
        cell.load_state_dict(
            {
                name.removesuffix(f"_l{layer}"): torch.from_numpy(value)
                for name, value in arrays.items()
                if name.endswith(f"_l{layer}")
            }
        )
        cells.append(cell)
    x = torch.from_numpy(arrays["x"])
    keeps_c = case.cell == "lstm"

    def step(x_t: Tensor, states: list[Any]) -> Tensor:
        for k, cell in enumerate(cells):
            states[k] = cell(x_t, states[k])
            x_t = states[k][0] if keeps_c else states[k]
        return x_t

    def results() -> Arrays:
        states = [None] * layers
        return {"output": torch.stack([step(x_t, states) for x_t in x]).numpy()}

    kept: list[Any] = [None] * layers
    x_t = x[0]
    return Job({"run": lambda: step(x_t, kept)}, results, torch.inference_mode)
