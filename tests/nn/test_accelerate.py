"""accelerate: same numbers, same objects, everything that hangs on a module, and clear reasons."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import recurra
from recurra import nn
from recurra.errors import ConfigError
from recurra.kernels import dispatch, reference

TIME, BATCH, INPUT, HIDDEN = 6, 4, 3, 5
LAYERS = [
    torch.nn.RNN(INPUT, HIDDEN, 2, nonlinearity="relu", batch_first=True),
    torch.nn.RNN(INPUT, HIDDEN, bias=False),
    torch.nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True, proj_size=2),
    torch.nn.LSTM(INPUT, HIDDEN, dtype=torch.float64),
    torch.nn.GRU(INPUT, HIDDEN, 2, batch_first=True, bidirectional=True, dropout=0.5),
    torch.nn.RNNCell(INPUT, HIDDEN, nonlinearity="relu"),
    torch.nn.LSTMCell(INPUT, HIDDEN, bias=False),
    torch.nn.GRUCell(INPUT, HIDDEN),
]


class Tagger(torch.nn.Module):
    """A model as people write them: layers inside modules, packing, a cell in a loop, a tie."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = torch.nn.Sequential(torch.nn.Linear(INPUT, INPUT), torch.nn.Dropout(0.0))
        self.encoder = torch.nn.ModuleDict(
            {"rnn": torch.nn.LSTM(INPUT, HIDDEN, batch_first=True, bidirectional=True)}
        )
        self.cell = torch.nn.GRUCell(2 * HIDDEN, HIDDEN)
        self.also = self.encoder["rnn"]

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.reader(x), lengths, True, enforce_sorted=False)
        self.also.flatten_parameters()
        output, (h_n, _) = self.encoder["rnn"](packed)
        assert isinstance(output, PackedSequence)
        h = None
        for part in (h_n.transpose(0, 1).flatten(1), output.data[:BATCH]):
            h = self.cell(part, h)
        return h


class Quick:
    """A stand-in for a fast backend: float32 only."""

    @staticmethod
    def why_not(cell, features, dtype, device) -> str | None:
        return None if dtype == torch.float32 else f"it has no {dtype}"

    run = staticmethod(reference.run)


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(dispatch, "BACKENDS", {"quick": Quick, "reference": reference})


def _tagger() -> tuple[Tagger, Tensor, Tensor]:
    torch.manual_seed(3)
    return Tagger(), torch.randn(BATCH, TIME, INPUT), torch.tensor([6, 2, 5, 4])


def _input(module: Any) -> Tensor:
    torch.manual_seed(4)
    time = () if "Cell" in type(module).__name__ else (TIME,)
    return torch.randn(*time, BATCH, INPUT, dtype=next(module.parameters()).dtype)


def _leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [x for part in value for x in _leaves(part)]


def _results(module: torch.nn.Module) -> list[Tensor]:
    """Outputs, final state and gradients of one call."""
    outputs = _leaves(module(_input(module)))
    torch.manual_seed(5)
    loss = sum((torch.randn(o.shape, dtype=o.dtype) * o).sum() for o in outputs)
    return [*outputs, *torch.autograd.grad(loss, list(module.parameters()))]


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_the_same_numbers_from_the_same_parameters(layer) -> None:
    module = copy.deepcopy(layer).eval()
    expected, parameters = _results(module), dict(module.named_parameters())
    keys = list(module.state_dict())
    module.weight_of_mine = "kept"
    report = recurra.accelerate(module, backend="reference")
    assert report.swapped == {"": "reference"}
    assert report.left == report.already == {}
    assert type(module) is getattr(nn, type(layer).__name__)
    assert list(module.state_dict()) == keys
    assert all(value is parameters[name] for name, value in module.named_parameters())
    assert module.weight_of_mine == "kept"
    assert module.training is False
    torch.testing.assert_close(_results(module), expected)
    for name in ("dropout", "bidirectional", "batch_first", "proj_size", "nonlinearity", "bias"):
        assert getattr(module, name, None) == getattr(layer, name, None)


