"""Recording: a call in pieces has the numbers of the plain call, and its states have gradients."""

from __future__ import annotations

import contextlib

import pytest
import torch

from recurra import nn
from recurra.kernels.recording import PIECES, active, recording

KINDS = [nn.RNN, nn.LSTM, nn.GRU]
LENGTHS = torch.tensor([100, 3, 77, 0])
OPTIONS = [
    {},
    {"zoneout": 0.2, "recurrent_dropout": 0.2, "variational_dropout": 0.1, "dropout": 0.1},
    {"learn_initial_state": True, "residual": True, "clip_state_grad": 0.01, "recompute": "gates"},
]


def _run(layer, x, reset, recorded):
    torch.manual_seed(7)
    layer.zero_grad()
    if recorded:
        with recording() as recorder:
            output, final = layer(x, lengths=LENGTHS, reset=reset)
    else:
        recorder = None
        output, final = layer(x, lengths=LENGTHS, reset=reset)
    finals = final if isinstance(final, tuple) else (final,)
    weight = torch.linspace(-1, 1, output.shape[-1], dtype=x.dtype)
    (output @ weight + sum(part.square().sum() for part in finals)).sum().backward()
    return recorder, [output, *finals, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_weight_gradients_are_those_of_the_plain_call(kind, options, backend) -> None:
    torch.manual_seed(0)
    layer = kind(
        6,
        6,
        2,
        bidirectional=True,
        batch_first=True,
        backend=backend,
        dtype=torch.float64,
        **options,
    )
    x = torch.randn(4, 100, 6, dtype=torch.float64)
    x[1, 3:] = torch.nan
    reset = torch.rand(4, 100) < 0.03
    recorder, found = _run(layer, x, reset, recorded=True)
    _, plain = _run(layer, x, reset, recorded=False)
    assert [len(call.pieces) for call in recorder.calls] == [PIECES] * 4
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_states_between_pieces_have_their_gradient(kind, backend) -> None:
    """Against autograd through a loop of calls of one step each, by hand."""
    torch.manual_seed(0)
    layer = kind(3, 5, batch_first=True, backend=backend, dtype=torch.float64)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    weight = torch.randn(7, 5, dtype=torch.float64)
    with recording() as recorder:
        output, _ = layer(x)
    pieces = recorder.calls[0].pieces
    tensors = [t for piece in pieces for t in (piece.output, *piece.final)]
    found = torch.autograd.grad(
        (output * weight).sum(), tensors, allow_unused=True, materialize_grads=True
    )

    state, states, loss = None, [], 0.0
    for t in range(7):
        _, state = layer(x[:, t : t + 1], state)
        parts = state if isinstance(state, tuple) else (state,)
        states.append(parts)
        loss = loss + (parts[0][0] * weight[t]).sum()
    flat = [part for parts in states for part in parts]
    truth = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)

    width = 1 + len(states[0])
    for t in range(7):
        d_output, d_h, *others = found[t * width : (t + 1) * width]
        d_truth = truth[t * (width - 1) : (t + 1) * (width - 1)]
        torch.testing.assert_close(d_output[:, 0] + d_h, d_truth[0][0])
        for a, b in zip(others, d_truth[1:], strict=True):
            torch.testing.assert_close(a, b[0])


def test_states_of_a_frozen_layer_have_gradients_too() -> None:
    layer = nn.GRU(3, 5).requires_grad_(False)
    with recording() as recorder:
        output, _ = layer(torch.randn(4, 2, 3))
    (d,) = torch.autograd.grad(output[-1].sum(), [recorder.calls[0].pieces[0].final[0]])
    assert d.abs().sum() > 0


def test_weights_are_left_out_of_the_graph_where_that_is_asked_for() -> None:
    layer = nn.LSTM(3, 5)
    x = torch.randn(4, 2, 3)
    found = []
    for weights in (True, False):
        with recording(weights=weights) as recorder:
            output, _ = layer(x)
        loss = output.square().sum()
        wanted = [part for piece in recorder.calls[0].pieces for part in piece.final]
        (d, *_) = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
        (d_weight,) = torch.autograd.grad(loss, [layer.weight_hh_l0], allow_unused=True)
        assert (d_weight is not None) == weights
        found.append(d)
    torch.testing.assert_close(*found)


def test_no_recorder_outside_and_none_left_after_an_error() -> None:
    layer = nn.GRU(3, 5)
    with recording() as outer:
        with contextlib.suppress(ZeroDivisionError), recording() as inner:
            assert active() is inner
            raise ZeroDivisionError
        assert active() is outer
    assert active() is None
    layer(torch.randn(4, 2, 3))
    assert outer.calls == inner.calls == []


def test_no_steps_no_pieces() -> None:
    with recording() as recorder:
        output, h_n = nn.GRU(3, 5)(torch.zeros(0, 2, 3))
    assert (output.shape, h_n.shape, recorder.calls) == ((0, 2, 5), (1, 2, 5), [])
