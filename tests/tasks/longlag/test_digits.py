"""Images become sequences of pixels; the parts of the set do not overlap."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from tests.tasks.longlag.fakes import install_digits

from recurra.errors import MissingExtraError
from recurra.tasks.longlag.digits import digits, read_images


def test_pixels_are_read_row_after_row(monkeypatch: pytest.MonkeyPatch) -> None:
    data, target = install_digits(monkeypatch)
    problem = digits(permuted=False)
    assert problem.test.inputs.shape == (500, 64, 1)
    np.testing.assert_array_equal(16 * problem.test.inputs[..., 0].numpy(), data[1297:])
    np.testing.assert_array_equal(16 * problem.validation.inputs[..., 0].numpy(), data[1097:1297])
    assert problem.test.mask.sum(0).tolist() == [0] * 63 + [500]
    assert problem.test.targets[:, -1].tolist() == target[1297:].tolist()
    assert (problem.measure, problem.solved_below, problem.output_size) == ("error", None, 10)


def test_training_draws_from_the_first_images_only(monkeypatch: pytest.MonkeyPatch) -> None:
    data, target = install_digits(monkeypatch)
    rows = {tuple(row): int(k) for row, k in zip(data[:1097], target, strict=False)}
    batch = digits(permuted=False).draw(torch.Generator().manual_seed(0), 5000)
    seen = [tuple(row) for row in (16 * batch.inputs[..., 0]).tolist()]
    assert len(set(seen)) > 1050
    assert batch.targets[batch.mask].tolist() == [rows[row] for row in seen]


def test_one_permutation_holds_for_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    install_digits(monkeypatch)
    plain, permuted = digits(permuted=False), digits(permuted=True)
    before, after = plain.test.inputs[..., 0], permuted.test.inputs[..., 0]
    order = [int((before == after[:, k : k + 1]).all(0).nonzero()) for k in range(64)]
    assert sorted(order) == list(range(64))
    assert order != list(range(64))
    assert torch.equal(plain.validation.inputs[:, order], permuted.validation.inputs)
    assert torch.equal(permuted.test.targets, plain.test.targets)
    assert torch.equal(permuted.test.inputs, digits(permuted=True).test.inputs)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'recurra\[digits\]'"):
        read_images()


def test_the_real_images_are_what_they_are_said_to_be() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: recurra[digits]")
    pixels, classes = read_images()
    assert pixels.shape == (1797, 64)
    assert (float(pixels.min()), float(pixels.max())) == (0.0, 1.0)
    assert torch.bincount(classes).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