def test_a_whole_model_with_an_optimizer_made_before() -> None:
    model, x, lengths = _tagger()
    twin = copy.deepcopy(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.1) for m in (model, twin)]
    model.cell.weight_hh.requires_grad_(False)
    twin.cell.weight_hh.requires_grad_(False)
    frozen = model.cell.weight_hh.clone()
    report = recurra.accelerate(model, backend="reference")
    assert report.swapped == dict.fromkeys(["encoder.rnn", "cell", "also"], "reference")
    assert str(report).splitlines() == [
        "encoder.rnn: LSTM(3, 5, batch_first=True, bidirectional=True) → swapped, runs on "
        "reference",
        "cell:        GRUCell(10, 5)                                   → swapped, runs on "
        "reference",
        "also:        LSTM(3, 5, batch_first=True, bidirectional=True) → the same module as "
        "encoder.rnn",
        "2 swapped, 0 left",
    ]
    now = dict(model.named_modules(remove_duplicate=False))
    assert all(now[name] is module for name, module in modules.items())
    assert model.also is model.encoder["rnn"]
    assert type(model.also) is nn.LSTM
    for _ in range(3):
        losses = []
        for each, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            loss = each(x, lengths).square().sum()
            loss.backward()
            optimizer.step()
            losses.append(loss)
        torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(model.state_dict(), twin.state_dict())
    assert torch.equal(model.cell.weight_hh, frozen)


def test_a_second_call_changes_nothing() -> None:
    model, _, _ = _tagger()
    recurra.accelerate(model, backend="reference")
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    report = recurra.accelerate(model)
    assert report.already == dict.fromkeys(["encoder.rnn", "cell", "also"], "reference")
    assert report.swapped == report.left == {}
    assert str(report).endswith("0 swapped, 0 left, 2 already recurra's")
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before


def test_auto_swaps_what_a_fast_backend_runs_and_leaves_the_rest(quick) -> None:
    model = torch.nn.ModuleList([torch.nn.GRU(3, 5), torch.nn.GRU(3, 5).double()])
    report = recurra.accelerate(model)
    assert report.swapped == {"0": "quick"}
    assert list(report.left) == ["1"]
    assert "no backend here is faster than torch's own code" in report.left["1"]
    assert "quick: it has no torch.float64" in report.left["1"]
    assert model[0].backend == "auto"
    assert type(model[1]) is torch.nn.GRU


@pytest.mark.parametrize("name", ["cudnn", "reference"])
def test_auto_leaves_what_would_gain_nothing(name, monkeypatch) -> None:
    monkeypatch.setattr(dispatch, "BACKENDS", {name: Quick})
    model = torch.nn.LSTM(3, 5)
    assert f"{name}: it " in recurra.accelerate(model).left[""]
    assert recurra.accelerate(model, backend=name).swapped == {"": name}


def test_a_backend_asked_for_by_name_that_cannot_run_leaves_the_module(quick) -> None:
    model = torch.nn.LSTMCell(3, 5).double()
    report = recurra.accelerate(model, backend="quick")
    assert report.left == {"": "backend 'quick' cannot run it: it has no torch.float64"}
    assert type(model) is torch.nn.LSTMCell


def test_a_module_whose_backend_cannot_run_it_any_more_says_so(quick) -> None:
    model = torch.nn.GRU(3, 5)
    recurra.accelerate(model, backend="quick")
    assert recurra.accelerate(model.double()).already == {"": "no backend"}


