"""explain: the backend of every layer and direction, and every reason against the others."""

from __future__ import annotations

import pytest
import torch

import recurra
from recurra import nn
from recurra.errors import ShapeError
from recurra.kernels import dispatch
from recurra.kernels.sequence import Features


def test_each_layer_and_direction_is_named_with_its_backend() -> None:
    layer = nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True)
    lines = recurra.explain(layer, torch.zeros(2, 7, 3)).splitlines()
    assert lines[0] == f"{layer}, float32 on cpu, backend='auto'"
    assert lines[1::3] == [
        "  layer 0: cpu",
        "  layer 0, reverse: cpu",
        "  layer 1: cpu",
        "  layer 1, reverse: cpu",
    ]
    assert set(lines[2::3]) == {"    not cudnn: it needs a CUDA device, and x is on cpu"}
    assert set(lines[3::3]) == {"    not reference: it could, but cpu is preferred"}


def test_a_backend_asked_for_is_distinguished_from_one_that_cannot() -> None:
    x = torch.zeros(7, 2, 3)
    text = recurra.explain(nn.GRU(3, 5, backend="cudnn"), x)
    assert "layer 0: no backend" in text
    assert "not reference: it could, but backend='cudnn' was asked for" in text


def test_what_the_call_asks_for_is_taken_into_account() -> None:
    layer, x = nn.GRU(3, 5, device="meta"), torch.zeros(7, 2, 3, device="meta")
    text = recurra.explain(layer, x, reset=torch.zeros(2, 7, dtype=torch.bool))
    assert "float32 on meta" in text
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(7, 3), torch.zeros(5, 3)])
    assert "layer 0: cpu" in recurra.explain(nn.GRU(3, 5), packed)
    with pytest.raises(ShapeError, match="GRU: x has 4 features"):
        recurra.explain(layer, torch.zeros(7, 2, 4))


def test_autocast_changes_the_dtype_that_is_shown() -> None:
    layer = nn.GRU(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert "bfloat16 on cpu" in recurra.explain(layer, torch.zeros(7, 3))


def test_backends_are_asked_about_the_very_call(monkeypatch) -> None:
    asked = []

    class Choosy:
        def why_not(self, cell, features, dtype, device) -> str | None:
            asked.append(features)
            return "it resets nothing" if features.reset else None

    both = {"choosy": Choosy(), **dispatch.BACKENDS}
    monkeypatch.setattr(dispatch, "BACKENDS", both)
    layer, x = nn.GRU(3, 5), torch.zeros(7, 2, 3)
    text = recurra.explain(layer, x, lengths=torch.tensor([7, 4]))
    assert "layer 0: choosy" in text
    assert "not reference: it could, but choosy is preferred" in text
    reset = torch.zeros(2, 7, dtype=torch.bool)
    assert "not choosy: it resets nothing" in recurra.explain(layer, x, reset=reset)
    assert asked == [Features(2, 7, lengths=True), Features(2, 7, reset=True)]


def test_dropout_inside_the_recurrence_is_part_of_the_call(monkeypatch) -> None:
    asked = []

    class Asking:
        def why_not(self, cell, features, dtype, device) -> str | None:
            asked.append(features)
            return None

    monkeypatch.setattr(dispatch, "BACKENDS", {"asking": Asking()})
    layer, x = nn.LSTM(3, 5, zoneout=(0.0, 0.1), recurrent_dropout=0.2), torch.zeros(7, 2, 3)
    recurra.explain(layer, x)
    recurra.explain(layer.eval(), x)
    recurra.explain(nn.LSTM(3, 5, zoneout=(0.0, 0.0)), x)
    assert asked == [
        Features(2, 7, masks=True, zoneout=True),
        Features(2, 7, zoneout=True),
        Features(2, 7),
    ]
