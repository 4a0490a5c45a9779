"""What the laws run over: every cell, every backend, random shapes, and how close is close.

A new cell or backend must be added to CELLS or RUNNERS; `test_coverage.py` says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from recurra.cells.cell import Cell, Masks, Params, State
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.kernels import dispatch
from recurra.kernels.sequence import Features, Sequence, check_lengths

CELLS: dict[str, Callable[[int, int], Cell]] = {
    "elman-tanh": lambda i, h: Elman(i, h),
    "elman-relu": lambda i, h: Elman(i, h, activation="relu"),
    "elman-no-bias": lambda i, h: Elman(i, h, bias=False),
    "lstm": lambda i, h: LSTM(i, h),
    "lstm-projected": lambda i, h: LSTM(i, h, proj_size=h - 1),
    "lstm-no-bias": lambda i, h: LSTM(i, h, bias=False),
    "lstm-projected-no-bias": lambda i, h: LSTM(i, h, proj_size=h - 1, bias=False),
    "gru": lambda i, h: GRU(i, h),
    "gru-no-bias": lambda i, h: GRU(i, h, bias=False),
    "gru-reset-before": lambda i, h: GRU(i, h, reset_after=False),
    "gru-reset-before-no-bias": lambda i, h: GRU(i, h, reset_after=False, bias=False),
}

# Relative and absolute tolerance of sums over a handful of steps.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
DTYPES = [pytest.param(dtype, id=str(dtype).removeprefix("torch.")) for dtype in TOLERANCE]

quick = settings(max_examples=15, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Runner:
    """A backend on a device.

    The operators that the cudnn backend calls exist on the CPU too. There the backend's own code
    is called past the dispatch, which would refuse it, so that the laws hold it without a GPU.
    """

    backend: str
    device: str

    def refuses(self, cell: Cell, features: Features) -> str | None:
        device = torch.device("cuda" if self.backend == "cudnn" else self.device)
        return dispatch.BACKENDS[self.backend].why_not(cell, features, torch.float32, device)

    def run(self, sequence: Sequence) -> tuple[Tensor, State]:
        if self.backend == "cudnn" and self.device == "cpu":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "LSTM with projections is not supported")
                return dispatch.BACKENDS["cudnn"].run(sequence)
        return dispatch.run(sequence, self.backend)


RUNNERS = [Runner("reference", "cpu"), Runner("cudnn", "cpu")]
if torch.cuda.is_available():
    RUNNERS += [Runner("reference", "cuda"), Runner("cudnn", "cuda")]


def pairs(**features: bool) -> list[Any]:
    """Every cell with every runner that can run it, the given features included."""
    asked = Features(batch=1, time=1, **features)
    found = []
    for name, make in CELLS.items():
        for runner in RUNNERS:
            if runner.refuses(make(2, 3), asked) is None:
                label = f"{name}/{runner.backend}-{runner.device}"
                found.append(pytest.param(make, runner, id=label))
    return found


class Shape(NamedTuple):
    batch: int
    time: int
    input: int
    hidden: int
    batch_first: bool
    seed: int


shapes = st.builds(
    Shape,
    batch=st.integers(1, 4),
    time=st.integers(0, 5),
    input=st.integers(1, 5),
    hidden=st.integers(2, 5),
    batch_first=st.booleans(),
    seed=st.integers(0, 999),
)


@dataclass(frozen=True)
class Case:
    """Random tensors for one cell; x is (B, T, I) here, whatever layout the call uses."""

    cell: Cell
    runner: Runner
    x: Tensor
    params: Params
    state: State
    batch_first: bool
    rng: torch.Generator

    @classmethod
    def draw(
        cls,
        make: Callable[[int, int], Cell],
        runner: Runner,
        shape: Shape,
        dtype: torch.dtype = torch.float64,
    ) -> Case:
        rng = torch.Generator().manual_seed(shape.seed)
        cell = make(shape.input, shape.hidden)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=rng, dtype=torch.float64).to(runner.device, dtype)

        x = normal(shape.batch, shape.time, shape.input)
        params = {name: 0.6 * normal(*size) for name, size in cell.parameter_shapes().items()}
        state = cell.make_state(*(normal(shape.batch, s) for s in cell.state_sizes().values()))
        return cls(cell, runner, x, params, state, shape.batch_first, rng)

    @property
    def batch(self) -> int:
        return self.x.shape[0]

    @property
    def time(self) -> int:
        return self.x.shape[1]

    def lengths(self) -> Tensor:
        """Unsorted lengths 0..T."""
        drawn = torch.randint(0, self.time + 1, (self.batch,), generator=self.rng)
        return drawn.to(self.runner.device)

    def resets(self, share: float = 0.3) -> Tensor:
        drawn = torch.rand(self.batch, self.time, generator=self.rng) < share
        return drawn.to(self.runner.device)

    def weights_like(self, values: tuple[Tensor, ...]) -> list[Tensor]:
        """Random factors that make one number of several tensors without losing any of them."""
        return [torch.randn(v.shape, generator=self.rng).to(v) for v in values]

    def fresh(self) -> Case:
        """The same values as new leaves that want gradients."""
        return replace(
            self,
            x=self.x.detach().clone().requires_grad_(),
            params={k: v.detach().clone().requires_grad_() for k, v in self.params.items()},
            state=self.cell.make_state(
                *(part.detach().clone().requires_grad_() for part in self.state)
            ),
        )

    def leaves(self) -> dict[str, Tensor]:
        state = {
            f"{name}_0": s for name, s in zip(self.cell.state_sizes(), self.state, strict=True)
        }
        return {"x": self.x, **self.params, **state}

    def run(self, *, on: Runner | None = None, **call: Any) -> tuple[Tensor, ...]:
        """(output (B, T, ·), *final state); `call` overrides x and state and adds features."""
        x = call.pop("x", self.x)
        state = call.pop("state", self.state)
        lengths = call.pop("lengths", None)
        if lengths is not None:
            lengths = check_lengths(lengths, x.shape[0], x.shape[1], x.device, "case")
        mask = call.pop("mask", None)
        sequence = Sequence(
            self.cell,
            x if self.batch_first else x.transpose(0, 1),
            call.pop("params", self.params),
            state,
            self.batch_first,
            lengths,
            masks=None if mask is None else Masks(mask),
            **call,
        )
        output, final = (on or self.runner).run(sequence)
        assert type(final) is type(self.state)
        return (output if self.batch_first else output.transpose(0, 1), *final)

    def can_run(self) -> bool:
        """False for an empty call on a backend that says it has none."""
        return self.runner.refuses(self.cell, Features(self.batch, self.time)) is None


def assert_close(actual: Any, expected: Any, what: str = "") -> None:
    """Compare a tensor or a tuple of tensors at the tolerance of their dtype."""
    if not isinstance(actual, Tensor):
        assert len(actual) == len(expected)
        for number, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert_close(a, b, f"{what}[{number}]")
        return
    near = TOLERANCE[actual.dtype]
    torch.testing.assert_close(
        actual, expected, rtol=near, atol=near, msg=lambda text: f"{what}: {text}"
    )
