"""nn.Stack: layers and heads as one model, and its stream."""

from __future__ import annotations

import copy

import pytest
import torch

from recurra import nn
from recurra.errors import ArgumentError, ConfigError, ShapeError
from recurra.kernels import core

needs_core = pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")


def model(dtype: torch.dtype = torch.float32) -> nn.Stack:
    torch.manual_seed(0)
    made = nn.Stack(
        torch.nn.Linear(3, 5),
        torch.nn.GELU(),
        nn.GRU(5, 9, num_layers=2, batch_first=True, zoneout=0.1),
        torch.nn.LayerNorm(9),
        torch.nn.Dropout(0.5),
        nn.LSTM(9, 7, batch_first=True),
        nn.Linear(7, 5),
        torch.nn.Softplus(),
    )
    return made.to(dtype).eval()


@needs_core
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_a_stack_streams_the_bits_of_its_batch_in_any_rows_and_pieces(dtype) -> None:
    stack = model(dtype)
    x = torch.randn(37, 11, 3, dtype=dtype)
    whole, final = stack(x)
    stream = stack.stream(37)
    assert stream.backend == "cpu"
    pieces = [stream.push(x[:, 0])[:, None], stream.push_chunk(x[:, 1:6])]
    out = torch.empty(37, 5, dtype=dtype)
    pieces += [stream.push(x[:, 6], out=out)[:, None].clone(), stream.push_chunk(x[:, 7:])]
    assert torch.equal(torch.cat(pieces, 1), whole)
    assert torch.equal(stream.state[0], final[0])
    assert all(map(torch.equal, stream.state[1], final[1]))
    for row in (0, 17, 36):
        alone = stack.stream(1, threads=1)
        made = [alone.push(x[row : row + 1, t])[0] for t in range(11)]
        assert torch.equal(torch.stack(made), whole[row])


@torch.no_grad()
def test_state_reset_and_restore_go_through_all_layers() -> None:
    stack = model()
    x = torch.randn(2, 8, 3)
    stream = stack.stream(2)
    stream.push_chunk(x[:, :3])
    kept = stream.state
    rest = stream.push_chunk(x[:, 3:])
    torch.testing.assert_close(stack(x[:, 3:], kept)[0], rest)
    stream.restore(kept)
    assert torch.equal(stream.push_chunk(x[:, 3:]), rest)
    stream.reset([1])
    after = stream.push(x[:, 0])
    torch.testing.assert_close(after[1], stack(x)[0][1, 0])
    assert not torch.allclose(after[0], stack(x)[0][0, 0])
    stream.restore(None)
    torch.testing.assert_close(stream.push_chunk(x), stack(x)[0])


@torch.no_grad()
def test_a_state_that_does_not_fit_changes_nothing() -> None:
    stack = model()
    stream = stack.stream(2)
    stream.push(torch.randn(2, 3))
    before = stream.state
    bad = (torch.zeros(2, 2, 9), (torch.zeros(1, 2, 6), torch.zeros(1, 2, 6)))
    with pytest.raises(ShapeError, match=r"h_0 has shape \(1, 2, 6\)"):
        stream.restore(bad)
    assert torch.equal(stream.state[0], before[0])
    with pytest.raises(ShapeError, match=r"the state is a tuple of 1, but must be a tuple of 2"):
        stream.restore((torch.zeros(2, 2, 9),))
    with pytest.raises(ShapeError, match=r"the state is a Tensor, but must be a tuple of 2"):
        stack(torch.zeros(2, 1, 3), torch.zeros(2, 2, 9))


def test_a_stack_learns_through_all_layers_and_takes_lengths() -> None:
    stack = model().train()
    y, _ = stack(torch.randn(3, 6, 3), lengths=torch.tensor([6, 2, 4]))
    y.sum().backward()
    assert all(p.grad is not None for p in stack.parameters())


@torch.no_grad()
def test_streams_without_a_batch_axis_and_time_first() -> None:
    stack = nn.Stack(nn.GRU(3, 5), nn.Linear(5, 2))
    x = torch.randn(6, 3)
    alone = stack.stream(None)
    pushed = torch.stack([alone.push(x_t) for x_t in x])
    assert torch.equal(pushed, stack(x[:, None])[0][:, 0])


def test_what_cannot_stream_or_stand_in_a_stack_is_refused_with_the_reason() -> None:
    both = nn.Stack(nn.GRU(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 1))
    with pytest.raises(ConfigError, match=r"layer 0, GRU, is bidirectional and cannot stream"):
        both.stream()
    with pytest.raises(ConfigError, match=r"layer 1 is a Conv1d; expected a recurrent layer"):
        nn.Stack(nn.GRU(3, 4), torch.nn.Conv1d(4, 4, 3))
    with pytest.raises(ConfigError, match=r"layer 0 is torch\.nn's GRU"):
        nn.Stack(torch.nn.GRU(3, 4))
    with pytest.raises(ConfigError, match="it holds no recurrent layer"):
        nn.Stack(nn.Linear(3, 4))
    with pytest.raises(ConfigError, match="batch_first True and False"):
        nn.Stack(nn.GRU(3, 4), nn.GRU(4, 4, batch_first=True))
    stream = nn.Stack(nn.GRU(3, 4), nn.Linear(4, 2)).stream(2)
    with pytest.raises(ArgumentError, match=r"Stack stream: .*Make another"):
        copy.copy(stream)
    with pytest.raises(ShapeError, match=r"out has shape \(2, 3\).*must be contiguous .*\(2, 2\)"):
        stream.push(torch.zeros(2, 3), out=torch.zeros(2, 3))
