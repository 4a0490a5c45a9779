"""Initialisation: distributions, forget gates, and settings that contradict each other."""

from __future__ import annotations

import math

import pytest
import torch

from recurra import nn
from recurra.errors import ConfigError

H = 64
FORGET = {"LSTM": 1, "GRU": 1}  # i f g o; r z n


def _make(kind: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(nn, kind)(32, H, num_layers=2, bidirectional=True, **options)


def _bias(layer: torch.nn.Module, gate: int, suffix: str = "_l0") -> torch.Tensor:
    total = getattr(layer, "bias_ih" + suffix) + getattr(layer, "bias_hh" + suffix)
    return total[gate * H : (gate + 1) * H].detach()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_orthogonal_recurrent_blocks(kind) -> None:
    layer = _make(kind, init="orthogonal")
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        for block in getattr(layer, "weight_hh" + suffix).detach().split(H):
            torch.testing.assert_close(block @ block.T, torch.eye(H), rtol=0, atol=1e-5)
        for block in getattr(layer, "weight_ih" + suffix).detach().split(H):
            bound = math.sqrt(6 / sum(block.shape))
            assert 0.9 * bound < block.abs().max() <= bound
        blocks = (getattr(layer, "bias_ih" + suffix) + getattr(layer, "bias_hh" + suffix)).split(H)
        means = [block.unique().tolist() for block in blocks]
        assert means == [[1.0 if kind == "LSTM" and k == 1 else 0.0] for k in range(len(blocks))]


def test_orthogonal_with_projection_has_orthonormal_columns() -> None:
    layer = nn.LSTM(3, 16, proj_size=4, init="orthogonal")
    for block in layer.weight_hh_l0.detach().split(16):
        torch.testing.assert_close(block.T @ block, torch.eye(4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("init", ["torch", "orthogonal"])
def test_forget_bias_sets_the_sum_of_both_biases_of_that_gate_alone(kind, init) -> None:
    plain, layer = _make(kind, init=init), _make(kind, init=init, forget_bias=2.5)
    gates = layer.bias_ih_l0.numel() // H
    for suffix in ("_l0", "_l1_reverse"):
        for gate in range(gates):
            if gate == FORGET[kind]:
                assert (_bias(layer, gate, suffix) == 2.5).all()
            else:
                assert torch.equal(_bias(layer, gate, suffix), _bias(plain, gate, suffix))
    assert torch.equal(layer.weight_hh_l1, plain.weight_hh_l1)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_chrono_biases_span_the_memory_asked_for(kind) -> None:
    layer = _make(kind, init="chrono", chrono_length=1001)
    forget = _bias(layer, FORGET[kind])
    # exp(bias) is uniform on 1..1000: memories of all lengths up to the longest.
    memories = forget.exp()
    assert 1 <= memories.min() < 100
    assert 900 < memories.max() <= 1000
    assert 400 < memories.mean() < 600
    others = {0, 1, 2, 3} if kind == "LSTM" else {0, 1, 2}
    for gate in others - {FORGET[kind]}:
        expected = -forget if (kind, gate) == ("LSTM", 0) else torch.zeros(H)
        assert torch.equal(_bias(layer, gate), expected)
    assert torch.equal(layer.weight_ih_l0, _make(kind).weight_ih_l0)
    assert not torch.equal(forget, _bias(layer, FORGET[kind], "_l1"))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_long_chrono_memory_keeps_a_state(kind) -> None:
    x = torch.randn(50, 1, 32, generator=torch.Generator().manual_seed(1))
    kept = {}
    for name, options in {"short": {}, "long": {"init": "chrono", "chrono_length": 2000}}.items():
        torch.manual_seed(0)
        layer = getattr(nn, kind)(32, H, **options)
        start = torch.ones(1, 1, H)
        hx = [(start * v, start * v) if kind == "LSTM" else start * v for v in (0.9, -0.9)]
        with torch.no_grad():
            ends = [torch.cat([*layer(x, state)[1]]) for state in hx]
        kept[name] = float((ends[0] - ends[1]).abs().mean())
    assert kept["long"] > 10 * kept["short"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("RNN", {"forget_bias": 1.0}, r"RNN: forget_bias=1\.0 sets .* not defined for Elman"),
        (
            "RNN",
            {"init": "chrono", "chrono_length": 9},
            r"init='chrono' sets .* not defined for Elman",
        ),
        ("GRU", {"init": "chrono"}, r"init='chrono' with chrono_length=None"),
        ("GRU", {"chrono_length": 9}, r"init='torch' with chrono_length=9"),
        ("GRU", {"init": "chrono", "chrono_length": 1}, r"chrono_length is 1, but .* at least 2"),
        ("GRU", {"init": "chrono", "chrono_length": 9, "forget_bias": 1.0}, r"Choose one"),
        ("GRU", {"bias": False, "forget_bias": 1.0}, r"needs biases, and bias=False"),
    ],
)
def test_settings_that_contradict_each_other(kind, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        getattr(nn, kind)(3, 4, **options)


@pytest.mark.parametrize("init", ["torch", "orthogonal"])
def test_reset_parameters_draws_afresh_and_follows_the_seed(init) -> None:
    layer = _make("GRU", init=init)
    first = layer.weight_hh_l0.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight_hh_l0, first)
    torch.manual_seed(0)
    layer.reset_parameters()
    assert torch.equal(layer.weight_hh_l0, first)


@pytest.mark.parametrize("kind", ["LEM", "IndRNN", "SLSTM", "MLSTM", "MinGRU", "LRU"])
def test_orthogonal_is_refused_where_it_is_not_defined(kind) -> None:
    with pytest.raises(ConfigError, match=r"init='orthogonal' is not defined for"):
        getattr(nn, kind)(4, 4, init="orthogonal")
    with pytest.raises(ConfigError, match=r"forget_bias=1.0 .* is not defined for"):
        getattr(nn, kind)(4, 4, forget_bias=1.0)
