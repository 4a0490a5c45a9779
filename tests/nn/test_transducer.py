"""The transducer's loss against every way to align, and finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from recurra.errors import ShapeError
from recurra.nn.transducer import transducer_loss


def example(
    seed: int, batch: int, time: int, most: int, outputs: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random logits in double precision, and rows of all lengths."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, time, most + 1, outputs, generator=rng, dtype=torch.float64)
    lengths = torch.randint(1, time + 1, (batch,), generator=rng)
    label_lengths = torch.randint(0, most + 1, (batch,), generator=rng)
    lengths[0], label_lengths[0] = time, most
    labels = torch.randint(1, outputs, (batch, most), generator=rng)
    return logits, lengths, labels, label_lengths


def every_way(log_probs: Tensor, labels: list[int]) -> float:
    """−log Σ p over the ways: a blank ends each step, and labels lie anywhere among the steps."""
    time, total = len(log_probs), 0.0
    for steps in itertools.combinations_with_replacement(range(time), len(labels)):
        log_p, u = 0.0, 0
        for t in range(time):
            while u < len(labels) and steps[u] == t:
                log_p += float(log_probs[t, u, labels[u]])
                u += 1
            log_p += float(log_probs[t, u, 0])
        total += math.exp(log_p)
    return -math.log(total)


@pytest.mark.parametrize("sizes", [(1, 1, 0, 2), (4, 3, 2, 3), (5, 4, 3, 4), (3, 2, 5, 3)])
def test_the_loss_is_that_of_every_way_together(sizes: tuple[int, int, int, int]) -> None:
    logits, lengths, labels, label_lengths = example(sum(sizes), *sizes)
    nats = transducer_loss(logits, lengths, labels, label_lengths)
    for row, (time, count) in enumerate(zip(lengths, label_lengths, strict=True)):
        log_probs = logits[row, :time].log_softmax(-1)
        expected = every_way(log_probs, labels[row, :count].tolist())
        assert float(nats[row]) == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    logits, lengths, labels, label_lengths = example(0, 4, 4, 3, 4)
    weights = torch.tensor([1.0, -0.5, 2.0, 0.3], dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return (weights * transducer_loss(x, lengths, labels, label_lengths)).sum()

    assert torch.autograd.gradcheck(loss, logits.requires_grad_(), rtol=1e-6, atol=1e-8)


def test_padding_changes_nothing() -> None:
    logits, lengths, labels, label_lengths = example(1, 5, 4, 3, 4)
    wide = torch.full((5, 7, 6, 4), 9.0, dtype=torch.float64)
    wide[:, :4, :4] = logits
    filled = torch.cat([labels, torch.full((5, 2), 2)], 1)
    found = []
    for x, y in ((logits, labels), (wide, filled)):
        leaf = x.clone().requires_grad_()
        nats = transducer_loss(leaf, lengths, y, label_lengths)
        nats.sum().backward()
        found.append((nats.detach(), leaf.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1][:, :4, :4])
    assert not found[1][1][:, 4:].any()
    assert not found[1][1][:, :, 4:].any()
    for row, (time, count) in enumerate(zip(lengths, label_lengths, strict=True)):
        assert not found[0][1][row, time:].any()
        assert not found[0][1][row, :, count + 1 :].any()


def test_float32_stays_close_over_many_steps() -> None:
    logits, lengths, labels, label_lengths = example(2, 2, 300, 40, 28)
    exact = transducer_loss(logits, lengths, labels, label_lengths)
    nats = transducer_loss(logits.float(), lengths, labels, label_lengths)
    assert nats.dtype == torch.float32
    assert torch.allclose(nats.double(), exact, rtol=1e-6)


def test_sizes_that_do_not_belong_together_are_refused() -> None:
    logits, lengths, labels, label_lengths = example(3, 2, 3, 2, 3)
    with pytest.raises(ShapeError, match=r"logits \(2, 3, 3, 3\), labels \(2, 1\)"):
        transducer_loss(logits, lengths, labels[:, :1], label_lengths)
    with pytest.raises(ShapeError, match=r"lengths \[0, 3\]; expected 1 to 3"):
        transducer_loss(logits, torch.tensor([0, 3]), labels, label_lengths)
    with pytest.raises(ShapeError, match=r"label_lengths \[3, 0\]; expected 0 to 2"):
        transducer_loss(logits, lengths, labels, torch.tensor([3, 0]))
