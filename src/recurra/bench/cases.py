"""What is timed: one cell at one shape in one mode on a number of threads.

    train          a forward and a backward pass, gradients of all parameters
    infer          a forward pass without gradients
    step           one time step at batch 1, state kept from call to call
    ragged-train   as train, lengths uniform in [1, T]; the padded batch is timed beside it
    ragged-infer   as infer, likewise
    memory         how far one training step raises the memory of a fresh process

`recurra bench --modes ragged` means both ragged modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recurra.errors import ConfigError, unknown

CELLS = ("lstm", "gru", "rnn")
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
MODES = {
    "train": ("train",),
    "infer": ("infer",),
    "step": ("step",),
    "ragged": ("ragged-train", "ragged-infer"),
    "memory": ("memory",),
}

Shape = tuple[int, int, int, int, int]
"""batch, time, input_size, hidden_size, num_layers."""

TUNED: tuple[Shape, ...] = (
    (32, 96, 8, 32, 1),
    (64, 96, 32, 64, 1),
    (64, 168, 64, 128, 2),
    (20, 35, 650, 650, 2),
    (16, 400, 80, 256, 1),
    (256, 48, 4, 64, 1),
)
"""The shapes that kernels are tuned on."""

OTHER: tuple[Shape, ...] = (
    (1, 2000, 3, 33, 1),
    (2, 2000, 17, 64, 1),
    (1, 100, 1000, 1000, 1),
    (8, 50, 100, 1000, 1),
    (3, 333, 7, 51, 2),
    (4, 1000, 64, 20, 2),
    (5, 77, 129, 97, 1),
    (7, 61, 33, 255, 3),
    (31, 45, 19, 77, 1),
    (129, 13, 301, 147, 1),
)
"""Held out: odd sizes, small batches, long sequences, many units. No kernel is tuned on them."""

SHAPE_SETS = {"tuned": TUNED, "other": OTHER}
STEP_HIDDEN = (32, 64, 128, 256, 512)
STEP_LAYERS = (1, 2)
STEP_TIME = 20
"""Steps over which the numbers of `step` are compared; one call is one step."""
RAGGED: tuple[Shape, ...] = ((64, 100, 64, 128, 1), (64, 400, 64, 128, 1))
MEMORY: tuple[Shape, ...] = ((64, 1000, 64, 128, 1), (64, 168, 64, 128, 2), (20, 35, 650, 650, 2))
SMALL: dict[str, tuple[Shape, ...]] = {
    "train": TUNED[:1],
    "infer": TUNED[:1],
    "step": ((1, STEP_TIME, 32, 32, 1),),
    "ragged": ((16, 100, 8, 32, 1),),
    "memory": ((32, 96, 32, 64, 1),),
}
"""What `--quick` times."""


@dataclass(frozen=True)
class Case:
    """One cell at one shape in one mode on `threads` threads."""

    mode: str
    cell: str
    shape: Shape
    threads: int

    @property
    def trains(self) -> bool:
        return self.mode in ("train", "ragged-train", "memory")

    @property
    def is_ragged(self) -> bool:
        return self.mode.startswith("ragged")

    @property
    def gflop(self) -> float:
        """10⁹ floating-point operations of one call, padding included; see `flops`."""
        if self.mode == "step":
            _, _, inputs, hidden, layers = self.shape
            return flops(self.cell, (1, 1, inputs, hidden, layers), train=False) / 1e9
        return flops(self.cell, self.shape, train=self.trains) / 1e9

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.mode} {self.cell} {','.join(map(str, self.shape))}, {threads}"


def flops(cell: str, shape: Shape, *, train: bool) -> int:
    """Operations of the matrix products: two for each multiply-add of W x and of U h.

    Training counts every product three times, for the outputs and for both of its gradients, less
    the gradient of the first layer's x, which nobody asks for. Gates are not counted.

    >>> shape = (32, 96, 8, 32, 1)
    >>> flops("lstm", shape, train=False), flops("lstm", shape, train=True)
    (31457280, 88080384)
    """
    batch, time, inputs, hidden, layers = shape
    rows = 2 * batch * time * GATES[cell] * hidden
    forward = rows * (inputs + hidden) + (layers - 1) * rows * 2 * hidden
    return 3 * forward - rows * inputs if train else forward


def make_cases(
    modes: Iterable[str],
    cells: Sequence[str],
    shapes: Sequence[Shape] | None,
    threads: Sequence[int],
    *,
    quick: bool = False,
) -> list[Case]:
    """Every case asked for, those of one number of threads together.

    `shapes` are for train and infer, None meaning those that kernels are tuned on; the other modes
    have shapes of their own. Memory is measured at the largest number of threads only.
    Raises: ConfigError for an unknown mode or cell.
    """
    modes = list(dict.fromkeys(modes))
    for mode in modes:
        if mode not in MODES:
            raise ConfigError(unknown("mode", mode, MODES))
    for cell in cells:
        if cell not in CELLS:
            raise ConfigError(unknown("cell", cell, CELLS))
    return [
        Case(one, cell, shape, count)
        for count in dict.fromkeys(threads)
        for mode in modes
        if mode != "memory" or count == max(threads)
        for one in MODES[mode]
        for cell in dict.fromkeys(cells)
        for shape in _shapes(mode, shapes, quick=quick)
    ]


def _shapes(mode: str, asked: Sequence[Shape] | None, *, quick: bool) -> Sequence[Shape]:
    if mode in ("train", "infer") and asked is not None:
        return asked
    if quick:
        return SMALL[mode]
    if mode == "step":
        return [(1, STEP_TIME, h, h, layers) for layers in STEP_LAYERS for h in STEP_HIDDEN]
    return {"ragged": RAGGED, "memory": MEMORY}.get(mode, TUNED)


def parse_shapes(words: Iterable[str]) -> list[Shape]:
    """Shapes out of "tuned", "other" and "B,T,I,H,L".

    Raises: ConfigError for anything else.

    >>> parse_shapes(["8,50,100,1000,1"])
    [(8, 50, 100, 1000, 1)]
    """
    found: list[Shape] = []
    for word in words:
        if word in SHAPE_SETS:
            found += SHAPE_SETS[word]
            continue
        try:
            batch, time, inputs, hidden, layers = (int(part) for part in word.split(","))
        except ValueError:
            raise ConfigError(
                f"--shapes {word!r} is no shape; expected 'tuned', 'other' or five numbers "
                "B,T,I,H,L (batch, time, input_size, hidden_size, num_layers), as in 32,96,8,32,1."
            ) from None
        shape = (batch, time, inputs, hidden, layers)
        if min(shape) < 1:
            raise ConfigError(f"--shapes {word!r}: expected five numbers of at least 1.")
        found.append(shape)
    return list(dict.fromkeys(found))
