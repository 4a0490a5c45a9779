"""explain: the backend of every layer and direction, and every reason against the others."""

from __future__ import annotations

import pytest
import torch

import recurra
from recurra import nn
from recurra.errors import ArgumentError, ShapeError
from recurra.kernels import core, cpu, dispatch
from recurra.kernels.sequence import Features

needs_core = pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")


@needs_core
def test_each_layer_and_direction_is_named_with_its_backend() -> None:
    layer = nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True)
    lines = recurra.explain(layer, torch.zeros(2, 7, 3)).splitlines()
    assert lines[0] == f"{layer}, float32 on cpu, backend='auto'"
    step = 1 + len(dispatch.BACKENDS)
    assert lines[1::step] == [
        "  layer 0: cpu",
        "  layer 0, reverse: cpu",
        "  layer 1: cpu",
        "  layer 1, reverse: cpu",
    ]
    assert set(lines[3::step]) == {"    not cudnn: it needs a CUDA device, and x is on cpu"}
    assert set(lines[step::step]) == {"    not reference: it could, but cpu is preferred"}


def test_chunks_of_time_are_told_from_steps() -> None:
    x = torch.zeros(7, 2, 3)
    lines = recurra.explain(nn.MLSTM(3, 4), x).splitlines()
    assert lines[1] == "  layer 0: chunkwise"
    assert lines[-1] == "    not reference: it could, but chunkwise is preferred"
    text = recurra.explain(nn.MLSTM(3, 4, zoneout=0.1), x)
    assert "layer 0: reference" in text
    assert "not chunkwise: zoneout changes the state at every step" in text


def how(layer: torch.nn.Module, x: torch.Tensor) -> str:
    return recurra.explain(layer, x).splitlines()[2].strip()


@pytest.fixture
def two_threads(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    if core.module is None or core.module.threads_usable() < 2:
        pytest.skip("one CPU is allowed here, or the core was built without OpenMP")


@needs_core
def test_level_and_width_are_those_that_the_call_takes(monkeypatch) -> None:
    x, widest = torch.zeros(7, 2, 3), core.module.levels()[0]
    bits = core.module.vector_bits(widest)
    assert how(nn.GRU(3, 5), x).startswith(f"{widest}, {bits}-bit vectors, 1 thread (torch allows ")
    monkeypatch.setattr(cpu, "choice", cpu.Choice("scalar"))
    assert how(nn.GRU(3, 5), x).startswith("scalar, 128-bit vectors, 1 thread (torch allows ")
    assert how(nn.GRU(3, 5), x).endswith("; second derivatives by reference")


@needs_core
def test_threads_come_with_what_keeps_them_from_being_more(monkeypatch) -> None:
    x = torch.zeros(400, 16, 8)
    monkeypatch.setattr(cpu, "threads", lambda: (1, 4))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    told = how(nn.GRU(8, 16), x)
    assert "torch allows 3, 4 CPUs allowed; 1 in a forked process or without OpenMP)" in told
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(cpu, "threads", lambda: (1, 1))
    assert "1 thread (torch allows 1, 1 CPU allowed)" in how(nn.GRU(8, 16), x)


@needs_core
def test_slices_teams_and_directions_are_told(monkeypatch, two_threads) -> None:
    allowed = core.module.threads_allowed()
    limits = f"2 threads (torch allows 2, {allowed} CPUs allowed)"
    assert f"{limits}, batch in 2 slices;" in how(nn.GRU(8, 16), torch.zeros(400, 16, 8))
    assert f"{limits}, teams of 2;" in how(nn.LSTM(256, 256), torch.zeros(50, 1, 256))
    both = nn.LSTM(64, 64, bidirectional=True)
    assert f"{limits}, both directions at once;" in how(both, torch.zeros(50, 8, 64))
    few = how(nn.GRU(3, 5), torch.zeros(7, 2, 3))
    assert "1 thread (torch allows 2, " in few
    assert "; more would not pay for so little work)" in few


@needs_core
def test_half_precision_says_what_it_is_computed_in() -> None:
    layer = nn.GRU(3, 5, dtype=torch.bfloat16)
    told = how(layer, torch.zeros(7, 2, 3, dtype=torch.bfloat16))
    assert "), computed in float32; second derivatives" in told
    assert "computed in" not in how(nn.GRU(3, 5), torch.zeros(7, 2, 3))


def test_other_backends_have_no_line_of_how() -> None:
    lines = recurra.explain(nn.GRU(3, 5, backend="reference"), torch.zeros(7, 2, 3)).splitlines()
    assert lines[1:3] == [
        "  layer 0: reference",
        "    not cudnn: it needs a CUDA device, and x is on cpu",
    ]


@pytest.mark.parametrize("make", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("size", [(2, 3), (3,)])
def test_cells_are_explained_as_one_step(make, size) -> None:
    lines = recurra.explain(make(3, 5, backend="reference"), torch.zeros(size)).splitlines()
    assert lines[0] == f"{make.__name__}(3, 5, backend='reference'), float32 on cpu, " + (
        "backend='reference'"
    )
    assert lines[1] == "  one step: reference"
    if core.module is not None:
        assert recurra.explain(make(3, 5), torch.zeros(size)).splitlines()[1] == "  one step: cpu"


def test_what_a_cell_cannot_be_called_with_is_refused() -> None:
    cell = nn.GRUCell(3, 5)
    with pytest.raises(ShapeError, match="GRUCell: input has 4 features"):
        recurra.explain(cell, torch.zeros(4, 2).t())
    with pytest.raises(ShapeError, match=r"GRUCell: lengths is given.* recurra\.nn\.GRU"):
        recurra.explain(cell, torch.zeros(2, 3), lengths=torch.tensor([1, 1]))
    with pytest.raises(ShapeError, match="GRUCell: reset is given"):
        recurra.explain(cell, torch.zeros(2, 3), reset=torch.zeros(2, 1, dtype=torch.bool))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (torch.nn.GRU(3, 5), r"explain: GRU is torch's own .* recurra\.accelerate\(model\)"),
        (torch.nn.LSTMCell(3, 5), r"LSTMCell is torch's own .* Use recurra\.nn\.LSTMCell"),
        (torch.nn.Linear(3, 5), r"Linear is no recurrent layer .* Pass a layer of recurra\.nn"),
        (torch.nn.Sequential(torch.nn.GRU(3, 5)), r"Sequential is no .* recurra\.accelerate\("),
        (torch.nn.Sequential(nn.GRU(3, 5)), r"Sequential is a model.*get_submodule\('0'\), x\)"),
        (nn.Linear(3, 5), r"Linear is no recurrent layer of recurra\.nn"),
        (nn.GRU, r"layer is the class GRU, but must be a layer of recurra\.nn"),
        (torch.zeros(7, 3), r"layer is a Tensor, but must be a layer.*Pass it first"),
        (None, r"layer is a NoneType, but must be a layer"),
    ],
)
def test_what_is_no_layer_of_ours_is_told_what_to_do(layer, message) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        recurra.explain(layer, torch.zeros(7, 2, 3))
    assert isinstance(caught.value, TypeError)


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
