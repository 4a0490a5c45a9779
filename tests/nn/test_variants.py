"""Peepholes, coupled gates, layer normalisation: each layer against its formula in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import recurra
from recurra import nn
from recurra.errors import BackendError, ConfigError

SIZE = 5


def norm(a: Tensor) -> Tensor:
    centred = a - a.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def lstm(layer: nn.LSTM, x: Tensor) -> Tensor:
    """Every variant, gate by gate; x (T, I) to (T, H)."""
    p = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    names = ["f", "g", "o"] if layer.coupled else ["i", "f", "g", "o"]
    seen = (
        dict(zip(names[:-2] + names[-1:], p["weight_peephole"].split(SIZE), strict=True))
        if (layer.peephole)
        else {}
    )
    h = c = torch.zeros(SIZE, dtype=x.dtype)
    outputs = []
    for x_t in x:
        from_x, from_h = p["weight_ih"] @ x_t, p["weight_hh"] @ h
        if layer.layer_norm:
            from_x, from_h = p["norm_ih"] * norm(from_x), p["norm_hh"] * norm(from_h)
        sums = dict(
            zip(names, (from_x + from_h + p["bias_ih"] + p["bias_hh"]).split(SIZE), strict=True)
        )
        f = torch.sigmoid(sums["f"] + seen.get("f", 0) * c)
        i = 1 - f if layer.coupled else torch.sigmoid(sums["i"] + seen.get("i", 0) * c)
        c = f * c + i * torch.tanh(sums["g"])
        o = torch.sigmoid(sums["o"] + seen.get("o", 0) * c)
        shown = p["norm_c"] * norm(c) + p["norm_c_bias"] if layer.layer_norm else c
        h = o * torch.tanh(shown)
        outputs.append(h)
    return torch.stack(outputs)


def gru(layer: nn.GRU, x: Tensor) -> Tensor:
    p = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    h, outputs = torch.zeros(SIZE, dtype=x.dtype), []

    def normalised(a: Tensor, gain: Tensor, bias: Tensor) -> list[Tensor]:
        parts = torch.cat((norm(a[: 2 * SIZE]), norm(a[2 * SIZE :])))
        return list((gain * parts + bias).split(SIZE))

    for x_t in x:
        x_r, x_z, x_n = normalised(p["weight_ih"] @ x_t, p["norm_ih"], p["bias_ih"])
        h_r, h_z, h_n = normalised(p["weight_hh"] @ h, p["norm_hh"], p["bias_hh"])
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        h = (1 - z) * torch.tanh(x_n + r * h_n) + z * h
        outputs.append(h)
    return torch.stack(outputs)


def rnn(layer: nn.RNN, x: Tensor) -> Tensor:
    p = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    h, outputs = torch.zeros(SIZE, dtype=x.dtype), []
    for x_t in x:
        summed = p["norm_h"] * norm(p["weight_ih"] @ x_t + p["weight_hh"] @ h)
        h = torch.tanh(summed + p["bias_ih"] + p["bias_hh"])
        outputs.append(h)
    return torch.stack(outputs)


VARIANTS: list[tuple[type, dict[str, bool], Callable[..., Tensor]]] = [
    (nn.LSTM, {"peephole": True}, lstm),
    (nn.LSTM, {"coupled": True}, lstm),
    (nn.LSTM, {"peephole": True, "coupled": True}, lstm),
    (nn.LSTM, {"layer_norm": True}, lstm),
    (nn.LSTM, {"layer_norm": True, "peephole": True}, lstm),
    (nn.GRU, {"layer_norm": True}, gru),
    (nn.RNN, {"layer_norm": True}, rnn),
]
IDS = ["-".join([kind.__name__, *options]) for kind, options, _ in VARIANTS]


def made(kind: type, options: dict[str, bool], dtype: torch.dtype) -> torch.nn.Module:
    """With every parameter drawn: gains of 1 and peepholes of 0 would hide mistakes."""
    torch.manual_seed(1)
    layer = kind(3, SIZE, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.3, 0.7)
    return layer


@pytest.mark.parametrize(("kind", "options", "formula"), VARIANTS, ids=IDS)
def test_a_variant_is_its_formula(kind, options, formula) -> None:
    layer = made(kind, options, torch.float64)
    x = torch.randn(9, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], formula(layer, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "options", "formula"), VARIANTS, ids=IDS)
def test_a_variant_streams(kind, options, formula) -> None:
    layer = made(kind, options, torch.float32)
    x = torch.randn(9, 2, 3)
    stream = layer.stream(2)
    whole = layer(x)[0].detach()
    assert stream.backend == ("reference" if "layer_norm" in options else "cpu")
    found = torch.stack([stream.push(x_t) for x_t in x])
    if stream.backend == "cpu":
        assert torch.equal(found, whole)
        small = layer.stream(2, weights="int8")
        assert float((small.push_chunk(x) - whole).abs().max()) < 0.05
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"peephole": True}, {"coupled": True, "peephole": True}])
def test_a_variant_of_the_core_compiles(options) -> None:
    layer = made(nn.LSTM, options, torch.float32)
    x = torch.randn(9, 2, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (layer, compiled):
        layer.zero_grad()
        run(x)[0].square().sum().backward()
        gradients.append({name: p.grad for name, p in layer.named_parameters()})
    for name, truth in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], truth, rtol=1e-4, atol=1e-5)


def test_gains_begin_at_one_and_offsets_at_zero() -> None:
    for init in ("torch", "orthogonal"):
        layer = nn.LSTM(3, SIZE, layer_norm=True, init=init)
        for name in ("norm_ih_l0", "norm_hh_l0", "norm_c_l0"):
            assert bool((layer.get_parameter(name) == 1).all())
        assert bool((layer.norm_c_bias_l0 == 0).all())


def test_chrono_sets_the_forget_gate_of_a_coupled_lstm() -> None:
    layer = nn.LSTM(3, 200, coupled=True, init="chrono", chrono_length=100)
    forget = (layer.bias_ih_l0 + layer.bias_hh_l0)[:200].detach()
    assert float(forget.min()) >= 0
    assert 4 < float(forget.max()) < 4.6
    assert bool((layer.bias_ih_l0[200:] == 0).all())


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match=r"coupled and layer_norm are not defined together"):
        nn.LSTM(3, 4, coupled=True, layer_norm=True)
    with pytest.raises(ConfigError, match=r"layer_norm=True needs reset_after=True"):
        nn.GRU(3, 4, reset_after=False, layer_norm=True)
    with pytest.raises(ConfigError, match=r"peephole is 1, but must be True or False"):
        nn.LSTM(3, 4, peephole=1)
    layer, x = nn.LSTM(3, 4, layer_norm=True), torch.zeros(2, 1, 3)
    assert "not cpu: it has no layer normalisation inside a cell" in recurra.explain(layer, x)
    layer.backend = "cpu"
    with pytest.raises(BackendError, match=r"it has no layer normalisation"):
        layer(x)
    assert repr(nn.LSTM(3, 4, coupled=True)) == "LSTM(3, 4, coupled=True)"
