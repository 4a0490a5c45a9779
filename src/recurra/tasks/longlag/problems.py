"""The problems: sequences drawn from a generator, what is asked of them, and when one is solved.

adding   two of T numbers are marked; their sum, at the end; Hochreiter and Schmidhuber 1997, "Long
         short-term memory", here with one mark in each half as in Arjovsky, Shah and Bengio 2016,
         "Unitary evolution recurrent neural networks"
copy     ten symbols, to be repeated after T blanks; the latter paper
parity   whether the number of ones is odd, for sequences longer than those of training

The images are in `digits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from recurra.errors import ConfigError

COPIED = 10
SYMBOLS = 8
BLANK, DELIMITER = SYMBOLS, SYMBOLS + 1

HELD_OUT = 500  # sequences in validation, and as many in test
# The same held-out sequences for every cell and seed; training draws from seeds of its own.
VALIDATION_SEED, TEST_SEED = 2**40 + 1, 2**40 + 2

Measure = Literal["mse", "nats", "error"]


class Batch(NamedTuple):
    """Sequences and what is asked of them.

    inputs (B, T, I) float32; targets (B, T), float32 numbers or int64 classes; mask (B, T) bool,
    True at the steps whose target counts.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Problem:
    """One problem.

    length         steps of a training sequence; for parity and copy as their function says
    output_size    1 for a number, else the number of classes
    draw           (generator, batch size) to a batch to train on
    measure        "mse"; "nats", the cross entropy in nats per step; "error", the share of wrong
                   answers
    baseline       the measure of the best answer that does not depend on the sequence
    solved_below   the measure that counts as solved; None for a problem without a criterion
    """

    name: str
    length: int
    input_size: int
    output_size: int
    draw: Callable[[torch.Generator, int], Batch]
    validation: Batch
    test: Batch
    measure: Measure
    baseline: float
    solved_below: float | None


def adding_batch(rng: torch.Generator, batch_size: int, length: int) -> Batch:
    """The adding problem: inputs (B, T, 2) are a number in [0, 1) and a mark, 0 or 1.

    One step of the first half is marked and one of the second. The target of the last step is the
    sum of the two numbers marked.

    >>> batch = adding_batch(torch.Generator().manual_seed(0), 3, 20)
    >>> batch.inputs[..., 1].sum(1), batch.mask.sum()
    (tensor([2., 2., 2.]), tensor(3))
    """
    numbers = torch.rand(batch_size, length, generator=rng)
    half = length // 2
    first = torch.randint(half, (batch_size, 1), generator=rng)
    second = torch.randint(half, length, (batch_size, 1), generator=rng)
    marked = torch.cat([first, second], 1)
    marks = torch.zeros(batch_size, length).scatter_(1, marked, 1.0)
    targets = torch.zeros(batch_size, length)
    targets[:, -1] = numbers.gather(1, marked).sum(1)
    return Batch(torch.stack([numbers, marks], 2), targets, _last(batch_size, length))


def copy_batch(rng: torch.Generator, batch_size: int, blanks: int) -> Batch:
    """Copy memory: inputs (B, T + 20, 10), one-hot; targets are 8 symbols and the blank.

    Ten symbols, T − 1 blanks, the delimiter, ten blanks; the targets are T + 10 blanks, then the
    ten symbols. Every step counts.

    >>> batch = copy_batch(torch.Generator().manual_seed(0), 1, 5)
    >>> batch.inputs.argmax(2)[0, 10:].tolist()
    [8, 8, 8, 8, 9, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8]
    >>> torch.equal(batch.targets[0, 15:], batch.inputs.argmax(2)[0, :10])
    True
    """
    symbols = torch.randint(SYMBOLS, (batch_size, COPIED), generator=rng)
    tokens = torch.full((batch_size, blanks + 2 * COPIED), BLANK)
    targets = tokens.clone()
    tokens[:, :COPIED] = symbols
    tokens[:, blanks + COPIED - 1] = DELIMITER
    targets[:, -COPIED:] = symbols
    inputs = torch.nn.functional.one_hot(tokens, SYMBOLS + 2).float()
    return Batch(inputs, targets, torch.ones_like(tokens, dtype=torch.bool))


def parity_batch(rng: torch.Generator, batch_size: int, length: int) -> Batch:
    """Parity: inputs (B, T, 1) are bits; the target of a step is 1 where the ones so far are odd.

    Every step counts, so that a batch asks for all lengths from 1 to T.

    >>> batch = parity_batch(torch.Generator().manual_seed(0), 1, 6)
    >>> batch.inputs[0, :, 0].tolist(), batch.targets[0].tolist()
    ([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], [0, 1, 0, 0, 1, 0])
    """
    bits = torch.randint(2, (batch_size, length), generator=rng)
    mask = torch.ones_like(bits, dtype=torch.bool)
    return Batch(bits.unsqueeze(2).float(), bits.cumsum(1) % 2, mask)


def adding(length: int) -> Problem:
    """Adding over `length` steps; solved at a mean squared error below 0.01.

    Always answering 1 has the variance of a sum of two uniform numbers, 1/6.
    Raises: ConfigError when length is below 2.
    """
    _check_length("adding", length, 2)

    def draw(rng: torch.Generator, batch_size: int) -> Batch:
        return adding_batch(rng, batch_size, length)

    return Problem(
        "adding", length, 2, 1, draw, *_held_out(draw), "mse", baseline=1 / 6, solved_below=0.01
    )


def copy(length: int) -> Problem:
    """Copying after `length` blanks; solved below 10 % of the baseline.

    Without memory, the best is to be sure of each blank and to guess among 8 for each symbol.
    Raises: ConfigError when length is below 1.
    """
    _check_length("copy", length, 1)

    def draw(rng: torch.Generator, batch_size: int) -> Batch:
        return copy_batch(rng, batch_size, length)

    baseline = COPIED * math.log(SYMBOLS) / (length + 2 * COPIED)
    return Problem(
        "copy",
        length,
        SYMBOLS + 2,
        SYMBOLS + 1,
        draw,
        *_held_out(draw),
        "nats",
        baseline=baseline,
        solved_below=0.1 * baseline,
    )


def parity(length: int, trained_length: int = 40) -> Problem:
    """Parity of `length` bits, trained on 1 to `trained_length` of them; solved above 99 % right.

    The training asks for the parity at every step, validation and test at the last one only.

    Raises: ConfigError when length is below 1.
    """
    _check_length("parity", length, 1)

    def draw(rng: torch.Generator, batch_size: int) -> Batch:
        return parity_batch(rng, batch_size, trained_length)

    def long(rng: torch.Generator, batch_size: int) -> Batch:
        return parity_batch(rng, batch_size, length)._replace(mask=_last(batch_size, length))

    return Problem(
        "parity", length, 1, 2, draw, *_held_out(long), "error", baseline=0.5, solved_below=0.01
    )


def _last(batch_size: int, length: int) -> Tensor:
    """The mask of the last step, (B, T)."""
    return (torch.arange(length) == length - 1).repeat(batch_size, 1)


def _held_out(draw: Callable[[torch.Generator, int], Batch]) -> tuple[Batch, Batch]:
    """The validation and the test set."""
    seeds = (VALIDATION_SEED, TEST_SEED)
    validation, test = (draw(torch.Generator().manual_seed(seed), HELD_OUT) for seed in seeds)
    return validation, test


def _check_length(name: str, length: int, least: int) -> None:
    if length < least:
        raise ConfigError(f"{name}: length={length}; expected {least} steps or more.")
