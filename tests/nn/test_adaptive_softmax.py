from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recurra.errors import ConfigError, ShapeError
from recurra.nn.adaptive_softmax import AdaptiveSoftmax


def make(cutoffs: tuple[int, ...]) -> tuple[AdaptiveSoftmax, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = AdaptiveSoftmax(6, 20, cutoffs).double()
    torch.nn.init.normal_(head.bias)
    return head, torch.randn(20, 6, dtype=torch.float64), torch.randn(40, 6, dtype=torch.float64)


@pytest.mark.parametrize("cutoffs", [(), (5,), (1,), (19,), (4, 5, 12)])
def test_the_loss_is_that_of_the_whole_distribution(cutoffs: tuple[int, ...]) -> None:
    head, weight, x = make(cutoffs)
    targets = torch.arange(40) % 20
    log_probs = head.log_probs(x, weight)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(40, dtype=torch.float64))
    expected = -log_probs.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(head.nll(x, targets, weight), expected)


def test_without_cut_offs_it_is_the_plain_soft_max() -> None:
    head, weight, x = make(())
    expected = F.log_softmax(x @ weight.T + head.bias, 1)
    torch.testing.assert_close(head.log_probs(x, weight), expected)


@pytest.mark.parametrize("cutoffs", [(), (4, 12)])
def test_gradients_are_those_of_finite_differences(cutoffs: tuple[int, ...]) -> None:
    head, weight, x = make(cutoffs)
    x, weight = x[:7].requires_grad_(), weight.requires_grad_()
    targets = torch.tensor([0, 3, 4, 5, 13, 19, 11])
    assert torch.autograd.gradcheck(lambda a, b: head.nll(a, targets, b), (x, weight))


@pytest.mark.parametrize("cutoffs", [(), (4, 12)])
def test_a_row_has_the_same_bits_in_any_batch(cutoffs: tuple[int, ...]) -> None:
    head, weight, x = make(cutoffs)
    head, weight, x = head.float(), weight.float(), x.float()
    targets = torch.arange(40) % 20
    with torch.no_grad():
        whole = head.nll(x, targets, weight)
        rows = [head.nll(x[k : k + 1], targets[k : k + 1], weight) for k in range(40)]
    assert torch.equal(whole, torch.cat(rows))


@pytest.mark.parametrize("cutoffs", [(), (5,), (1,), (4, 5, 12)])
def test_weights_packed_once_give_the_same_bits(cutoffs: tuple[int, ...]) -> None:
    head, weight, x = make(cutoffs)
    with torch.no_grad():
        if cutoffs:
            torch.nn.init.normal_(head.band_bias)
        expected = head.log_probs(x, weight)
    fixed = head.fixed(weight)
    weight.fill_(0)  # a copy is kept
    assert torch.equal(fixed.log_probs(x), expected)
    assert torch.equal(fixed.log_probs(x[3:4]), expected[3:4])
    with pytest.raises(ShapeError, match=r"weight \(19, 6\); expected \(N, size\) and \(20, size"):
        head.fixed(torch.zeros(19, 6))


def test_cut_offs_must_rise_within_the_vocabulary() -> None:
    for cutoffs in ((0,), (20,), (5, 5), (7, 3)):
        with pytest.raises(ConfigError, match="vocabulary of 20; expected rising numbers"):
            AdaptiveSoftmax(6, 20, cutoffs)


def test_a_weight_of_another_size_is_refused() -> None:
    head, weight, x = make(())
    with pytest.raises(ShapeError, match=r"weight \(19, 6\); expected .* \(20, size\)"):
        head.nll(x, torch.zeros(40), weight[:19])
