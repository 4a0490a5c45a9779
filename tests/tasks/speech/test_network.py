"""The network: the same bits in any batch and any pieces, and no more future than it says."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from recurra.errors import ConfigError
from recurra.tasks.speech.network import LookAhead, SpeechNetwork

needs_core = pytest.mark.skipif(
    importlib.util.find_spec("recurra._core") is None, reason="bits are promised by the core only"
)


def make(look_ahead: int = 5, bidirectional: bool = False, **options: int) -> SpeechNetwork:
    torch.manual_seed(3)
    network = SpeechNetwork(
        8, 6, hidden_size=13, num_layers=2, bidirectional=bidirectional, look_ahead=look_ahead,
        **options,
    )  # fmt: skip
    for parameter in network.parameters():  # every weight counts, those of the future too
        parameter.data.normal_(0, 0.4)
    return network.eval()


@torch.no_grad()
def whole(network: SpeechNetwork, x: Tensor) -> Tensor:
    logits: Tensor = network(x[None], torch.tensor([len(x)]))[0][0]
    return logits


@needs_core
@pytest.mark.parametrize("look_ahead", [0, 1, 5])
@pytest.mark.parametrize("frames", [0, 2, 3, 4, 31, 100])
def test_pieces_give_the_bits_of_the_whole(look_ahead: int, frames: int) -> None:
    network, x = make(look_ahead), torch.randn(frames, 8)
    wanted = whole(network, x)
    for size in (1, 2, 7, 100):
        stream = network.stream()
        parts = [stream.push(x[k : k + size]) for k in range(0, frames, size)]
        assert torch.equal(torch.cat([*parts, stream.finish()]), wanted), size


@needs_core
@pytest.mark.parametrize("bidirectional", [True, False])
def test_rows_of_a_batch_are_independent_of_each_other_and_of_padding(bidirectional: bool) -> None:
    network = make(0 if bidirectional else 4, bidirectional)
    lengths = torch.tensor([50, 0, 17, 33])
    x = torch.randn(4, 50, 8)
    x[2, 17:] = torch.nan
    with torch.no_grad():
        logits, steps = network(x, lengths)
    assert steps.tolist() == [16, 0, 5, 11]
    for row, length in enumerate(lengths.tolist()):
        if length:
            assert torch.equal(logits[row, : length // 3], whole(network, x[row, :length]))


def test_a_stream_waits_for_the_future_that_it_needs_and_no_longer() -> None:
    network, x = make(look_ahead=5), torch.randn(60, 8)
    before = whole(network, x)
    for step in (0, 3, 9):
        last = 3 * (step + 5) + 2  # the last frame of the last step that is looked at
        beyond, within = x.clone(), x.clone()
        beyond[last + 1 :] += 1
        within[last] += 1
        assert torch.allclose(whole(network, beyond)[step], before[step], atol=1e-5)
        assert not torch.allclose(whole(network, within)[step], before[step], atol=1e-5)
    stream = network.stream()
    assert [len(stream.push(x[k : k + 3])) for k in range(0, 60, 3)] == [0] * 5 + [1] * 15
    assert len(stream.finish()) == 5


def test_look_ahead_is_a_sum_over_the_next_steps() -> None:
    ahead, x = LookAhead(2, 2), torch.arange(12.0).view(1, 6, 2)
    assert torch.equal(ahead(x), x[:, :4])  # before training it looks at nothing
    ahead.weight.data[:] = torch.tensor([[1.0, 0], [0, 10], [100, 0]])
    wanted = torch.stack([x[0, :4, 0] + 100 * x[0, 2:, 0], 10 * x[0, 1:5, 1]], -1)
    assert torch.equal(ahead(x)[0], wanted)


def test_gradients_reach_every_parameter() -> None:
    network = make().double().train()
    logits, _ = network(torch.randn(2, 30, 8, dtype=torch.float64), torch.tensor([30, 12]))
    logits.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0, name


def test_two_streams_never_touch() -> None:
    network, x = make(), torch.randn(30, 8)
    alone = network.stream().push(x)
    first, second = network.stream(), network.stream()
    second.push(torch.randn(11, 8))
    assert torch.equal(first.push(x), alone)


def test_a_bidirectional_network_cannot_stream() -> None:
    with pytest.raises(ConfigError, match="bidirectional"):
        make(0, bidirectional=True).stream()
