from __future__ import annotations

import pytest
import torch

from recurra.training.averaging import AveragedWeights, TriggeredAverage


def test_average_follows_its_recurrence_with_a_growing_decay():
    w = torch.tensor([0.0, 10.0], requires_grad=True)
    average = AveragedWeights({"w": w}, decay=0.5)
    expected = torch.tensor([0.0, 10.0], dtype=torch.float64)
    for step in range(20):
        with torch.no_grad():
            w += torch.tensor([1.0, -2.0])
        average.update(step)
        decay = min(0.5, (2 + step) / (11 + step))
        expected = decay * expected + (1 - decay) * w.detach().double()
    assert average.tensors["w"].tolist() == pytest.approx(expected.tolist())


def test_mean_begins_when_a_loss_is_above_the_best_of_those_long_ago():
    w = torch.tensor([0.0], requires_grad=True)
    average = TriggeredAverage({"w": w}, wait=2)

    def go(value: float, loss: float) -> float:
        with torch.no_grad():
            w.fill_(value)
        average.update(0)
        average.judge(loss)
        return average.tensors["w"].item()

    # 3.5 is above the best so far, but that was one validation ago; 3.2 is above one of three ago.
    losses = [4.0, 3.0, 3.5, 3.1, 3.2]
    assert [go(k, loss) for k, loss in enumerate(losses)] == [0, 1, 2, 3, 4]
    assert go(10, 9.0) == 10  # the first in the mean
    again = TriggeredAverage({"w": w}, wait=2)
    again.restore(average.numbers)
    again.tensors["w"].copy_(average.tensors["w"])
    average, others = again, [go(20, 1.0), go(60, 9.0)]
    assert others == pytest.approx([15, 30])


def test_weights_come_back_bit_for_bit_even_when_the_block_fails():
    w = torch.randn(50, requires_grad=True)
    average = AveragedWeights({"w": w}, decay=0.9)
    with torch.no_grad():
        w.add_(0.123)
    average.update(0)
    before = w.detach().clone()

    def fail_with_averages_in_place() -> None:
        with average.in_place():
            assert torch.equal(w, average.tensors["w"])
            assert not torch.equal(w, before)
            raise KeyError

    with pytest.raises(KeyError):
        fail_with_averages_in_place()
    assert torch.equal(w, before)
