"""Warnings: constructed networks that vanish, explode or are stuck, and healthy ones in silence."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recurra import nn
from recurra.training.flow import gradient_flow
from recurra.training.flow_values import GateFlow, GradientFlow, LayerFlow
from recurra.training.flow_warnings import flow_warnings


def last(model: torch.nn.Module, x: Tensor) -> Tensor:
    return model(x)[0][:, -1].square().mean()


def everywhere(model: torch.nn.Module, x: Tensor) -> Tensor:
    return model(x)[0].square().mean()


def layer_of(norms: list[float], **values: object) -> LayerFlow:
    plain = LayerFlow(
        "rnn",
        0,
        False,
        "Elman",
        tuple(range(len(norms))),
        {"h": tuple(norms)},
        {"h": None},
        {},
        {},
        (),
    )
    return replace(plain, **values)


def kinds(*layers: LayerFlow) -> list[str]:
    return [warning.kind for warning in flow_warnings(GradientFlow(0.0, layers))]


def test_an_elman_network_with_small_weights_vanishes() -> None:
    torch.manual_seed(0)
    rnn = nn.RNN(3, 16, batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(0.3)
    (found,) = flow_warnings(gradient_flow(rnn, torch.randn(4, 25, 3), last))
    assert (found.kind, found.layer) == ("vanishing", "RNN, layer 0")
    assert 0 < found.number < 1e-10
    assert f"from step 24 back to step 0 its norm falls to {found.number:.2g}" in found.text
    assert "halves in 1 step. Try init='orthogonal', or an LSTM or GRU" in found.text
    (found,) = flow_warnings(gradient_flow(rnn, torch.randn(4, 250, 3), last))
    assert "halves in 1 step. Try init='orthogonal'" in found.text


def test_halving_between_steps_that_were_looked_at_is_said_to_be_at_most() -> None:
    """h' = 0.95 h halves in 14 steps; 250 are looked at in pieces of 10 or 11 but for the last."""
    rnn = nn.RNN(3, 16, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(0.95 * torch.eye(16))
        rnn.weight_ih_l0.abs_()
    (found,) = flow_warnings(gradient_flow(rnn, torch.rand(4, 250, 3), last))
    assert re.search(
        r"and halves in at most (1[4-9]|2[0-4]) steps\. Try init='orthogonal'", found.text
    )


def test_an_elman_network_of_spectral_radius_2_explodes() -> None:
    rnn = nn.RNN(3, 16, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(2 * torch.eye(16))
        rnn.weight_ih_l0.abs_()
    (found,) = flow_warnings(gradient_flow(rnn, torch.rand(4, 25, 3), last))
    assert found.kind == "exploding"
    assert found.number == pytest.approx(2.0**24, rel=1e-4)
    assert "from step 24 back to step 0 its norm grows 1.7e+07 times" in found.text
    assert "spectral radius 2. Try clip_state_grad=1.0" in found.text


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_that_are_stuck_are_named(kind) -> None:
    torch.manual_seed(0)
    layer = kind(3, 16, batch_first=True)
    x = torch.randn(4, 10, 3)
    with torch.no_grad():
        layer.weight_ih_l0.mul_(300)
    found = {w.kind: w for w in flow_warnings(gradient_flow(layer, x, everywhere))}
    assert found["saturated"].number > 0.8
    assert "% open), where gates hardly learn. Try inputs scaled" in found["saturated"].text


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_healthy_network_is_silent(kind, reverse) -> None:
    torch.manual_seed(0)
    layer = kind(8, 32, batch_first=True, init="chrono", chrono_length=50, bidirectional=reverse)
    x = torch.randn(4, 50, 8)
    assert flow_warnings(gradient_flow(layer, x, last)) == []
    assert flow_warnings(gradient_flow(kind(8, 32, batch_first=True), x, everywhere)) == []


def test_an_lstm_that_forgets_is_told_to_remember() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 16, batch_first=True)
    (found,) = flow_warnings(gradient_flow(layer, torch.randn(4, 60, 3), last))
    assert found.kind == "vanishing"
    assert "Try init='chrono' with chrono_length=60, or a forget_bias" in found.text


def test_thresholds() -> None:
    assert kinds(layer_of([1.1e-4, 1.0])) == []
    assert kinds(layer_of([0.9e-4, 1.0])) == ["vanishing"]
    assert kinds(layer_of([990.0, 1.0])) == []
    assert kinds(layer_of([1010.0, 1.0])) == ["exploding"]
    long = layer_of([1010.0, 1.0], steps=(0, 2000))
    assert kinds(long) == []
    assert kinds(replace(long, norms={"h": (2010.0, 1.0)})) == ["exploding"]
    gates = {"r": GateFlow(0.5, 0.3, 0.3), "z": GateFlow(0.9, 0.0, 0.99)}
    assert kinds(layer_of([1.0, 1.0], gates=gates)) == []
    assert kinds(layer_of([1.0, 1.0], gates=gates | {"r": GateFlow(0.5, 0.3, 0.32)})) == [
        "saturated"
    ]


def test_first_and_last_follow_the_direction_and_gaps_are_left_out() -> None:
    assert kinds(layer_of([1e-9, 1.0], reverse=True)) == ["exploding"]
    assert kinds(layer_of([1.0, 1e-9], reverse=True)) == ["vanishing"]
    assert kinds(layer_of([1.0, 1.0, math.nan])) == []
    assert kinds(layer_of([1.0, 1.0, 0.0])) == []  # the loss reads an earlier step
    assert kinds(layer_of([0.0, 0.0, 1.0])) == ["vanishing"]
    assert kinds(layer_of([0.0, 0.0])) == kinds(layer_of([math.nan])) == kinds(layer_of([])) == []
    assert kinds(layer_of([math.inf, 1.0])) == ["exploding"]


def test_parts_of_a_state_are_taken_together_and_all_layers_are_seen() -> None:
    both = replace(layer_of([1e-9, 1.0]), norms={"h": (1e-9, 1.0), "c": (0.1, 0.0)})
    assert kinds(both) == []
    assert kinds(layer_of([1e-9, 1.0]), both, layer_of([1e9, 1.0])) == ["vanishing", "exploding"]


def test_a_loss_that_is_no_number_is_told() -> None:
    layer = nn.LSTM(2, 4, batch_first=True)
    x = torch.randn(2, 20, 2)
    x[0, 3, 1] = float("nan")
    flow = gradient_flow(layer, x, lambda m, x: m(x)[0][:, -1].square().mean())
    (warning,) = flow_warnings(flow)
    assert warning.kind == "exploding"
    assert "the loss is nan" in warning.text
    assert "missing values" in warning.text
