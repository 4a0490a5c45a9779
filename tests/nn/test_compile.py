"""Layers and cells under torch.compile and torch.export: whole graphs, any size, eager's bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim
from torch.nn.utils import parametrize

from recurra import nn
from recurra.errors import ShapeError
from recurra.kernels import core

pytestmark = [
    pytest.mark.skipif(core.module is None, reason="the compiled core is not built here"),
    # torch's own, in its export and its compiler
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

INPUT, HIDDEN = 3, 5
# Sizes (batch, time) that meet no other one: the graph of the first must do for all.
SIZES = [(7, 9), (2, 4), (6, 6)]
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "everything": (
        "LSTM",
        {
            "num_layers": 2,
            "bidirectional": True,
            "batch_first": True,
            "dropout": 0.3,
            "zoneout": (0.2, 0.1),
            "recurrent_dropout": 0.2,
            "variational_dropout": 0.2,
        },
    ),
    "projected": ("LSTM", {"proj_size": 2, "num_layers": 2}),
    "gru": ("GRU", {"bidirectional": True, "zoneout": 0.2}),
    "reset-before": ("GRU", {"reset_after": False, "bias": False, "dtype": torch.float64}),
    "relu": ("RNN", {"nonlinearity": "relu", "zoneout": 0.3}),
    "bfloat16": ("RNN", {"num_layers": 2, "dtype": torch.bfloat16}),
    "sizes": ("LSTM", {"hidden_size": [5, 4]}),
}


@pytest.fixture(autouse=True)
def _fresh_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make_layer(kind: str, **options: Any) -> Any:
    torch.manual_seed(3)
    return getattr(nn, kind)(INPUT, options.pop("hidden_size", HIDDEN), **options)


def call_of(layer: Any, batch: int, time: int, seed: int = 0) -> dict[str, Any]:
    """input, hx, lengths and reset for a layer; floating tensors want gradients."""
    rng = torch.Generator().manual_seed(seed)
    dtype = layer.weight_ih_l0.dtype

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=rng).to(dtype).requires_grad_()

    x = normal(*((batch, time) if layer.batch_first else (time, batch)), INPUT)
    directions = 2 if layer.bidirectional else 1
    parts: list[Any] = []
    for part in layer.cells[0].state_sizes():
        sizes = [cell.state_sizes()[part] for cell in layer.cells]
        if isinstance(layer.hidden_size, tuple):
            parts.append(tuple(normal(directions, batch, size) for size in sizes))
        else:
            parts.append(normal(directions * len(sizes), batch, sizes[0]))
    return {
        "input": x,
        "hx": parts[0] if len(parts) == 1 else tuple(parts),
        "lengths": torch.randint(0, time + 1, (batch,), generator=rng),
        "reset": torch.rand(batch, time, generator=rng) < 0.2,
    }


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [t for item in value for t in tensors_in(item)]


def gradients(results: Any, wanted: list[Tensor]) -> tuple[Tensor, ...]:
    total = sum((number + 1) * r.square().sum() for number, r in enumerate(tensors_in(results)))
    assert isinstance(total, Tensor)
    return torch.autograd.grad(total, wanted)


def assert_same_bits(actual: Any, expected: Any) -> None:
    ours, theirs = tensors_in(actual), tensors_in(expected)
    assert len(ours) == len(theirs)
    for number, (a, e) in enumerate(zip(ours, theirs, strict=True)):
        assert a.dtype == e.dtype
        assert torch.equal(a, e), f"result {number}: {(a - e).abs().max()} apart"


def run_both(graph: Any, layer: Any, call: dict[str, Any]) -> None:
    """The same bits from a graph and from the layer, with the same draws."""
    found = []
    leaves = [t for t in tensors_in(call) if t.requires_grad]
    for run in (graph, layer):
        torch.manual_seed(8)
        results = run(**call)
        found.append([results, gradients(results, [*leaves, *layer.parameters()])])
    assert_same_bits(found[0], found[1])


# "eager" runs the graph as it was traced, "aot_eager" the traced backward too.
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", LAYERS)
def test_one_whole_graph_gives_the_bits_of_eager_at_any_size(name: str, backend: str) -> None:
    kind, options = LAYERS[name]
    for training in (True, False) if name == "everything" else (backend == "aot_eager",):
        layer = make_layer(kind, **options).train(training)
        torch._dynamo.reset()
        graph = torch.compile(layer, fullgraph=True, dynamic=True, backend=backend)
        for number, (batch, time) in enumerate(SIZES):
            with torch._dynamo.config.patch(error_on_recompile=number > 0):
                run_both(graph, layer, call_of(layer, batch, time))


def test_time_of_changing_length_is_traced_twice_at_most() -> None:
    layer = make_layer("GRU")
    graph = torch.compile(layer, fullgraph=True, backend="eager")
    with torch.no_grad():
        graph(torch.randn(4, 6, INPUT))
        graph(torch.randn(9, 6, INPUT))
        with torch._dynamo.config.patch(error_on_recompile=True):
            for time in (2, 5, 70):
                x = torch.randn(time, 6, INPUT)
                assert_same_bits(graph(x), layer(x))


def test_calls_of_every_form() -> None:
    layer = make_layer("LSTM", bidirectional=True)
    graph = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(7, 2, INPUT)
    assert_same_bits(graph(x), layer(x))
    assert_same_bits(graph(x[:, 0]), layer(x[:, 0]))
    assert_same_bits(graph(x[:0]), layer(x[:0]))
    assert_same_bits(graph(x.transpose(0, 1)), layer(x.transpose(0, 1)))
    with torch.no_grad():
        assert_same_bits(graph(x), layer(x))
    with torch.inference_mode():
        assert_same_bits(graph(x), layer(x))
    with torch.autocast("cpu"):
        assert_same_bits(graph(x), layer(x))
        assert graph(x)[0].dtype == torch.bfloat16
    layer.requires_grad_(False)
    layer.weight_hh_l0.requires_grad_()
    run = [gradients(f(x), [layer.weight_hh_l0]) for f in (graph, layer)]
    assert_same_bits(run[0], run[1])


def test_parametrizations_are_seen() -> None:
    class Halved(torch.nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 0.5 * weight

    layer = make_layer("GRU")
    x = torch.randn(7, 2, INPUT)
    before = layer(x)[0]
    parametrize.register_parametrization(layer, "weight_hh_l0", Halved())
    graph = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_same_bits(graph(x), layer(x))
    assert not torch.equal(graph(x)[0], before)
    assert_same_bits(
        gradients(graph(x), list(layer.parameters())), gradients(layer(x), list(layer.parameters()))
    )


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells(kind: str) -> None:
    cell = make_layer(kind)
    graph = torch.compile(cell, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (7, 2):
        x = torch.randn(batch, INPUT)
        with torch.no_grad():
            state = cell(x)
        for hx in (None, state):
            results, expected = graph(x, hx), cell(x, hx)
            assert_same_bits(results, expected)
            wanted = list(cell.parameters())
            assert_same_bits(gradients(results, wanted), gradients(expected, wanted))
    with torch.no_grad():
        x = torch.randn(INPUT)
        assert_same_bits(graph(x, cell(x)), cell(x, cell(x)))


def test_inductor_gives_the_bits_of_eager() -> None:
    layer = make_layer("GRU")

    def run(**call: Any) -> Tensor:
        output: Tensor = layer(**call)[0]
        return output

    graph = torch.compile(run, fullgraph=True, dynamic=True)
    for batch, time in SIZES[:2]:
        call = call_of(layer, batch, time)
        wanted = [call["input"], call["hx"], *layer.parameters()]
        output, expected = graph(**call), layer(**call)[0]
        assert_same_bits(output, expected)
        assert_same_bits(gradients(output, wanted), gradients(expected, wanted))


def test_lengths_out_of_range_are_refused_when_the_graph_runs() -> None:
    layer = make_layer("GRU")
    graph = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 3, INPUT)
    graph(x, lengths=torch.tensor([4, 0, 2]))
    with pytest.raises(ShapeError, match=r"GRU: lengths\[1\] is 5, but x has 4 time steps"):
        graph(x, lengths=torch.tensor([4, 5, 2]))


def test_wrong_arguments_say_so_while_tracing() -> None:
    graph = torch.compile(make_layer("GRU"), fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"x has 2 features.*input_size=3"):
        graph(torch.randn(4, 3, 2))


def test_transforms_inside_a_graph_run_on_the_reference() -> None:
    layer = make_layer("GRU")
    x = torch.randn(4, 2, INPUT)

    def d_x(x: Tensor) -> Tensor:
        found: Tensor = torch.func.grad(lambda x: layer(x)[0].square().sum())(x)
        return found

    graph = torch.compile(d_x, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(graph(x), d_x(x))


class Model(torch.nn.Module):
    """A layer between others, with every argument that it takes."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.head = torch.nn.Linear(2 * HIDDEN, 1)

    def forward(self, input: Tensor, hx: Any, lengths: Tensor, reset: Tensor) -> tuple[Tensor, Any]:
        output, final = self.layer(input.tanh(), hx, lengths=lengths, reset=reset)
        return self.head(output), final


