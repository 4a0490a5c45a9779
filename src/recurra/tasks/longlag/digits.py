"""Digit images read one pixel at a time: the 8 x 8 images that scikit-learn ships.

Source: E. Alpaydin and C. Kaynak 1998, "Optical recognition of handwritten digits", UCI, its test
part of 1,797 images; as a sequence of pixels, also in a permuted order, after Le, Jaitly and Hinton
2015, "A simple way to initialize recurrent networks of rectified linear units".
"""

from __future__ import annotations

import torch
from torch import Tensor

from recurra.errors import MissingExtraError
from recurra.tasks.longlag.problems import Batch, Problem

# In the set's own order, so that the last images are largely by other writers than the first.
TRAIN, VALIDATION = 1097, 200
PERMUTATION_SEED = 92916


def digits(permuted: bool) -> Problem:
    """Images of digits, (B, 64, 1) in [0, 1], row after row or in one permuted order; the class.

    1,097 images to train on, 200 for validation, the last 500 for the test. There is no criterion:
    the share of wrong answers is reported.
    Raises: MissingExtraError without scikit-learn.
    """
    pixels, classes = read_images()
    steps = pixels.shape[1]
    if permuted:
        rng = torch.Generator().manual_seed(PERMUTATION_SEED)
        pixels = pixels[:, torch.randperm(steps, generator=rng)]
    sequences = _sequences(pixels, classes)
    train, validation, test = (
        Batch(*(part[rows] for part in sequences))
        for rows in (
            slice(0, TRAIN),
            slice(TRAIN, TRAIN + VALIDATION),
            slice(TRAIN + VALIDATION, None),
        )
    )

    def draw(rng: torch.Generator, batch_size: int) -> Batch:
        rows = torch.randint(len(train.inputs), (batch_size,), generator=rng)
        return Batch(*(part[rows] for part in train))

    return Problem(
        "digits-permuted" if permuted else "digits",
        steps,
        1,
        10,
        draw,
        validation,
        test,
        "error",
        baseline=0.9,
        solved_below=None,
    )


def read_images() -> tuple[Tensor, Tensor]:
    """Pixels (1797, 64) float32 in [0, 1] and classes (1797,) int64.

    Raises: MissingExtraError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "digits", "the digits benchmark") from error
    data, target = load_digits(return_X_y=True)
    pixels = torch.as_tensor(data, dtype=torch.float32) / 16.0
    return pixels, torch.as_tensor(target, dtype=torch.int64)


def _sequences(pixels: Tensor, classes: Tensor) -> Batch:
    rows, steps = pixels.shape
    targets = torch.zeros(rows, steps, dtype=torch.int64)
    targets[:, -1] = classes
    mask = (torch.arange(steps) == steps - 1).repeat(rows, 1)
    return Batch(pixels.unsqueeze(2), targets, mask)
