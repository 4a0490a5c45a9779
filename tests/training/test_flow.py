"""Gradient flow: norms against a loop of single steps, numbers known by hand, nothing changed."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from recurra import nn
from recurra.errors import ArgumentError, ConfigError, ShapeError
from recurra.training.flow import gradient_flow
from recurra.training.flow_values import GradientFlow
from recurra.training.flow_warnings import flow_warnings

KINDS = [nn.RNN, nn.LSTM, nn.GRU]


def last(model: torch.nn.Module, x: Tensor) -> Tensor:
    return model(x)[0][:, -1].sum()


def first(model: torch.nn.Module, x: Tensor) -> Tensor:
    return model(x)[0][:, 0].sum()


def everywhere(model: torch.nn.Module, x: Tensor) -> Tensor:
    return model(x)[0].square().sum()


def by_single_steps(layer, x: Tensor, reverse: bool = False) -> dict[str, list[float]]:
    """‖dLoss/dState‖ of `everywhere` after each step, by a loop over time, mean over rows."""
    states, state, loss = [], None, torch.zeros(())
    for t in range(x.shape[1])[:: -1 if reverse else 1]:
        _, state = layer(x[:, t : t + 1], state)
        parts = state if isinstance(state, tuple) else (state,)
        states.append(parts)
        loss = loss + parts[0].square().sum()
    flat = [part for parts in states[:: -1 if reverse else 1] for part in parts]
    found = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
    width = len(states[0])
    names = ("h", "c")[:width]
    return {
        name: [float(d[0].norm(dim=-1).mean()) for d in found[n::width]]
        for n, name in enumerate(names)
    }


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_those_of_a_loop_over_single_steps(kind, backend) -> None:
    torch.manual_seed(0)
    layer = kind(3, 5, batch_first=True, backend=backend, dtype=torch.float64)
    x = torch.randn(4, 11, 3, dtype=torch.float64)
    flow = gradient_flow(layer, x, everywhere)
    (found,) = flow.layers
    assert found.steps == tuple(range(11))
    truth = by_single_steps(layer, x)
    assert list(found.norms) == list(truth)
    for part, norms in truth.items():
        assert found.norms[part] == pytest.approx(norms, rel=1e-9)
    assert flow.loss == pytest.approx(float(everywhere(layer, x).detach()))


def test_the_reverse_direction_is_a_forward_one_of_reversed_time() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 5, bidirectional=True, batch_first=True, dtype=torch.float64)
    alone = nn.LSTM(3, 5, batch_first=True, dtype=torch.float64)
    for (_, own), other in zip(alone.named_parameters(), list(layer.parameters())[4:], strict=True):
        own.data.copy_(other.data)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    forward, backward = gradient_flow(layer, x, everywhere).layers
    assert (forward.title, backward.title) == ("LSTM, layer 0", "LSTM, layer 0, reverse")
    truth = by_single_steps(alone, x, reverse=True)
    for part in "hc":
        assert backward.norms[part] == pytest.approx(truth[part], rel=1e-9)
    flipped = gradient_flow(alone, x.flip(1), everywhere).layers[0]
    assert backward.lyapunov == pytest.approx(flipped.lyapunov)
    assert backward.memory_length == flipped.memory_length
    assert backward.gates["f"].openness == pytest.approx(flipped.gates["f"].openness)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_rows_past_their_length_are_left_out(bidirectional) -> None:
    torch.manual_seed(0)
    layer = nn.GRU(3, 5, batch_first=True, bidirectional=bidirectional, dtype=torch.float64)
    x, lengths = torch.randn(3, 9, 3, dtype=torch.float64), torch.tensor([6, 2, 0])
    x[1, 2:] = torch.nan

    def loss(model, x):
        return model(x, lengths=lengths)[0].square().sum()

    ragged = gradient_flow(layer, x, loss).layers
    rows = [gradient_flow(layer, x[b : b + 1, :n], everywhere).layers for b, n in ((0, 6), (1, 2))]
    for direction, found in enumerate(ragged):
        first, second = (row[direction].norms["h"] for row in rows)
        wanted = [(first[t] + second[t]) / 2 for t in range(2)] + list(first[2:])
        assert found.norms["h"][:6] == pytest.approx(wanted, rel=1e-9)
        assert all(math.isnan(norm) for norm in found.norms["h"][6:])
        assert math.isfinite(found.gates["r"].openness)
        assert found.lyapunov == pytest.approx(rows[0][direction].lyapunov)


def test_layouts_give_the_same_numbers() -> None:
    options = {
        "recurrent_dropout": 0.2,
        "bidirectional": True,
        "dtype": torch.float64,
    }
    first, second = nn.LSTM(3, 5, batch_first=True, **options), nn.LSTM(3, 5, **options)
    second.load_state_dict(first.state_dict())
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    lengths, reset = torch.tensor([9, 5, 7, 1]), torch.rand(4, 9) < 0.2

    def loss(model, x):
        torch.manual_seed(3)
        return model(x, lengths=lengths, reset=reset)[0].square().sum()

    flows = [
        gradient_flow(layer, x, loss) for layer, x in ((first, x), (second, x.transpose(0, 1)))
    ]
    for ours, theirs in zip(*(flow.layers for flow in flows), strict=True):
        for part in "hc":
            assert ours.norms[part] == pytest.approx(theirs.norms[part], nan_ok=True)
        assert ours.gates.keys() == theirs.gates.keys()
        for gate, values in ours.gates.items():
            assert values.openness == pytest.approx(theirs.gates[gate].openness)
        assert ours.lyapunov == pytest.approx(theirs.lyapunov)


def test_more_steps_than_pieces_are_seen_at_their_ends_and_at_the_first() -> None:
    torch.manual_seed(0)
    layer = nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 130, 3, dtype=torch.float64)
    found = gradient_flow(layer, x, everywhere).layers[0]
    assert (len(found.steps), found.steps[:3], found.steps[-1]) == (64, (0, 2, 4), 129)
    truth = by_single_steps(layer, x)["h"]
    assert found.norms["h"] == pytest.approx([truth[t] for t in found.steps], rel=1e-9)


def test_fewer_steps_are_looked_at_where_they_are_asked_for() -> None:
    torch.manual_seed(0)
    layer = nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 130, 3, dtype=torch.float64)
    found = gradient_flow(layer, x, everywhere, steps=32).layers[0]
    assert (len(found.steps), found.steps[:2], found.steps[-8:]) == (
        32,
        (0, 5),
        (*range(122, 130),),
    )
    truth = by_single_steps(layer, x)["h"]
    assert found.norms["h"] == pytest.approx([truth[t] for t in found.steps], rel=1e-9)


@pytest.mark.parametrize("steps", [15, 20.0, True])
def test_too_few_steps_are_refused(steps) -> None:
    layer = nn.GRU(3, 4, batch_first=True)
    with pytest.raises(ConfigError, match=rf"steps is {steps!r}; expected a whole number of 16 or"):
        gradient_flow(layer, torch.randn(2, 9, 3), last, steps=steps)


@pytest.mark.parametrize("time", [64, 65, 66, 200])
def test_a_loss_of_the_first_step_that_is_read_is_seen_there(time) -> None:
    """The reverse direction reads the last step first, and nothing before it."""
    torch.manual_seed(0)
    layer = nn.GRU(3, 4, batch_first=True, bidirectional=True, dtype=torch.float64)
    x = torch.randn(2, time, 3, dtype=torch.float64)
    for loss, direction, at in ((last, 1, time - 1), (first, 0, 0)):
        found = gradient_flow(layer, x, loss).layers[direction]
        norms = dict(zip(found.steps, found.norms["h"], strict=True))
        assert len(norms) == 64
        assert norms.pop(at) == pytest.approx(2.0)  # a sum over 4 units has a gradient of ones
        assert set(norms.values()) == {0.0}
        assert found.memory("h") == "no way back"
        assert flow_warnings(GradientFlow(0.0, (found,))) == []


def test_memory_length_spectral_radius_and_exponents_of_a_linear_network() -> None:
    """h' = 0.9 h: the gradient halves in 7 steps, as 0.9^6 > 1/2 > 0.9^7."""
    layer = nn.RNN(1, 2, bias=False, nonlinearity="relu", batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(0.9 * torch.eye(2))
        layer.weight_ih_l0.fill_(1.0)
    x = torch.ones(3, 30, 1, dtype=torch.float64)
    found = gradient_flow(layer, x, last).layers[0]
    assert found.norms["h"] == pytest.approx([2**0.5 * 0.9 ** (29 - t) for t in range(30)])
    assert found.memory_length == {"h": 7}
    assert found.spectral_radius == pytest.approx({"h": 0.9})
    assert found.lyapunov == pytest.approx([math.log(0.9)] * 2)
    assert found.gates == {}
    assert found.memory("h") == "7"
    growing = gradient_flow(layer, x, everywhere).layers[0]
    assert (growing.memory_length, growing.memory("h")) == ({"h": None}, "over 29")


@pytest.mark.parametrize("reverse", [False, True])
def test_a_memory_between_two_steps_that_are_looked_at_is_at_most_that(reverse) -> None:
    """h' = 0.95 h halves in 14 steps, of 330: every fourteenth or so is looked at."""
    layer = nn.RNN(
        1, 2, 1, "relu", bias=False, batch_first=True, bidirectional=reverse, dtype=torch.float64
    )
    with torch.no_grad():
        for name, value in layer.named_parameters():
            value.copy_(0.95 * torch.eye(2) if "hh" in name else torch.ones(2, 1))
    x = torch.ones(3, 330, 1, dtype=torch.float64)
    found = gradient_flow(layer, x, first if reverse else last).layers[int(reverse)]
    end = found.steps[0] if reverse else found.steps[-1]
    way = sorted(abs(end - t) for t in found.steps)
    assert end == (0 if reverse else 329)
    assert found.memory_length["h"] == next(back for back in way if back >= 14)
    assert found.memory("h") == f"at most {found.memory_length['h']}"


def test_a_state_that_no_loss_reaches_has_no_memory() -> None:
    layer = nn.LSTM(3, 4, batch_first=True)
    (found,) = gradient_flow(layer, torch.randn(2, 9, 3), first).layers
    assert (found.memory("h"), found.memory("c")) == ("no way back", "no gradient")
    other = nn.RNN(3, 4, batch_first=True)
    both = torch.nn.ModuleList([layer, other])

    def of_the_first_alone(model, x):
        model[1](x)
        return last(model[0], x)

    unused, used = gradient_flow(both, torch.randn(2, 9, 3), of_the_first_alone).layers
    assert (unused.cell, unused.memory("h"), used.cell) == ("Elman", "no gradient", "LSTM")


@pytest.mark.parametrize(("kind", "order"), [(nn.LSTM, "ifgo"), (nn.GRU, "rzn")])
def test_gates_are_named_after_their_block(kind, order) -> None:
    layer = kind(2, 4, batch_first=True)
    bias = {"i": -9.0, "f": 9.0, "g": 0.0, "o": 0.0, "r": -9.0, "z": 9.0, "n": 0.0}
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for n, gate in enumerate(order):
            layer.bias_ih_l0[4 * n : 4 * n + 4] = bias[gate]
            layer.weight_hh_l0[4 * n : 4 * n + 4] = (n + 1) * torch.eye(4)
    found = gradient_flow(layer, torch.zeros(3, 5, 2), last).layers[0]
    assert found.spectral_radius == pytest.approx({g: n + 1 for n, g in enumerate(order)})
    shut, wide = found.gates[order[0]], found.gates[order[1]]
    assert (shut.closed, shut.open, wide.closed, wide.open) == (1, 0, 0, 1)
    assert (shut.openness, wide.openness) == pytest.approx((0, 1), abs=1e-3)
    if kind is nn.LSTM:
        half = found.gates["o"]
        assert (half.openness, half.saturation) == (0.5, 0)


def test_gates_are_those_after_a_reset() -> None:
    """With a forget gate that follows h alone, a reset at every step leaves it at its bias."""
    layer = nn.LSTM(2, 3, batch_first=True)
    with torch.no_grad():
        layer.weight_ih_l0[3:6] = 0
        layer.weight_hh_l0[3:6] = 5.0
        layer.bias_ih_l0[3:6] = layer.bias_hh_l0[3:6] = 0
    x = 3 * torch.randn(4, 20, 2)

    def loss(model, reset):
        return model(x, reset=reset)[0].sum()

    always = gradient_flow(layer, torch.ones(4, 20, dtype=torch.bool), loss).layers[0]
    never = gradient_flow(layer, torch.zeros(4, 20, dtype=torch.bool), loss).layers[0]
    assert always.gates["f"].openness == 0.5 != never.gates["f"].openness


def test_projection_counts_in_the_spectral_radius() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 5, proj_size=2, batch_first=True, dtype=torch.float64)
    found = gradient_flow(layer, torch.randn(2, 4, 3, dtype=torch.float64), last).layers[0]
    whole = layer.weight_hh_l0[5:10] @ layer.weight_hr_l0
    truth = torch.linalg.eigvals(whole.detach()).abs().max()
    assert found.spectral_radius["f"] == pytest.approx(float(truth))


