"""What the laws run over: every cell, every backend, random shapes, and how close is close.

A new cell or backend must be added to CELLS or RUNNERS; `test_coverage.py` says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from recurra.cells.cell import Cell, Masks, Params, State
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.ind_rnn import IndRNN
from recurra.cells.lem import LEM
from recurra.cells.lru import LRU
from recurra.cells.lstm import LSTM
from recurra.cells.min_gru import MinGRU
from recurra.cells.min_lstm import MinLSTM
from recurra.cells.mlstm import MLSTM
from recurra.cells.rg_lru import RGLRU
from recurra.cells.slstm import SLSTM
from recurra.kernels import cpu, dispatch
from recurra.kernels.recompute import run_in_segments, segments_of
from recurra.kernels.sequence import Features, Recompute, Sequence, Zoneout, check_lengths

CELLS: dict[str, Callable[[int, int], Cell]] = {
    "elman-tanh": lambda i, h: Elman(i, h),
    "elman-relu": lambda i, h: Elman(i, h, activation="relu"),
    "elman-no-bias": lambda i, h: Elman(i, h, bias=False),
    "elman-norm": lambda i, h: Elman(i, h, layer_norm=True),
    "lstm": lambda i, h: LSTM(i, h),
    "lstm-projected": lambda i, h: LSTM(i, h, proj_size=h - 1),
    "lstm-no-bias": lambda i, h: LSTM(i, h, bias=False),
    "lstm-projected-no-bias": lambda i, h: LSTM(i, h, proj_size=h - 1, bias=False),
    "lstm-peephole": lambda i, h: LSTM(i, h, peephole=True),
    "lstm-coupled": lambda i, h: LSTM(i, h, coupled=True),
    "lstm-coupled-peephole-projected": lambda i, h: LSTM(
        i, h, coupled=True, peephole=True, proj_size=h - 1
    ),
    "lstm-norm": lambda i, h: LSTM(i, h, layer_norm=True),
    "lstm-norm-peephole-projected-no-bias": lambda i, h: LSTM(
        i, h, layer_norm=True, peephole=True, proj_size=h - 1, bias=False
    ),
    "gru": lambda i, h: GRU(i, h),
    "gru-no-bias": lambda i, h: GRU(i, h, bias=False),
    "gru-norm": lambda i, h: GRU(i, h, layer_norm=True),
    "gru-norm-no-bias": lambda i, h: GRU(i, h, layer_norm=True, bias=False),
    "gru-reset-before": lambda i, h: GRU(i, h, reset_after=False),
    "gru-reset-before-no-bias": lambda i, h: GRU(i, h, reset_after=False, bias=False),
    "indrnn-relu": lambda i, h: IndRNN(i, h, memory_length=50),
    "indrnn-tanh-no-bias": lambda i, h: IndRNN(i, h, activation="tanh", bias=False),
    "lem": lambda i, h: LEM(i, h),
    "lem-slow-no-bias": lambda i, h: LEM(i, h, dt=0.3, bias=False),
    "slstm": lambda i, h: SLSTM(i, h),
    "slstm-heads": lambda i, h: SLSTM(i, 2 * h, num_heads=2),
    "slstm-exp-no-bias": lambda i, h: SLSTM(i, h, forget_gate="exp", bias=False),
    "mlstm": lambda i, h: MLSTM(i, h),
    "mlstm-heads": lambda i, h: MLSTM(i, 2 * h, num_heads=2),
    "mlstm-exp-no-bias": lambda i, h: MLSTM(i, h, forget_gate="exp", bias=False),
    "min-gru": lambda i, h: MinGRU(i, h),
    "min-gru-plain-no-bias": lambda i, h: MinGRU(i, h, positive=False, bias=False),
    "min-lstm": lambda i, h: MinLSTM(i, h),
    "min-lstm-plain-no-bias": lambda i, h: MinLSTM(i, h, positive=False, bias=False),
    "rg-lru": lambda i, h: RGLRU(i, h),
    "rg-lru-heads-no-bias": lambda i, h: RGLRU(i, 2 * h, num_heads=2, bias=False),
    "lru": lambda i, h: LRU(i, h),
    "lru-ring": lambda i, h: LRU(i, h, r_min=0.4, r_max=0.9, max_phase=0.3),
}
# Those that the compiled core has kernels for; coupled gates it gets as four, heads as one.
CORE_CELLS = {
    name: make
    for name, make in CELLS.items()
    if isinstance(make(2, 3), cpu.CELLS) and not {"norm", "coupled", "heads"} & {*name.split("-")}
}

# Relative and absolute tolerance of sums over a handful of steps.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
DTYPES = [pytest.param(dtype, id=str(dtype).removeprefix("torch.")) for dtype in TOLERANCE]

quick = settings(max_examples=10, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Runner:
    """A backend on a device.

    The operators that the cudnn backend calls exist on the CPU too. There the backend's own code
    is called past the dispatch, which would refuse it, so that the laws hold it without a GPU.
    """

    backend: str
    device: str

    def refuses(self, cell: Cell, features: Features) -> str | None:
        if features.masks and not cell.has_recurrent_product:
            return "layers refuse it: the cell has no product with h"
        device = torch.device("cuda" if self.backend == "cudnn" else self.device)
        return dispatch.BACKENDS[self.backend].why_not(cell, features, torch.float32, device)

    @property
    def dispatched(self) -> bool:
        """False for a backend that is called past the dispatch."""
        return self.backend != "cudnn" or self.device != "cpu"

    def run(self, sequence: Sequence) -> tuple[Tensor, State]:
        if not self.dispatched:
            run, count = dispatch.BACKENDS["cudnn"].run, segments_of(sequence, rebuilds=False)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "LSTM with projections is not supported")
                return run_in_segments(sequence, count, run) if count else run(sequence)
        return dispatch.run(sequence, self.backend)


RUNNERS = [Runner("reference", "cpu"), Runner("cudnn", "cpu"), Runner("cpu", "cpu")]
RUNNERS += [Runner("chunkwise", "cpu"), Runner("scan", "cpu")]
if torch.cuda.is_available():
    RUNNERS += [Runner("reference", "cuda"), Runner("cudnn", "cuda")]
    RUNNERS += [Runner("chunkwise", "cuda"), Runner("scan", "cuda")]


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

# Kernels work in blocks of 4 to 32 numbers: sizes around and between their multiples, odd ones too.
wide_shapes = st.builds(
    Shape,
    batch=st.integers(1, 9),
    time=st.integers(0, 9),
    input=st.integers(1, 40),
    hidden=st.integers(2, 40),
    batch_first=st.booleans(),
    seed=st.integers(0, 999),
)


class Asked(NamedTuple):
    """What a call asks for beyond the plain run; `Case.ask` draws the tensors for it."""

    given_state: bool
    lengths: bool
    reset: bool
    reverse: bool
    masks: Literal["none", "locked", "fresh"]
    zoneout: Literal["none", "drawn", "expected"]
    clip: bool = False
    recompute: Recompute = None


anything = st.builds(
    Asked,
    given_state=st.booleans(),
    lengths=st.booleans(),
    reset=st.booleans(),
    reverse=st.booleans(),
    masks=st.sampled_from(["none", "locked", "fresh"]),
    zoneout=st.sampled_from(["none", "drawn", "expected"]),
    clip=st.booleans(),
    recompute=st.sampled_from([None, "gates", 1, 2, 9]),
)
EVERYTHING = Asked(True, True, True, True, "fresh", "drawn")


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
        params = {}
        for name, size in cell.parameter_shapes().items():
            # Smaller for many inputs: an exploding recurrence has no digits left to compare.
            spread = 0.6 * min(1.0, (5 / size[-1]) ** 0.5) if len(size) == 2 else 0.6
            params[name] = spread * normal(*size)
        parts = {part: normal(shape.batch, size) for part, size in cell.state_sizes().items()}
        if isinstance(cell, SLSTM):
            parts["n"] = parts["n"].abs() + 0.5  # a sum of gates, and h is divided by it
        state = cell.make_state(*parts.values())
        return cls(cell, runner, x, params, state, shape.batch_first, rng)

    @property
    def start_of_output(self) -> Tensor | None:
        """The part of the state passed in that the output is, where it is one."""
        part = self.cell.output_part
        return None if part is None else getattr(self.state, part)

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

    def mask(self, *, fresh: bool = False) -> Tensor:
        """Scaled dropout on h: (B, output_size), or fresh ones at each step (B, T, output_size)."""
        time = (self.time,) if fresh else ()
        size = (self.batch, *time, self.cell.output_size)
        kept = torch.rand(size, generator=self.rng) < 0.7
        return kept.to(self.x) / 0.7

    def zoneout(self, *, drawn: bool = True) -> tuple[Tensor | float, ...]:
        """Another share of every part to be kept; drawn: 0 or 1 for each step and unit."""
        shares = [0.4, 0.3, 0.2, 0.5][: len(self.state)]
        if not drawn:
            return tuple(shares)
        choices = [
            torch.rand(self.batch, self.time, size, generator=self.rng) < share
            for share, size in zip(shares, self.cell.state_sizes().values(), strict=True)
        ]
        return tuple(choice.to(self.x) for choice in choices)

    def ask(self, asked: Asked) -> dict[str, Any]:
        """Keywords of `run` for what is asked for, without what the backend says it cannot do."""
        call: dict[str, Any] = {"state": self.state if asked.given_state else None}
        if asked.lengths:
            call["lengths"] = self.lengths()
        if asked.reset and self._can(reset=True):
            call["reset"] = self.resets()
        if asked.reverse:
            call["reverse"] = True
        if asked.masks != "none" and self._can(masks=True):
            call["mask"] = self.mask(fresh=asked.masks == "fresh")
        if asked.zoneout != "none" and self._can(zoneout=True):
            call["zoneout"] = self.zoneout(drawn=asked.zoneout == "drawn")
        if asked.clip and self._can(clip=True):
            call["clip_state_grad"] = 0.3
        if asked.recompute is not None:
            call["recompute"] = asked.recompute
        return call

    def _can(self, **features: bool) -> bool:
        return self.runner.refuses(self.cell, Features(1, 1, **features)) is None

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

    def sequence(self, **call: Any) -> Sequence:
        """The call; `call` overrides x, params and state and adds features, all batch first."""
        x = call.pop("x", self.x)
        lengths = call.pop("lengths", None)
        if lengths is not None:
            lengths = check_lengths(lengths, x.shape[0], x.shape[1], x.device, "case")
        mask = call.pop("mask", None)
        zoneout = call.pop("zoneout", None)
        return Sequence(
            self.cell,
            self._laid_out(x),
            call.pop("params", self.params),
            call.pop("state", self.state),
            self.batch_first,
            lengths,
            masks=None if mask is None else Masks(self._laid_out(mask)),
            zoneout=None if zoneout is None else Zoneout(tuple(map(self._laid_out, zoneout))),
            **call,
        )

    def _laid_out(self, value: Any) -> Any:
        """A tensor over time as the call wants it; anything else as it is."""
        over_time = isinstance(value, Tensor) and value.dim() == 3 and not self.batch_first
        return value.transpose(0, 1) if over_time else value

    def run(self, *, on: Runner | None = None, **call: Any) -> tuple[Tensor, ...]:
        """(output (B, T, ·), *final state) of the call that `sequence` makes."""
        output, final = (on or self.runner).run(self.sequence(**call))
        assert type(final) is type(self.state)
        return (self._laid_out(output), *final)

    def can_run(self) -> bool:
        """False for an empty call on a backend that says it has none."""
        return self.runner.refuses(self.cell, Features(self.batch, self.time)) is None


def rows_of(call: dict[str, Any], own: slice) -> dict[str, Any]:
    """The keywords of `Case.run` for some rows only."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[own]
        if isinstance(value, tuple):
            parts = [cut(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        return value

    return {name: cut(value) for name, value in call.items()}


def steps_of(call: dict[str, Any], begin: int, end: int) -> dict[str, Any]:
    """The keywords of `Case.run` for the steps begin..end only; the state is left out."""
    cut = {name: value for name, value in call.items() if name != "state"}
    if "lengths" in cut:
        cut["lengths"] = (cut["lengths"] - begin).clamp(0, end - begin)
    if "reset" in cut:
        cut["reset"] = cut["reset"][:, begin:end]
    if "mask" in cut and cut["mask"].dim() == 3:
        cut["mask"] = cut["mask"][:, begin:end]
    if "zoneout" in cut:
        cut["zoneout"] = tuple(
            keep[:, begin:end] if isinstance(keep, Tensor) else keep for keep in cut["zoneout"]
        )
    return cut


def by_hand(case: Case, call: dict[str, Any]) -> tuple[Tensor, ...]:
    """What `case.run(**call)` means, said again with the cell's step alone, row by row."""
    cell, params = case.cell, case.params
    start = call["state"] or cell.initial_state(case.batch, params)
    output = case.x.new_zeros(case.batch, case.time, cell.output_size)
    finals = []
    for row in range(case.batch):
        own = slice(row, row + 1)
        state = cell.make_state(*(part[own] for part in start))
        steps = range(int(call["lengths"][row]) if "lengths" in call else case.time)
        for t in reversed(steps) if call.get("reverse") else steps:
            if "reset" in call and call["reset"][row, t]:
                state = cell.initial_state(1, params)
            mask = call.get("mask")
            if mask is not None:
                mask = Masks(mask[own] if mask.dim() == 2 else mask[own, t])
            projected_t = cell.project(case.x[own, t], params)
            output_t, stepped = cell.step(projected_t, state, params, mask)
            if "zoneout" in call:
                keeps = [k[own, t] if isinstance(k, Tensor) else k for k in call["zoneout"]]
                parts = zip(keeps, state, stepped, strict=True)
                stepped = cell.make_state(*(k * old + (1 - k) * new for k, old, new in parts))
                if cell.output_part is not None:
                    output_t = getattr(stepped, cell.output_part)
            state = stepped
            output[own, t] = output_t
        finals.append(state)
    return (output, *(torch.cat(parts) for parts in zip(*finals, strict=True)))


def gradients(
    values: tuple[Tensor, ...], leaves: dict[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """Gradients of one number made of all values with random factors; 0 where none arrives."""
    rng = torch.Generator().manual_seed(seed)
    total = sum((v * torch.randn(v.shape, generator=rng).to(v)).sum() for v in values)
    if not total.requires_grad:  # no step was run, and no state was given
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def assert_close(actual: Any, expected: Any, what: str = "", largest: float = 1.0) -> None:
    """Compare a tensor or a tuple of tensors at the tolerance of their dtype.

    The absolute tolerance is that for numbers up to `largest`.
    """
    if not isinstance(actual, Tensor):
        assert len(actual) == len(expected)
        for number, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert_close(a, b, f"{what}[{number}]", largest)
        return
    near = TOLERANCE[actual.dtype]
    torch.testing.assert_close(
        actual, expected, rtol=near, atol=near * largest, msg=lambda text: f"{what}: {text}"
    )


def assert_gradients_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare gradients, each at the tolerance of its largest entry."""
    assert actual.keys() == expected.keys()
    for name, right in expected.items():
        largest = max(1.0, float(right.abs().max())) if right.numel() else 1.0
        assert_close(actual[name], right, f"gradient of {name}", largest)
