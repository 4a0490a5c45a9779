"""Messages: the layer, the argument, the value seen, the value wanted, the next step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from recurra import nn
from recurra.errors import ArgumentError, BackendError, ConfigError, ShapeError

GRU = nn.GRU(5, 4, batch_first=True)
LSTM = nn.LSTM(5, 4, 2)
LISTED = nn.LSTM(5, [4, 3])
ZEROS = torch.zeros


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            ZEROS(2, 7, 3),
            r"GRU: x has 3 features on its last axis, but this layer was made with input_size=5\. "
            r"Pass \(batch, time, 5\), or make GRU\(3, \.\.\.\)\.",
        ),
        (ZEROS(5), r"GRU: x has 1 axes, shape \(5,\), but must have 3, \(batch, time, 5\), or 2"),
        (ZEROS(1, 2, 7, 5), r"x has 4 axes"),
        ([[1.0] * 5], r"GRU: x is a list, but must be a tensor \(batch, time, 5\)"),
        (ZEROS(2, 7, 5).double(), r"x has dtype torch.float64, but .* have torch.float32"),
        (ZEROS(2, 7, 5).long(), r"x has dtype torch.int64, but must be floating point"),
        (ZEROS(2, 7, 5, device="meta"), r"x is on meta, but the layer's parameters are on cpu"),
    ],
)
def test_inputs_that_do_not_fit(x, message) -> None:
    with pytest.raises(ShapeError, match=message):
        GRU(x)


def test_time_first_layers_say_so() -> None:
    with pytest.raises(ShapeError, match=r"Pass \(time, batch, 5\)"):
        LSTM(ZEROS(7, 2, 3))


@pytest.mark.parametrize(
    ("layer", "hx", "message"),
    [
        (GRU, ZEROS(1, 3, 4), r"GRU: h_0 has shape \(1, 3, 4\), but .* need \(1, 2, 4\)"),
        (GRU, ZEROS(2, 4), r"h_0 has shape \(2, 4\)"),
        (GRU, ZEROS(1, 2, 4).double(), r"h_0 has dtype torch.float64, but x has torch.float32"),
        (GRU, ZEROS(1, 2, 4, device="meta"), r"h_0 is on meta, but x is on cpu"),
        (GRU, [0.0], r"h_0 is a list"),
        (LSTM, ZEROS(2, 2, 4), r"LSTM: the initial state is a Tensor, but must be \(h_0, c_0\)"),
        (LSTM, (ZEROS(2, 7, 4),), r"must be \(h_0, c_0\)"),
        (LSTM, (ZEROS(2, 7, 4), ZEROS(2, 7, 3)), r"c_0 has shape \(2, 7, 3\).*\(2, 7, 4\)"),
        (LISTED, (ZEROS(2, 7, 4), ZEROS(2, 7, 4)), r"h_0 must be a tuple of 2 tensors"),
        (
            LISTED,
            ((ZEROS(1, 7, 4), ZEROS(1, 7, 4)), (ZEROS(1, 7, 4), ZEROS(1, 7, 3))),
            r"h_0\[1\] has shape \(1, 7, 4\), but .* need \(1, 7, 3\)",
        ),
    ],
)
def test_states_that_do_not_fit(layer, hx, message) -> None:
    with pytest.raises(ShapeError, match=message):
        layer(ZEROS(2, 7, 5), hx)


def test_lengths_and_resets_are_checked_under_the_name_of_the_layer() -> None:
    with pytest.raises(ShapeError, match=r"GRU: lengths\[1\] is 8, but x has 7 time steps"):
        GRU(ZEROS(2, 7, 5), lengths=torch.tensor([7, 8]))
    with pytest.raises(ShapeError, match=r"GRU: lengths is a list"):
        GRU(ZEROS(7, 5), lengths=[7])
    with pytest.raises(ShapeError, match=r"LSTM: reset has shape \(7, 2\)"):
        LSTM(ZEROS(7, 2, 5), reset=ZEROS(7, 2).bool())
    with pytest.raises(ShapeError, match=r"GRU: x is a PackedSequence, .* and lengths="):
        GRU(pack_sequence([ZEROS(7, 5)]), lengths=torch.tensor([7]))


@pytest.mark.parametrize(
    ("kind", "arguments", "options", "message"),
    [
        ("GRU", (3, 4), {"num_layers": 0}, r"GRU: num_layers is 0, but must be an integer"),
        ("GRU", (3, []), {}, r"hidden_size is an empty list"),
        ("GRU", (3, [4, 5]), {"num_layers": 3}, r"lists 2 layers, but num_layers=3"),
        ("GRU", (3, [4, 0]), {}, r"hidden_size is 0"),
        ("GRU", (3, 4.0), {}, r"hidden_size is 4\.0"),
        ("GRU", (3, 4, 2, 0.5), {}, r"GRU: bias is 0\.5, but must be True or False"),
        ("GRU", (3, 4, 2), {"dropout": 1.5}, r"GRU: dropout is 1\.5, but must be .* 0 to 1"),
        (
            "GRU",
            (3, 4),
            {"recurrent_dropout": 1.2},
            r"GRU: recurrent_dropout is 1\.2, but must be a number from 0 to 1\.",
        ),
        ("RNN", (3, 4), {"variational_dropout": True}, r"RNN: variational_dropout is True, but"),
        ("GRU", (3, 4), {"zoneout": -0.1}, r"GRU: zoneout is -0\.1, .* number from 0 to 1\.$"),
        ("GRU", (3, 4), {"zoneout": (0.1, 0.2)}, r"GRU: zoneout is \(0\.1, 0\.2\), .* to 1\.$"),
        ("RNN", (3, 4), {"zoneout": (0.1,)}, r"RNN: zoneout is \(0\.1,\), .* to 1\.$"),
        (
            "LSTM",
            (3, 4),
            {"zoneout": (0.1,)},
            r"LSTM: zoneout is \(0\.1,\), but must be a number from 0 to 1, or one for each of "
            r"\(h, c\)\.",
        ),
        ("LSTM", (3, 4), {"zoneout": (0.1, float("nan"))}, r"zoneout is \(0\.1, nan\)"),
        ("LSTM", (3, 4), {"zoneout": "0.1"}, r"zoneout is '0\.1'"),
        ("GRU", (3, 4), {"backend": "cuda"}, r"unknown backend 'cuda'"),
        ("GRU", (3, 4), {"init": "xavier"}, r"GRU: unknown init 'xavier'"),
        ("RNN", (3, 4), {"nonlinearity": "relU"}, r"unknown activation 'relU'"),
        ("LSTM", (3, 4), {"proj_size": 4}, r"LSTM: proj_size is 4"),
        ("IndRNN", (3, 4), {"activation": "gelu"}, r"unknown activation 'gelu'"),
        ("IndRNN", (3, 4), {"memory_length": 0}, r"memory_length is 0, but must be at least 1"),
        ("LEM", (3, 4), {"dt": 2.0}, r"LEM: dt is 2\.0, but must be a number above 0"),
        ("SLSTM", (3, [4, 3]), {"num_heads": 2}, r"num_heads=2 does not divide hidden_size=3"),
        ("MLSTM", (3, 4), {"forget_gate": "tanh"}, r"unknown forget_gate 'tanh'"),
        (
            "MLSTM",
            (3, 4),
            {"recurrent_dropout": 0.1},
            r"MLSTM: recurrent_dropout is 0\.1, but it masks h .* mLSTM has none\. Leave it out",
        ),
        ("MLSTM", (3, 4), {"recurrent_dropout": 1.5}, r"must be a number from 0 to 1"),
    ],
)
def test_settings_that_do_not_fit(kind, arguments, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        getattr(nn, kind)(*arguments, **options)


def test_projection_is_for_lstm_only() -> None:
    with pytest.raises(ArgumentError, match="GRU: unknown keyword 'proj_size'"):
        nn.GRU(3, 4, proj_size=2)


EVERY = [
    nn.RNN,
    nn.LSTM,
    nn.GRU,
    nn.IndRNN,
    nn.LEM,
    nn.SLSTM,
    nn.MLSTM,
    nn.MinGRU,
    nn.MinLSTM,
    nn.RGLRU,
    nn.LRU,
]


@pytest.mark.parametrize("bias", ["1", [1.0], ZEROS(4), True])
def test_a_forget_bias_that_is_no_number_is_named(bias) -> None:
    name = type(bias).__name__
    with pytest.raises(ConfigError, match=f"LSTM: forget_bias is a {name}, but must be a number"):
        nn.LSTM(3, 4, forget_bias=bias)


def test_directions_that_are_no_flag_are_named_before_they_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"GRU: bidirectional is tensor.* must be True or False"):
        nn.GRU(3, 4, 2, bidirectional=ZEROS(3))


@pytest.mark.parametrize("kind", EVERY)
def test_an_unknown_keyword_names_the_class_that_was_typed_and_the_nearest(kind) -> None:
    with pytest.raises(ArgumentError) as caught:
        kind(3, 4, zonout=0.1)
    text = str(caught.value)
    start = f"{kind.__name__}: unknown keyword 'zonout'; did you mean 'zoneout'? Valid: '"
    assert text.startswith(start)
    assert isinstance(caught.value, TypeError)
    names = ["input_size", "hidden_size", "num_layers", "batch_first", "backend", "recompute"]
    assert all(repr(name) in text for name in names)
    assert ("'forget_bias'" in text) == (kind in (nn.RNN, nn.LSTM, nn.GRU))
    assert not any(repr(name) in text for name in ("self", "cells", "options", "unknown"))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (nn.LSTM, {"projection_size": 2}, r"LSTM: .*did you mean 'proj_size'\?"),
        (nn.RNN, {"non_linearity": "relu"}, r"RNN: .*did you mean 'nonlinearity'\?"),
        (nn.GRU, {"cells": ()}, r"GRU: unknown keyword 'cells'"),
        (nn.LRU, {"bias": True}, r"LRU: unknown keyword 'bias'"),
        (nn.LRU, {"r_mim": 0.9}, r"LRU: .*did you mean 'r_min'\?"),
    ],
)
def test_keywords_of_other_layers_and_slips_are_refused(kind, options, message) -> None:
    with pytest.raises(ArgumentError, match=message):
        kind(3, 4, **options)


def test_a_layer_of_ones_own_is_named_with_its_own_keywords() -> None:
    class Mine(nn.GRU):
        def __init__(self, *sizes: int, gain: float = 1.0, **more: Any) -> None:
            super().__init__(*sizes, **more)

    with pytest.raises(ArgumentError, match=r"Mine: unknown keyword 'gian'; did you mean 'gain'"):
        Mine(3, 4, gian=2.0)
    assert Mine(3, 4, gain=2.0, zoneout=0.1).zoneout == 0.1


def test_dropout_with_one_layer_warns_and_points_at_the_caller() -> None:
    with pytest.warns(UserWarning, match=r"GRU: dropout=0\.5 .* only one layer") as caught:
        nn.GRU(3, 4, dropout=0.5)
    assert caught[0].filename == __file__


def test_backend_that_cannot_run_is_an_error_at_the_call() -> None:
    layer = nn.GRU(5, 4, batch_first=True, backend="cudnn")
    with pytest.raises(BackendError, match=r"'cudnn' cannot run this GRU: it needs a CUDA device"):
        layer(ZEROS(2, 7, 5))