def test_hooks_of_every_kind_go_on_and_can_be_removed() -> None:
    model = torch.nn.LSTM(INPUT, HIDDEN)
    seen: list[str] = []

    def note(name):
        return lambda *arguments, **named: seen.append(name)

    def with_module(module, *_):
        seen.append(type(module).__name__)

    handles = [
        model.register_forward_pre_hook(note("pre"), with_kwargs=True),
        model.register_forward_hook(note("forward"), always_call=True),
        model.register_full_backward_hook(note("backward")),
        model.register_full_backward_pre_hook(note("backward pre")),
        model.register_state_dict_pre_hook(note("state_dict pre")),
        model.register_load_state_dict_pre_hook(with_module),
        model.register_load_state_dict_post_hook(note("loaded")),
    ]
    model.register_state_dict_post_hook(note("state_dict"))
    recurra.accelerate(model, backend="reference")
    output, _ = model(torch.randn(TIME, BATCH, INPUT, requires_grad=True))
    output.sum().backward()
    model.load_state_dict(model.state_dict())
    assert seen == [
        "pre",
        "forward",
        "backward pre",
        "backward",
        "state_dict pre",
        "state_dict",
        "LSTM",
        "loaded",
    ]
    for handle in handles:
        handle.remove()
    seen.clear()
    model.load_state_dict(model.state_dict())
    model(torch.randn(TIME, BATCH, INPUT))
    assert seen == ["state_dict"]


def _norm_as_before(layer: torch.nn.Module) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(layer, "weight_hh_l0")


REWORKED = {
    "weight_norm": lambda layer: parametrizations.weight_norm(layer, "weight_hh_l0"),
    "orthogonal": lambda layer: parametrizations.orthogonal(layer, "weight_hh_l0"),
    "two": lambda layer: parametrizations.spectral_norm(
        parametrizations.weight_norm(layer, "weight_ih_l0_reverse"), "weight_hh_l0"
    ),
    "weight_norm, old form": _norm_as_before,
    "spectral_norm, old form": lambda layer: torch.nn.utils.spectral_norm(layer, "weight_ih_l0"),
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight_hh_l0", 0.5),
}


@pytest.mark.parametrize("rework", REWORKED.values(), ids=REWORKED)
@pytest.mark.parametrize("kind", ["RNN", "GRU"])
def test_reworked_weights_stay_in_force(kind, rework) -> None:
    torch.manual_seed(6)
    model = rework(getattr(torch.nn, kind)(INPUT, HIDDEN, bidirectional=True)).train()
    buffers = copy.deepcopy(dict(model.named_buffers()))
    keys = list(model.state_dict())
    report = recurra.accelerate(model, backend="reference")
    assert list(report.swapped) == [""]
    assert isinstance(model, getattr(nn, kind))
    assert list(model.state_dict()) == keys
    # Nothing was read that changes when it is read in training, and all modes are as before.
    torch.testing.assert_close(dict(model.named_buffers()), buffers)
    assert all(module.training for module in model.modules())

    torch.manual_seed(6)
    theirs = rework(getattr(torch.nn, kind)(INPUT, HIDDEN, bidirectional=True)).eval()
    theirs.load_state_dict(model.state_dict())
    expected = _results(theirs)
    torch.testing.assert_close(_results(model.eval()), expected)


def test_parametrizations_can_be_removed_and_copied_after_the_swap() -> None:
    model = parametrizations.weight_norm(torch.nn.GRU(INPUT, HIDDEN), "weight_hh_l0")
    recurra.accelerate(model, backend="reference")
    expected = model(_input(model))
    torch.testing.assert_close(copy.deepcopy(model)(_input(model)), expected)
    parametrize.remove_parametrizations(model, "weight_hh_l0")
    assert type(model) is nn.GRU
    torch.testing.assert_close(model(_input(model)), expected)


