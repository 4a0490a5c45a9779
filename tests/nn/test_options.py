"""Keywords of all layers that act on weights, layers and states: what they do, from outside."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import parametrize

import recurra
from recurra import nn
from recurra.errors import BackendError, ConfigError

KINDS = [nn.RNN, nn.LSTM, nn.GRU]
BACKENDS = ["reference", "cpu"]


def close(found: torch.Tensor, truth: torch.Tensor) -> None:
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)


def finals(state: object) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("kind", KINDS)
def test_weight_drop_drops_recurrent_weights_alone_and_the_same_in_every_backend(kind) -> None:
    x, results = torch.randn(6, 3, 4), []
    for backend in BACKENDS:
        torch.manual_seed(0)
        layer = kind(4, 5, weight_drop=0.4, backend=backend)
        torch.manual_seed(1)
        output = layer(x)[0]
        output.sum().backward()
        torch.manual_seed(1)
        mask = torch.nn.functional.dropout(torch.ones_like(layer.weight_hh_l0), 0.4)
        plain = kind(4, 5)
        plain.load_state_dict(layer.state_dict())
        with torch.no_grad():
            plain.weight_hh_l0 *= mask
        close(output, plain(x)[0])
        gradient = layer.weight_hh_l0.grad
        assert bool((gradient[mask == 0] == 0).all())
        assert bool((gradient[mask != 0] != 0).all())
        results.append((output.detach(), gradient))
        assert torch.equal(layer.eval()(x)[0], plain_of(layer, kind)(x)[0])
    for found, truth in zip(results[1], results[0], strict=True):
        close(found, truth)


def plain_of(layer: torch.nn.Module, kind: type) -> torch.nn.Module:
    plain = kind(4, 5, backend=layer.backend)
    plain.load_state_dict(layer.state_dict())
    return plain


class Doubled(torch.nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def test_dropped_weights_train_under_a_parametrization() -> None:
    layer = nn.LSTM(3, 4, weight_drop=0.5)
    parametrize.register_parametrization(layer, "weight_hh_l0", Doubled())
    original = layer.parametrizations.weight_hh_l0.original
    before = original.detach().clone()
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.randn(5, 2, 3))[0].square().sum().backward()
    optimiser.step()
    share = float((original != before).float().mean())
    assert 0.1 < share < 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_residual_adds_the_input_where_sizes_are_equal(kind, batch_first) -> None:
    layer = kind(4, 6, num_layers=2, residual=True, batch_first=batch_first)
    first, second = (kind(n, 6, batch_first=batch_first) for n in (4, 6))
    for number, single in enumerate((first, second)):
        names = {name.replace(f"_l{number}", "_l0"): p for name, p in layer.named_parameters()}
        single.load_state_dict({name: names[name] for name in single.state_dict()})
    lengths = torch.tensor([5, 0, 3])
    x = torch.randn(3, 5, 4) if batch_first else torch.randn(5, 3, 4)
    middle = first(x, lengths=lengths)[0]
    expected = middle + second(middle, lengths=lengths)[0]
    close(layer(x, lengths=lengths)[0], expected)


def test_residual_leaves_the_padding_empty_whatever_it_holds() -> None:
    layer = nn.GRU(4, 4, residual=True, batch_first=True)
    x, lengths = torch.randn(2, 5, 4), torch.tensor([2, 5])
    clean = layer(x, lengths=lengths)[0]
    x[0, 2:] = float("nan")
    assert torch.equal(layer(x, lengths=lengths)[0], clean)
    assert bool((clean[0, 2:] == 0).all())


def test_residual_counts_both_directions() -> None:
    layer = nn.GRU(8, 4, bidirectional=True, residual=True)
    x = torch.randn(3, 2, 8)
    plain = nn.GRU(8, 4, bidirectional=True)
    plain.load_state_dict(layer.state_dict())
    close(layer(x)[0], plain(x)[0] + x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_learned_start_begins_at_zero_and_learns(kind, bidirectional) -> None:
    layer = kind(3, 4, num_layers=2, learn_initial_state=True, bidirectional=bidirectional)
    x = torch.randn(5, 2, 3)
    plain = kind(3, 4, num_layers=2, bidirectional=bidirectional)
    starts = [name for name in layer.state_dict() if name[0] in "hc" and "_0_l" in name]
    parts = 2 if kind is nn.LSTM else 1
    assert len(starts) == 2 * parts * (2 if bidirectional else 1)
    assert "h_0_l1" in starts
    rest = {name: p for name, p in layer.state_dict().items() if name not in starts}
    plain.load_state_dict(rest)
    assert torch.equal(layer(x)[0], plain(x)[0])
    with torch.no_grad():
        for name in starts:
            layer.get_parameter(name).normal_()
    output, state = layer(x)
    given = [
        torch.stack([layer.get_parameter(n) for n in starts if n.startswith(part)])
        for part in ("h", "c")[:parts]
    ]
    hx = [start.unsqueeze(1).expand(-1, 2, -1).contiguous() for start in given]
    expected, final = plain(x, tuple(hx) if parts == 2 else hx[0])
    close(output, expected)
    for ours, theirs in zip(finals(state), finals(final), strict=True):
        close(ours, theirs)
    output.sum().backward()
    assert all(bool(layer.get_parameter(name).grad.abs().sum() > 0) for name in starts)


@pytest.mark.parametrize("kind", KINDS)
def test_resets_and_streams_go_back_to_the_learned_start(kind) -> None:
    layer = kind(3, 4, learn_initial_state=True, batch_first=True)
    with torch.no_grad():
        for part in ("h", "c")[: 2 if kind is nn.LSTM else 1]:
            layer.get_parameter(f"{part}_0_l0").normal_()
    x = torch.randn(2, 6, 3)
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[1, 4] = True
    output = layer(x, reset=reset)[0]
    close(output[1, 4:], layer(x[1:, 4:])[0][0])
    assert "not cpu: its resets go back to zeros" in recurra.explain(layer, x, reset=reset)
    assert "layer 0: cpu" in recurra.explain(layer, x)
    stream = layer.stream(2)
    whole = layer(x)[0]
    assert torch.equal(stream.push_chunk(x), whole)
    stream.reset([0])
    assert torch.equal(stream.push(x[:, 0])[0], whole[0, 0])
    stream.restore(None)
    assert torch.equal(stream.push_chunk(x), whole)


def test_a_residual_stack_streams_by_the_reference() -> None:
    layer = nn.LSTM(4, 4, num_layers=2, residual=True, batch_first=True)
    x = torch.randn(2, 6, 4)
    stream = layer.stream(2)
    assert stream.backend == "reference"
    close(stream.push_chunk(x), layer(x)[0])
    with pytest.raises(BackendError, match=r"weights='int8' .* it has no residual connections"):
        layer.stream(2, weights="int8")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", ["gates", 3])
def test_recompute_with_everything_on_changes_no_gradient(kind, recompute) -> None:
    results = []
    for setting in (None, recompute):
        torch.manual_seed(3)
        layer = kind(
            4,
            4,
            num_layers=2,
            bidirectional=True,
            recompute=setting,
            zoneout=0.1,
            recurrent_dropout=0.2,
            variational_dropout=0.2,
            weight_drop=0.2,
            learn_initial_state=True,
            clip_state_grad=0.5,
            dropout=0.1,
        )
        x = torch.randn(7, 3, 4, requires_grad=True)
        output, state = layer(x, lengths=torch.tensor([7, 2, 4]))
        sum((part.square().sum() for part in finals(state)), output.square().sum()).backward()
        results.append([x.grad, *(p.grad for p in layer.parameters())])
    for found, truth in zip(results[1], results[0], strict=True):
        close(found, truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recompute": "gate"}, r"recompute is 'gate', but must be None, 'gates', or a number"),
        ({"recompute": 0}, r"recompute is 0, .* at least 1"),
        ({"recompute": True}, r"recompute is True"),
        ({"clip_state_grad": 0}, r"clip_state_grad is 0, but must be a number above 0"),
        ({"clip_state_grad": float("inf")}, r"clip_state_grad is inf"),
        ({"weight_drop": 1.5}, r"weight_drop is 1.5, but must be a number from 0 to 1"),
        ({"residual": 1}, r"residual is 1, but must be True or False"),
        ({"residual": True}, r"no layer has them of one size: .* are \[\(3, 4\)\]"),
        ({"learn_initial_state": "yes"}, r"learn_initial_state is 'yes'"),
    ],
)
def test_options_are_checked(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        nn.GRU(3, 4, **options)


def test_options_are_shown() -> None:
    layer = nn.GRU(4, 4, weight_drop=0.1, residual=True, recompute="gates", clip_state_grad=1)
    shown = "GRU(4, 4, weight_drop=0.1, residual=True, clip_state_grad=1.0, recompute='gates')"
    assert repr(layer) == shown


def test_options_that_a_cell_cannot_have_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight_drop=0.1 drops .* matrices, and mLSTM has none"):
        nn.MLSTM(3, 4, weight_drop=0.1)
    for kind in (nn.SLSTM, nn.MLSTM):
        with pytest.raises(ConfigError, match=r"learn_initial_state=True would let training reach"):
            kind(3, 4, learn_initial_state=True)


def test_weight_drop_reaches_both_products_of_a_lem() -> None:
    layer = nn.LEM(3, 40, weight_drop=0.5)
    layer(torch.randn(4, 2, 3))[0].sum().backward()
    for parameter in (layer.weight_hh_l0, layer.weight_hz_l0):
        assert 0.4 < float((parameter.grad == 0).float().mean()) < 0.6