def test_calls_of_one_layer_follow_each_other() -> None:
    torch.manual_seed(0)
    layer = nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 8, 3, dtype=torch.float64)

    def in_windows(model, x):
        first, state = model(x[:, :3])
        second, _ = model(x[:, 3:], state)
        return first.square().sum() + second.square().sum()

    cut = gradient_flow(layer, x, in_windows).layers
    whole = gradient_flow(layer, x, everywhere).layers
    assert len(cut) == 1
    assert cut[0].steps == whole[0].steps
    assert cut[0].norms["h"] == pytest.approx(whole[0].norms["h"])


class Net(torch.nn.Module):
    """Two recurrent modules, a buffer that every call changes, dropout that draws."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(3, 4, 2, batch_first=True)
        self.norm = torch.nn.BatchNorm1d(4)
        self.drop = torch.nn.Dropout(0.5)
        self.decoder = nn.LSTM(4, 3, batch_first=True)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        y = self.norm(self.encoder(x)[0].transpose(1, 2)).transpose(1, 2)
        return self.decoder(self.drop(y))[0]


def test_nothing_of_the_model_changes() -> None:
    torch.manual_seed(0)
    net, x = Net(), torch.randn(2, 6, 3)
    net(x).sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    grads = [p.grad.clone() for p in net.parameters()]
    random = torch.get_rng_state()
    flow = gradient_flow(net, x, lambda model, batch: model(batch).square().mean())
    assert [layer.title for layer in flow.layers] == [
        "encoder, layer 0",
        "encoder, layer 1",
        "decoder, layer 0",
    ]
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    for parameter, grad in zip(net.parameters(), grads, strict=True):
        assert torch.equal(parameter.grad, grad)
    with torch.no_grad():  # works there as well
        assert gradient_flow(net.eval(), x, lambda m, b: m(b).sum()).layers[0].norms["h"][0] > 0


def test_scale_keeps_the_norms() -> None:
    layer, x = nn.GRU(3, 4, batch_first=True), torch.randn(2, 6, 3)
    plain, scaled = (gradient_flow(layer, x, last, scale=s).layers[0] for s in (1.0, 2.0**12))
    assert scaled.norms["h"] == pytest.approx(plain.norms["h"], rel=1e-6)


def test_gradients_that_all_but_vanish_are_not_zero() -> None:
    layer = nn.RNN(1, 2, bias=False, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(0.1 * torch.eye(2))
        layer.weight_ih_l0.fill_(1.0)
    found = gradient_flow(layer, torch.ones(1, 31, 1), last).layers[0]
    assert found.norms["h"][0] == pytest.approx(2**0.5 * 1e-30, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_autocast_and_narrow_weights(dtype) -> None:
    x = torch.randn(2, 6, 3)

    def under_autocast(model, x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)[0].float().sum()

    layer = nn.LSTM(3, 4, batch_first=True)
    found = gradient_flow(layer, x, under_autocast).layers[0]
    plain = gradient_flow(layer, x, lambda m, b: m(b)[0].sum()).layers[0]
    assert found.norms["h"] == pytest.approx(plain.norms["h"], rel=0.03)
    narrow = gradient_flow(layer.to(dtype), x.to(dtype), lambda m, b: m(b)[0].sum()).layers[0]
    assert narrow.norms["h"] == pytest.approx(plain.norms["h"], rel=0.03)
    assert narrow.lyapunov == pytest.approx(plain.lyapunov, abs=0.05)


def test_it_comes_back_from_json() -> None:
    flow = gradient_flow(Net().eval(), torch.randn(2, 6, 3), lambda m, b: m(b).sum())
    text = json.dumps(flow.to_json(), allow_nan=False)
    assert GradientFlow.from_json(json.loads(text)) == flow


def test_weights_that_are_not_finite_are_reported_as_such() -> None:
    layer = nn.GRU(3, 4, batch_first=True)
    with torch.no_grad():
        layer.weight_hh_l0[0, 0] = torch.nan
    flow = gradient_flow(layer, torch.randn(2, 6, 3), last)
    assert math.isnan(flow.layers[0].spectral_radius["r"])
    json.dumps(flow.to_json(), allow_nan=False)


def test_what_cannot_be_measured_is_refused() -> None:
    x = torch.randn(2, 6, 3)
    with pytest.raises(ConfigError, match=r"no layer of recurra.nn ran.*accelerate"):
        gradient_flow(torch.nn.GRU(3, 4), x, last)
    layer = nn.GRU(3, 4, batch_first=True)
    with pytest.raises(ShapeError, match=r"shape \(2, 6, 4\); expected a scalar"):
        gradient_flow(layer, x, lambda m, b: m(b)[0])
    with pytest.raises(ConfigError, match="does not depend on any recurrent layer"):
        gradient_flow(layer, x, lambda m, b: m(b)[0].detach().sum())
    with pytest.raises(ArgumentError, match=r"returned None; expected a scalar tensor. Return the"):
        gradient_flow(layer, x, lambda m, b: m(b)[0].sum().backward())
    with pytest.raises(ArgumentError, match=r"returned 2\.5; .* without item\(\) or float"):
        gradient_flow(layer, x, lambda m, b: 2.5)
    with pytest.raises(ArgumentError, match=r"returned a tuple; expected a scalar tensor"):
        gradient_flow(layer, x, lambda m, b: m(b))
    with pytest.raises(ArgumentError, match=r"loss is a Tensor; expected a function"):
        gradient_flow(layer, x, last(layer, x))
    with pytest.raises(ArgumentError, match=r"model is a Tensor; expected a torch\.nn\.Module"):
        gradient_flow(x, layer, last)
    for scale in (0, -1.0, math.inf, "2", None):
        with pytest.raises(ConfigError, match=f"scale is {scale!r}; expected a positive, finite"):
            gradient_flow(layer, x, last, scale=scale)


@pytest.mark.parametrize(("at", "whole"), [(10, slice(0, 10)), (4, slice(4, 14))])
def test_exponents_stay_between_resets(at, whole) -> None:
    torch.manual_seed(0)
    layer = nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    x, reset = torch.randn(1, 14, 3, dtype=torch.float64), torch.zeros(1, 14, dtype=torch.bool)
    reset[0, at] = True
    found = gradient_flow(layer, x, lambda m, b: m(b, reset=reset)[0].sum()).layers[0]
    alone = gradient_flow(layer, x[:, whole], lambda m, b: m(b)[0].sum()).layers[0]
    assert found.lyapunov == pytest.approx(alone.lyapunov)