def test_copies_and_files_after_the_swap(tmp_path) -> None:
    model, x, lengths = _tagger()
    file = tmp_path / "before.safetensors"
    del model.also
    model.also = model.encoder["rnn"]
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("also.")}
    save_file(state, file)
    expected = model(x, lengths)
    recurra.accelerate(model, backend="reference")
    twin = copy.deepcopy(model)
    assert twin.also is twin.encoder["rnn"]
    torch.testing.assert_close(twin(x, lengths), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    twin.load_state_dict(load_file(file), strict=False)
    torch.testing.assert_close(twin(x, lengths), expected)
    torch.testing.assert_close(model(x, lengths), expected)
    untouched, _, _ = _tagger()
    untouched.load_state_dict(model.state_dict())
    torch.testing.assert_close(untouched.double()(x.double(), lengths), expected.double())
    recurra.accelerate(untouched, backend="reference")
    torch.testing.assert_close(untouched.float()(x, lengths), expected)
    file = tmp_path / "whole.pt"
    torch.save(model, file)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x, lengths), expected)


def test_what_code_for_torch_touches_is_there() -> None:
    model = torch.nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True, proj_size=2)
    expected = [[parameter.clone() for parameter in row] for row in model.all_weights]
    recurra.accelerate(model, backend="reference")
    model.flatten_parameters()
    assert [[model.get_parameter(n) for n in row] for row in model._all_weights] == [
        list(row) for row in model.all_weights
    ]
    torch.testing.assert_close(model.all_weights, expected)
    assert (model.mode, model.proj_size, model.num_layers) == ("LSTM", 2, 2)
    # The usual way to begin with open forget gates.
    with torch.no_grad():
        for names in model._all_weights:
            for name in (name for name in names if "bias" in name):
                getattr(model, name)[HIDDEN : 2 * HIDDEN].fill_(1.0)
    assert model.bias_hh_l1_reverse[HIDDEN:].max() == 1.0
    names = [name for name in vars(model) if isinstance(vars(model)[name], Tensor | list)]
    assert "_flat_weights" not in names


def test_functional_call_and_replaced_parameters_are_seen() -> None:
    model = torch.nn.GRU(INPUT, HIDDEN)
    recurra.accelerate(model, backend="reference")
    x = _input(model)
    zeros = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    assert torch.func.functional_call(model, zeros, (x,))[0].abs().max() == 0
    assert model(x)[0].abs().max() > 0
    for name, value in zeros.items():
        setattr(model, name, torch.nn.Parameter(value))
    assert model(x)[0].abs().max() == 0


def test_tied_parameters_stay_tied() -> None:
    model = torch.nn.ModuleList([torch.nn.GRU(INPUT, HIDDEN), torch.nn.GRU(INPUT, HIDDEN)])
    model[1].weight_hh_l0 = model[0].weight_hh_l0
    recurra.accelerate(model, backend="reference")
    assert model[1].weight_hh_l0 is model[0].weight_hh_l0
    assert len(list(model.parameters())) == 7


def test_dropout_is_drawn_as_by_recurras_own_layer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = torch.nn.GRU(INPUT, HIDDEN, dropout=0.5)
    model = torch.nn.ModuleList([alone, torch.nn.GRU(INPUT, HIDDEN, 2, dropout=1.0)])
    # Warnings are errors here: torch has given its own for the single layer already.
    assert len(recurra.accelerate(model, backend="reference").swapped) == 2
    assert [layer.dropout for layer in model] == [0.5, 1.0]
    model[1].bias_ih_l1 = torch.nn.Parameter(torch.zeros(3 * HIDDEN))
    model[1].bias_hh_l1 = torch.nn.Parameter(torch.zeros(3 * HIDDEN))
    assert model[1](_input(model[1]))[0].abs().max() == 0
    assert model[1].eval()(_input(model[1]))[0].abs().max() > 0


class Special(torch.nn.LSTM):
    """Somebody's own."""


def _lazy() -> torch.nn.Module:
    model = torch.nn.GRU(INPUT, HIDDEN)
    model.weight_ih_l0 = torch.nn.parameter.UninitializedParameter()
    return model


def _replaced() -> torch.nn.Module:
    model = torch.nn.GRU(INPUT, HIDDEN)
    model.forward = lambda x: x
    return model