def exported_model(strict: bool = False) -> tuple[Model, Any]:
    model = Model(make_layer("LSTM", num_layers=2, bidirectional=True, batch_first=True))
    batch, time = Dim("batch"), Dim("time")
    free = {
        "input": {0: batch, 1: time},
        "hx": ({1: batch}, {1: batch}),
        "lengths": {0: batch},
        "reset": {0: batch, 1: time},
    }
    call = call_of(model.layer, 7, 9)
    return model, torch.export.export(model, (), call, dynamic_shapes=free, strict=strict)


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_exported_programs_take_any_size_and_train(strict: bool) -> None:
    model, program = exported_model(strict)
    module = program.module()
    for batch, time in [*SIZES, (1, 1), (3, 40)]:
        call = call_of(model.layer, batch, time)
        results, expected = module(**call), model(**call)
        assert_same_bits(results, expected)
        own = dict(module.named_parameters())
        assert_same_bits(
            gradients(results, [call["input"], *(own[n] for n, _ in model.named_parameters())]),
            gradients(expected, [call["input"], *model.parameters()]),
        )


def test_exported_programs_hold_neither_level_nor_slab() -> None:
    _, program = exported_model()
    for graph in (program.graph, program.run_decompositions().graph):
        ours = [node for node in graph.nodes if "recurra" in str(node.target)]
        assert [str(node.target) for node in ours] == ["recurra.recurrence.default"] * 2
        assert not any(level in str(node.args) for node in ours for level in core.module.levels())


def test_saved_programs_load_where_the_layers_were_imported(tmp_path: Path) -> None:
    model, program = exported_model()
    torch.export.save(program, tmp_path / "model.pt2")
    call = call_of(model.layer, 4, 6)
    with torch.no_grad():
        expected = model(**call)
    torch.save({"call": call, "expected": expected}, tmp_path / "call.pt")
    code = f"""
import torch
torch.set_num_threads(1)
from recurra import nn
saved = torch.load({str(tmp_path / "call.pt")!r})
model = torch.export.load({str(tmp_path / "model.pt2")!r}).module()
output, (h, c) = model(**saved["call"])
expected, (h_n, c_n) = saved["expected"]
print(torch.equal(output, expected), torch.equal(h, h_n), torch.equal(c, c_n))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 3
