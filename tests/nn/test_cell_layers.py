"""RNNCell, LSTMCell, GRUCell: torch's numbers, names and arguments; clear refusals."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from recurra import nn
from recurra.errors import BackendError, ConfigError, ShapeError

INPUT, HIDDEN, BATCH = 3, 5, 4
KINDS = [
    ("RNNCell", {"nonlinearity": "tanh"}),
    ("RNNCell", {"nonlinearity": "relu"}),
    ("LSTMCell", {}),
    ("GRUCell", {}),
]
NAMES = ["RNNCell", "LSTMCell", "GRUCell"]


def _pair(kind: str, **options: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """torch's cell and ours from the same seed: they must draw the same weights."""
    cells = []
    for library in (torch.nn, nn):
        torch.manual_seed(7)
        options.setdefault("dtype", torch.float64)
        cells.append(getattr(library, kind)(INPUT, HIDDEN, **options))
    return cells[0], cells[1]


def _parts(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


@pytest.mark.parametrize("given_state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("shape", [(BATCH,), (1,), (0,), ()], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(("kind", "extra"), KINDS, ids=str)
def test_same_numbers_and_gradients_as_torch(kind, extra, bias, shape, given_state) -> None:
    theirs, ours = _pair(kind, bias=bias, **extra)
    x = torch.randn(*shape, INPUT, dtype=torch.float64)
    count = 2 if kind == "LSTMCell" else 1
    states = torch.randn(count, *shape, HIDDEN, dtype=torch.float64)
    results = []
    for cell in (theirs, ours):
        leaves = [x.clone().requires_grad_(), *(s.clone().requires_grad_() for s in states)]
        hx: Any = tuple(leaves[1:]) if count == 2 else leaves[1]
        once = cell(leaves[0], hx if given_state else None)
        twice = cell(leaves[0], once)
        assert type(once) is (tuple if count == 2 else Tensor)
        torch.manual_seed(8)
        loss = sum((torch.randn(p.shape, dtype=p.dtype) * p).sum() for p in _parts(twice))
        wanted = [*(leaves if given_state else leaves[:1]), *cell.parameters()]
        results.append([*_parts(once), *_parts(twice), *torch.autograd.grad(loss, wanted)])
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize(("kind", "extra"), KINDS, ids=str)
def test_same_seed_same_weights_as_torch_under_the_same_names(kind, extra, bias) -> None:
    theirs, ours = _pair(kind, bias=bias, **extra)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(left, right)
    assert (ours.bias_ih is None) is (theirs.bias_ih is None) is not bias
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(BATCH, INPUT, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kind", NAMES)
def test_arguments_are_those_of_torch(kind) -> None:
    middle = ("relu",) if kind == "RNNCell" else ()
    arguments = (INPUT, HIDDEN, False, *middle, "cpu", torch.float64)
    theirs, ours = getattr(torch.nn, kind)(*arguments), getattr(nn, kind)(*arguments)
    for name in ("input_size", "hidden_size", "bias", *(["nonlinearity"] if middle else [])):
        assert getattr(ours, name) == getattr(theirs, name)
    assert repr(ours).replace("'", "") == repr(theirs)
    x = torch.zeros(BATCH, INPUT, dtype=torch.float64)
    assert torch.equal(_parts(ours(input=x, hx=None))[0], _parts(ours(x))[0])


@pytest.mark.parametrize("kind", NAMES)
def test_a_loop_over_the_cell_is_the_layer(kind) -> None:
    _, cell = _pair(kind)
    layer = getattr(nn, kind.removesuffix("Cell"))(INPUT, HIDDEN, dtype=torch.float64)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = torch.randn(6, BATCH, INPUT, dtype=torch.float64)
    hx, outputs = None, []
    for x_t in x:
        hx = cell(x_t, hx)
        outputs.append(_parts(hx)[0])
    torch.testing.assert_close(torch.stack(outputs), layer(x)[0])


def test_parametrized_weights_and_copies_are_read_afresh() -> None:
    _, cell = _pair("GRUCell")
    torch.nn.utils.parametrizations.weight_norm(cell, "weight_hh")
    x, h = torch.randn(BATCH, INPUT).double(), torch.randn(BATCH, HIDDEN).double()
    before = cell(x, h)
    twin = copy.deepcopy(cell)
    with torch.no_grad():
        cell.parametrizations.weight_hh.original0.mul_(2)
    assert not torch.equal(cell(x, h), before)
    assert torch.equal(twin(x, h), before)


def test_autocast_runs_in_its_dtype_with_the_state_in_either() -> None:
    cell = nn.LSTMCell(INPUT, HIDDEN)
    x = torch.randn(BATCH, INPUT)
    with torch.autocast("cpu", torch.bfloat16):
        h, c = cell(x)
        again, _ = cell(x, (h, c.float()))
    assert h.dtype == c.dtype == again.dtype == torch.bfloat16


def test_compiles_in_one_graph() -> None:
    cell = nn.GRUCell(INPUT, HIDDEN, dtype=torch.float64, backend="reference")
    compiled = torch.compile(cell, backend="eager", fullgraph=True)
    x, h = torch.randn(BATCH, INPUT).double(), torch.randn(BATCH, HIDDEN).double()
    torch.testing.assert_close(compiled(x, h), cell(x, h))


@pytest.mark.parametrize(
    ("x", "hx", "message"),
    [
        ([1.0], None, r"GRUCell: input is a list, but must be a tensor \(batch, 3\)"),
        (torch.zeros(7, 2, 3), None, r"input has 3 axes, shape \(7, 2, 3\).*recurra\.nn\.GRU\."),
        (torch.zeros(()), None, r"input has 0 axes, shape \(\), but must have 2, \(batch, 3\)"),
        (torch.zeros(2, 4), None, r"input has 4 features .* input_size=3.*GRUCell\(4, \.\.\.\)"),
        (torch.zeros(2, 3).double(), None, r"dtype torch\.float64.*have torch\.float32"),
        (torch.zeros(2, 3).long(), None, r"dtype torch\.int64, but must be floating point"),
        (torch.zeros(2, 3, device="meta"), None, r"x is on meta.*parameters are on cpu"),
        (torch.zeros(2, 3), torch.zeros(3, 5), r"hx has shape \(3, 5\).* need \(2, 5\)"),
        (torch.zeros(2, 3), torch.zeros(2, 4), r"hx has shape \(2, 4\).* need \(2, 5\)"),
        (torch.zeros(2, 3), torch.zeros(5), r"hx has shape \(5,\).* need \(2, 5\)"),
        (torch.zeros(3), torch.zeros(1, 5), r"hx has shape \(1, 5\).* need \(5,\)"),
        (torch.zeros(2, 3), [0.0], r"hx is a list, but must be a tensor of shape \(2, 5\)"),
        (torch.zeros(2, 3), torch.zeros(2, 5).double(), r"hx has dtype torch\.float64, but input"),
        (torch.zeros(2, 3), torch.zeros(2, 5, device="meta"), r"hx is on meta, but input is on"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_tensors_are_refused(x, hx, message) -> None:
    with pytest.raises(ShapeError, match=message):
        nn.GRUCell(INPUT, HIDDEN)(x, hx)


@pytest.mark.parametrize(
    ("hx", "message"),
    [
        (torch.zeros(2, 2, 5), r"LSTMCell: hx is a Tensor, but must be \(h, c\).*hidden_size=5"),
        ((torch.zeros(2, 5),), r"hx is a tuple of 1, but must be \(h, c\)"),
        ((torch.zeros(2, 5), torch.zeros(2, 4)), r"hx\[1\] has shape \(2, 4\).* need \(2, 5\)"),
        ((torch.zeros(2, 5), None), r"hx\[1\] is a NoneType"),
    ],
    ids=["tensor", "one", "shape", "none"],
)
def test_wrong_states_of_an_lstm_are_refused(hx, message) -> None:
    with pytest.raises(ShapeError, match=message):
        nn.LSTMCell(INPUT, HIDDEN)(torch.zeros(2, 3), hx)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"RNNCell: bias is 'relu', but must be True or False"):
        nn.RNNCell(INPUT, HIDDEN, "relu")
    with pytest.raises(ConfigError, match=r"unknown activation 'rellu'; did you mean 'relu'"):
        nn.RNNCell(INPUT, HIDDEN, nonlinearity="rellu")
    with pytest.raises(ConfigError, match=r"hidden_size is 0"):
        nn.GRUCell(INPUT, 0)
    with pytest.raises(ConfigError, match=r"unknown backend 'cudn'; did you mean 'cudnn'"):
        nn.LSTMCell(INPUT, HIDDEN, backend="cudn")


def test_a_backend_asked_for_by_name_runs_or_refuses() -> None:
    cell = nn.LSTMCell(INPUT, HIDDEN, backend="cudnn")
    assert repr(cell) == "LSTMCell(3, 5, backend='cudnn')"
    with pytest.raises(BackendError, match=r"'cudnn' cannot run this LSTM.*x is on cpu"):
        cell(torch.zeros(2, 3))