def _with(**attributes: Any) -> torch.nn.Module:
    model = torch.nn.GRU(INPUT, HIDDEN)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def _quantized() -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(
            torch.nn.Sequential(torch.nn.LSTM(INPUT, HIDDEN)), {torch.nn.LSTM}
        )[0]


def _scripted() -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(torch.nn.GRU(INPUT, HIDDEN))


class Strange(torch.Tensor):
    """A kind of tensor that kernels know nothing of."""


def _strange() -> torch.nn.Module:
    model = torch.nn.GRU(INPUT, HIDDEN)
    value = model.weight_hh_l0.detach().as_subclass(Strange)
    model.weight_hh_l0 = torch.nn.Parameter(value)
    return model


LEFT = {
    "subclass": (lambda: Special(3, 5), "Special is a subclass of torch.nn.LSTM"),
    "parametrized subclass": (
        lambda: parametrizations.orthogonal(Special(3, 5), "weight_hh_l0"),
        "ParametrizedSpecial is a subclass of torch.nn.LSTM",
    ),
    "meta": (lambda: torch.nn.GRU(3, 5, device="meta"), "on the meta device"),
    "lazy": (_lazy, "not initialised yet"),
    "forward": (_replaced, "its forward was replaced"),
    "quantized": (_quantized, "torch.ao.nn.quantized.dynamic.modules.rnn.LSTM"),
    "scripted": (_scripted, "compiled by TorchScript"),
    "strange": (_strange, "its weight_hh_l0 is a Strange"),
    "settings": (
        lambda: _with(hidden_size=7),
        "its weight_ih_l0 has shape (15, 3), but its settings say (21, 3)",
    ),
    "impossible": (lambda: _with(num_layers=0), "num_layers is 0"),
    "mixed": (
        lambda: _with(bias_hh_l0=torch.nn.Parameter(torch.zeros(15).double())),
        "torch.float32 on cpu, torch.float64 on cpu",
    ),
    "missing": (lambda: _with(bias_hh_l0=None), "its bias_hh_l0 is a NoneType"),
    "taken": (lambda: _with(cells=[1]), "attribute 'cells'"),
    "taken by a module": (lambda: _with(init=torch.nn.Linear(1, 1)), "attribute 'init'"),
}


@pytest.mark.parametrize(("make", "reason"), LEFT.values(), ids=LEFT)
def test_what_is_left_stays_as_it_was_and_says_why(make, reason) -> None:
    module = make()
    model = torch.nn.Sequential(module, torch.nn.RNNCell(3, 5))
    cls, before = type(module), dict(vars(module))
    report = recurra.accelerate(model, backend="reference")
    assert list(report.swapped) == ["1"]
    assert list(report.left) == ["0"]
    assert reason in report.left["0"]
    assert f"→ left: {report.left['0']}" in str(report)
    assert type(module) is cls
    assert dict(vars(module)) == before


def test_the_inside_of_a_subclass_is_swapped() -> None:
    model = Special(3, 5)
    model.extra = torch.nn.GRU(3, 5)
    report = recurra.accelerate(model, backend="reference")
    assert list(report.left) == [""]
    assert list(report.swapped) == ["extra"]
    assert str(report).startswith("(model): Special(3, 5) → left: Special is a subclass")


def test_a_model_without_recurrent_layers_says_so() -> None:
    report = recurra.accelerate(torch.nn.Linear(3, 5))
    assert report.lines == ()
    assert str(report) == "Linear: it has no torch.nn.RNN, LSTM or GRU, and no cell of theirs"


def test_wrong_arguments_are_refused_before_anything_is_swapped() -> None:
    with pytest.raises(ConfigError, match=r"model is a list, but must be a torch\.nn\.Module"):
        recurra.accelerate([torch.nn.GRU(3, 5)])
    model = torch.nn.GRU(3, 5)
    with pytest.raises(ConfigError, match=r"unknown backend 'referense'; did you mean 'reference'"):
        recurra.accelerate(model, backend="referense")
    assert type(model) is torch.nn.GRU
