"""MinGRU, MinLSTM, RGLRU and LRU as layers: all that layers do, and what these refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import recurra
from recurra import nn
from recurra.errors import BackendError, ConfigError
from recurra.kernels import core

KINDS = ["MinGRU", "MinLSTM", "RGLRU", "LRU"]
every_kind = pytest.mark.parametrize("kind", KINDS)
needs_core = pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")


def make(kind: str, *arguments, **options) -> torch.nn.Module:
    torch.manual_seed(3)
    return getattr(nn, kind)(*arguments, **options)


def width(kind: str, size: int) -> int:
    return 2 * size if kind == "LRU" else size


@every_kind
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"zoneout": 0.2}])
def test_auto_gives_the_numbers_and_gradients_of_the_reference(kind, options) -> None:
    layer = make(kind, 3, 4, 2, batch_first=True, dtype=torch.float64, **options)
    x = torch.randn(3, 20, 3, dtype=torch.float64)
    h_0 = torch.rand(2 * (1 + layer.bidirectional), 3, width(kind, 4), dtype=torch.float64)
    call = {"lengths": torch.tensor([20, 0, 13]), "reset": torch.rand(3, 20) < 0.1}
    found = []
    for backend in ("auto", "reference"):
        torch.manual_seed(5)
        layer.backend = backend
        output, h_n = layer(x, h_0, **call)
        total = output.square().sum() + h_n.sum()
        found.append((output, h_n, *torch.autograd.grad(total, list(layer.parameters()))))
    torch.testing.assert_close(found[0], found[1])


@every_kind
def test_packed_rows_and_sizes_per_layer(kind) -> None:
    layer = make(kind, 3, [6, 4], batch_first=True)
    x, lengths = torch.randn(3, 5, 3), torch.tensor([2, 5, 4])
    expected, finals = layer(x, lengths=lengths)
    assert [tuple(h.shape) for h in finals] == [(1, 3, width(kind, 6)), (1, 3, width(kind, 4))]
    packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    output, own = layer(packed)
    torch.testing.assert_close(pad_packed_sequence(output, True)[0], expected)
    torch.testing.assert_close(own, finals)
    alone, last = layer(x[0, :2])
    torch.testing.assert_close(alone, expected[0, :2])
    assert [h.dim() for h in last] == [2, 2]


@every_kind
@pytest.mark.parametrize("options", [{}, {"zoneout": 0.3}])
def test_a_stream_is_the_layer_one_step_at_a_time(kind, options) -> None:
    layer = make(kind, 3, 4, 2, batch_first=True, **options).eval()
    x = torch.randn(2, 9, 3)
    expected, h_n = layer(x)
    stream = layer.stream(2)
    assert stream.backend == "reference"
    outputs = [stream.push(x_t) for x_t in x[:, :5].unbind(1)]
    outputs += stream.push_chunk(x[:, 5:]).unbind(1)
    torch.testing.assert_close(torch.stack(outputs, 1), expected)
    torch.testing.assert_close(stream.state, h_n)
    continued, _ = layer(x, h_n)
    torch.testing.assert_close(stream.push_chunk(x), continued)


@every_kind
def test_a_backend_that_cannot_stream_says_so(kind) -> None:
    with pytest.raises(BackendError, match=rf"{kind}: backend 'scan' cannot stream; make the"):
        make(kind, 3, 4, backend="scan").stream()


@every_kind
def test_dropout_on_a_product_that_is_not_there_is_refused(kind) -> None:
    message = (
        rf"{kind}: recurrent_dropout is 0\.2, but it masks h in the product with recurrent "
        rf"weights, and {kind} has none\. .* variational_dropout"
    )
    with pytest.raises(ConfigError, match=message):
        make(kind, 3, 4, recurrent_dropout=0.2)
    make(kind, 3, 4, recurrent_dropout=0.0, variational_dropout=0.2)(torch.zeros(5, 2, 3))


@every_kind
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "orthogonal"}, "init='orthogonal' is not defined for"),
        ({"init": "chrono", "chrono_length": 9}, "is not defined for"),
        ({"forget_bias": 1.0}, "is not defined for"),
    ],
)
def test_ways_to_draw_weights_that_are_not_there_are_refused(kind, options, message) -> None:
    with pytest.raises(ConfigError, match=f"{kind}: .*{message}"):
        make(kind, 3, 4, **options)


@every_kind
def test_weights_follow_the_seed_and_are_drawn_by_the_cell(kind) -> None:
    layer = make(kind, 3, 4)
    (cell,) = layer.cells
    torch.manual_seed(3)
    params = {name: torch.empty(shape) for name, shape in cell.parameter_shapes().items()}
    cell.draw(params)
    for name, value in params.items():
        assert torch.equal(getattr(layer, f"{name}_l0"), value)


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (nn.MinGRU(3, 4, bias=False, positive=False), "MinGRU(3, 4, bias=False, positive=False)"),
        (nn.MinLSTM(3, 4, 2), "MinLSTM(3, 4, num_layers=2)"),
        (nn.RGLRU(3, 4, num_heads=2, zoneout=0.1), "RGLRU(3, 4, zoneout=0.1, num_heads=2)"),
        (nn.LRU(3, 4), "LRU(3, 4)"),
        (nn.LRU(3, 4, r_min=0.5, max_phase=0.1), "LRU(3, 4, r_min=0.5, max_phase=0.1)"),
    ],
)
def test_repr_shows_what_is_unusual(layer, shown) -> None:
    assert repr(layer) == shown


@pytest.mark.parametrize(
    ("kind", "options", "cell_option"),
    [
        ("MinGRU", {"positive": False, "bias": False}, ("positive", False)),
        ("MinLSTM", {"positive": False, "bias": False}, ("positive", False)),
        ("RGLRU", {"num_heads": 2, "bias": False}, ("num_heads", 2)),
        ("LRU", {"r_min": 0.1, "r_max": 0.9, "max_phase": 0.5}, ("max_phase", 0.5)),
    ],
)
def test_own_options_reach_every_cell(kind, options, cell_option) -> None:
    layer = make(kind, 3, 4, 2, bidirectional=True, **options)
    for cell in layer.cells:
        assert getattr(cell, cell_option[0]) == cell_option[1]
    assert not any("bias" in name for name, _ in layer.named_parameters())


@needs_core
@every_kind
def test_explain_says_that_one_scan_runs_it(kind) -> None:
    lines = recurra.explain(make(kind, 3, 4), torch.zeros(7, 2, 3)).splitlines()
    assert lines[1:] == [
        "  layer 0: scan",
        "    by the compiled core; second derivatives in plain torch",
        "    not cudnn: it needs a CUDA device, and x is on cpu",
        "    not cpu: it runs Elman, LSTM, GRU, IndRNN, LEM and sLSTM only, and the cell is "
        f"{kind}",
        f"    not chunkwise: it runs mLSTM only, and the cell is {kind}",
        "    not reference: it could, but scan is preferred",
    ]


def test_explain_says_why_zoneout_keeps_an_lru_from_the_scan() -> None:
    lines = recurra.explain(make("LRU", 3, 4, zoneout=0.1), torch.zeros(7, 2, 3)).splitlines()
    assert lines[1] == "  layer 0: reference"
    assert "    not scan: zoneout keeps parts of h from turning, " in "\n".join(lines)


@every_kind
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_whole_graph_of_torch_compile(kind, backend) -> None:
    layer = make(kind, 3, 4, 2, bidirectional=True, dtype=torch.float64)
    x, lengths = torch.randn(5, 2, 3, dtype=torch.float64), torch.tensor([3, 5])
    torch._dynamo.reset()
    graph = torch.compile(layer, fullgraph=True, backend=backend)
    found = []
    for run in (graph, layer):
        output, h_n = run(x, lengths=lengths)
        total = output.square().sum() + h_n.sum()
        found.append((output, h_n, *torch.autograd.grad(total, list(layer.parameters()))))
    torch.testing.assert_close(found[0], found[1])


@every_kind
def test_an_exported_program_gives_the_same(kind) -> None:
    layer = make(kind, 3, 4)
    x = torch.randn(5, 2, 3)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x))


@every_kind
def test_autocast_runs_in_its_dtype(kind) -> None:
    layer, x = make(kind, 3, 4), torch.randn(5, 2, 3)
    expected, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        output, h_n = layer(x)
    assert output.dtype == h_n.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.05)


@every_kind
def test_layers_are_copied_and_their_weights_handed_on(kind) -> None:
    layer, other = make(kind, 3, 4, 2), getattr(nn, kind)(3, 4, 2)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(5, 2, 3)
    for same in (copy.deepcopy(layer), other):
        assert torch.equal(same(x)[0], layer(x)[0])
