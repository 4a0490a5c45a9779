"""torch.nn as outside truth: outputs, final state and every gradient, in every combination."""

from __future__ import annotations

import copy
import inspect
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import recurra
from recurra import nn

LENGTHS = torch.tensor([4, 6, 1, 6])
TIME, BATCH, INPUT, HIDDEN = 6, 4, 3, 5
KINDS = [
    ("RNN", {"nonlinearity": "tanh"}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
    ("GRU", {}),
]


def _pair(kind: str, **options: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """torch's layer and ours from the same seed: they must draw the same weights."""
    layers = []
    for library in (torch.nn, nn):
        torch.manual_seed(7)
        layers.append(getattr(library, kind)(INPUT, HIDDEN, dtype=torch.float64, **options))
    return layers[0], layers[1]


def _state(options: dict[str, Any], kind: str, batch: tuple[int, ...]) -> Any:
    count = options["num_layers"] * (2 if options["bidirectional"] else 1)
    h = torch.randn(count, *batch, options.get("proj_size") or HIDDEN, dtype=torch.float64)
    if kind != "LSTM":
        return h
    return h, torch.randn(count, *batch, HIDDEN, dtype=torch.float64)


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Tensor):
        return [value]
    return [] if value is None else [leaf for part in value for leaf in _leaves(part)]


def _fresh(value: Any) -> Any:
    if isinstance(value, PackedSequence):
        return value._replace(data=_fresh(value.data))
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_()
    return None if value is None else tuple(_fresh(part) for part in value)


@pytest.mark.parametrize("given_state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("form", ["padded", "unbatched", "packed", "packed-sorted"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "two-way"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(("kind", "extra"), KINDS, ids=lambda value: str(value))
def test_same_numbers_and_gradients_as_torch(
    kind, extra, num_layers, bidirectional, bias, batch_first, form, given_state
) -> None:
    options = {
        "num_layers": num_layers,
        "bidirectional": bidirectional,
        "bias": bias,
        "batch_first": batch_first,
        **extra,
    }
    theirs, ours = _pair(kind, **options)
    shape = (BATCH, TIME, INPUT) if batch_first else (TIME, BATCH, INPUT)
    x: Any = torch.randn(shape, dtype=torch.float64)
    if form == "unbatched":
        x = x.select(0 if batch_first else 1, 1)
    elif form == "packed":
        x = pack_padded_sequence(x, LENGTHS, batch_first, enforce_sorted=False)
    elif form == "packed-sorted":
        x = pack_padded_sequence(x, LENGTHS.sort(descending=True).values, batch_first)
    state = None
    if given_state:
        state = _state(options, kind, () if form == "unbatched" else (BATCH,))
    results = []
    for layer in (theirs, ours):
        inputs = _fresh((x, state) if given_state else (x,))
        outputs = layer(*inputs)
        torch.manual_seed(8)
        sum((torch.randn(leaf.shape) * leaf).sum() for leaf in _leaves(outputs)).backward()
        gradients = [leaf.grad for leaf in (*_leaves(inputs), *layer.parameters())]
        results.append((outputs, gradients))
    (expected, true_gradients), (actual, gradients) = results
    assert type(actual[0]) is type(expected[0])
    if isinstance(actual[0], PackedSequence):
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            left, right = getattr(actual[0], name), getattr(expected[0], name)
            assert left is right is None or torch.equal(left, right)
    for left, right in itertools.zip_longest(_leaves(actual), _leaves(expected)):
        torch.testing.assert_close(left, right)
        assert left.is_contiguous()
    for left, right in itertools.zip_longest(gradients, true_gradients):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize(("kind", "extra"), KINDS, ids=lambda value: str(value))
def test_same_seed_same_weights_as_torch_under_the_same_names(kind, extra) -> None:
    theirs, ours = _pair(kind, num_layers=2, bidirectional=True, **extra)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(left, right)
    assert [[w.shape for w in row] for row in ours.all_weights] == [
        [w.shape for w in row] for row in theirs.all_weights
    ]


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_state_dict_goes_both_ways(kind) -> None:
    theirs, ours = _pair(kind, num_layers=2)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(TIME, BATCH, INPUT, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    ours.flatten_parameters()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_positional_arguments_are_in_the_order_of_torch(kind) -> None:
    middle = ("relu",) if kind == "RNN" else ()
    arguments = (INPUT, HIDDEN, 2, *middle, False, True, 0.25, True)
    theirs, ours = getattr(torch.nn, kind)(*arguments), getattr(nn, kind)(*arguments)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.dropout == theirs.dropout == 0.25
    assert ours.bidirectional is theirs.bidirectional is True


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_arguments_have_the_names_of_torch(kind) -> None:
    theirs, ours = _pair(kind)
    given, taken = (
        [
            (name, one.default)
            for name, one in inspect.signature(layer.forward).parameters.items()
            if one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        for layer in (theirs, ours)
    )
    assert taken == given == [("input", inspect.Parameter.empty), ("hx", None)]
    x = torch.randn(TIME, BATCH, INPUT, dtype=torch.float64)
    hx = _state({"num_layers": 1, "bidirectional": False}, kind, (BATCH,))
    torch.testing.assert_close(ours(input=x, hx=hx), theirs(input=x, hx=hx))
    recurra.accelerate(theirs, backend="reference")
    torch.testing.assert_close(theirs(input=x, hx=hx), ours(x, hx))


@pytest.mark.parametrize("swapped", [False, True], ids=["made", "swapped"])
@pytest.mark.parametrize(("kind", "extra"), KINDS, ids=lambda value: str(value))
def test_what_code_for_torch_reads_is_there(kind, extra, swapped) -> None:
    theirs, ours = _pair(kind, num_layers=2, bidirectional=True, **extra)
    names = ("mode", "proj_size", "_all_weights", "_flat_weights_names")
    expected = {name: copy.deepcopy(getattr(theirs, name)) for name in names}
    weights = [weight.detach().clone() for weight in theirs._flat_weights]
    if swapped:
        recurra.accelerate(theirs, backend="reference")
        ours = theirs
        assert type(ours) is getattr(nn, kind)
    assert {name: getattr(ours, name) for name in names} == expected
    assert all(map(torch.equal, ours._flat_weights, weights))
    assert len(ours._flat_weights) == len(weights) == len(list(ours.parameters()))
    ours.weight_hh_l1 = torch.nn.Parameter(torch.zeros_like(ours.weight_hh_l1))
    assert ours._flat_weights[ours._flat_weights_names.index("weight_hh_l1")].abs().max() == 0
    assert not {"_all_weights", "_flat_weights", "_flat_weights_names"} & vars(ours).keys()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_lengths_equal_packing(kind) -> None:
    theirs, ours = _pair(kind, num_layers=2, bidirectional=True, batch_first=True)
    rows = [torch.randn(int(n), INPUT, dtype=torch.float64) for n in LENGTHS]
    expected, final = theirs(pack_sequence(rows, enforce_sorted=False))
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)
    output, own_final = ours(padded, lengths=LENGTHS)
    unpacked, _ = torch.nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    torch.testing.assert_close(output, unpacked)
    torch.testing.assert_close(own_final, final)


def test_dropout_acts_between_layers_in_training_only() -> None:
    theirs, ours = _pair("GRU", num_layers=2, dropout=1.0)
    x = torch.randn(TIME, BATCH, INPUT, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_dropout_keeps_the_mean_and_follows_the_seed() -> None:
    torch.manual_seed(0)
    layer = nn.RNN(3, 64, num_layers=2, dropout=0.5, nonlinearity="relu")
    x = torch.randn(2, 3, 3)
    with torch.no_grad():
        layer.weight_ih_l1.copy_(torch.eye(64))
        layer.weight_hh_l1.zero_()
        for bias in (layer.bias_ih_l1, layer.bias_hh_l1):
            bias.zero_()
        lower = nn.RNN(3, 64, nonlinearity="relu")
        lower.load_state_dict({k: v for k, v in layer.state_dict().items() if "l0" in k})
        between, _ = lower(x)
    torch.manual_seed(1)
    first, _ = layer(x)
    kept = first != 0
    torch.testing.assert_close(first[kept], 2 * between[kept])
    assert 0.35 < kept.sum() / (between != 0).sum() < 0.65
    torch.manual_seed(1)
    assert torch.equal(layer(x)[0], first)
    assert not torch.equal(layer(x)[0], first)
