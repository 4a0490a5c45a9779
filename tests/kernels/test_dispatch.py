"""Dispatch: the first that can, or a reason; autocast in one dtype; nothing in silence."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from recurra.cells.cell import Masks, Params
from recurra.cells.elman import Elman
from recurra.cells.gru import GRU
from recurra.cells.lstm import LSTM
from recurra.errors import BackendError, ConfigError
from recurra.kernels import core, dispatch, reference
from recurra.kernels.sequence import Features, Sequence, Zoneout

CPU = torch.device("cpu")
PLAIN = Features(batch=2, time=3)


@pytest.mark.skipif(core.module is None, reason="the compiled core is not built here")
def test_auto_takes_the_kernels_on_the_cpu() -> None:
    assert dispatch.select("auto", GRU(2, 3), PLAIN, torch.float32, CPU) == "cpu"


def test_auto_takes_the_reference_where_the_core_is_missing(monkeypatch) -> None:
    monkeypatch.setattr(core, "module", None)
    assert dispatch.select("auto", GRU(2, 3), PLAIN, torch.float32, CPU) == "reference"


def test_auto_prefers_cudnn_on_cuda_and_passes_it_over_where_it_cannot() -> None:
    cuda = torch.device("cuda")
    assert dispatch.select("auto", GRU(2, 3), PLAIN, torch.float32, cuda) == "cudnn"
    original = GRU(2, 3, reset_after=False)
    assert dispatch.select("auto", original, PLAIN, torch.float32, cuda) == "reference"


def test_a_backend_asked_for_by_name_that_cannot_says_why() -> None:
    with pytest.raises(BackendError, match=r"'cudnn' cannot run this GRU: it needs a CUDA device"):
        dispatch.select("cudnn", GRU(2, 3), PLAIN, torch.float32, CPU)


def test_unknown_backend_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"'cudn'; did you mean 'cudnn'\?.*'auto'.*'reference'"):
        dispatch.select("cudn", GRU(2, 3), PLAIN, torch.float32, CPU)


def test_reasons_name_every_backend() -> None:
    reasons = dispatch.reasons(GRU(2, 3), PLAIN, torch.float32, CPU)
    assert list(reasons) == list(dispatch.BACKENDS)
    assert reasons["reference"] is None
    assert "x is on cpu" in str(reasons["cudnn"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_runs_the_whole_recurrence_in_its_dtype(dtype) -> None:
    cell = LSTM(3, 4)
    params = {name: torch.randn(shape) for name, shape in cell.parameter_shapes().items()}
    params = {name: value.requires_grad_() for name, value in params.items()}
    state = cell.make_state(torch.randn(2, 4), torch.randn(2, 4))
    x, mask = torch.randn(2, 5, 3), Masks(torch.ones(2, 4))
    zoneout = Zoneout((torch.zeros(2, 5, 4), 0.1))
    reset = torch.zeros(2, 5, dtype=torch.bool)
    reset[0, 3] = True
    call = Sequence(cell, x, params, state, reset=reset, masks=mask, zoneout=zoneout)
    with torch.autocast("cpu", dtype):
        output, final = dispatch.run(call)
        assert torch.is_autocast_enabled("cpu")
    for value in (output, *final):
        assert value.dtype == dtype
    exact, _ = dispatch.run(call)
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.05)
    output.float().sum().backward()
    assert all(value.grad.dtype == torch.float32 for value in params.values())


def test_autocast_is_off_inside_the_recurrence() -> None:
    seen = []

    class Watching(Elman):
        def project(self, x: Tensor, params: Params) -> Tensor:
            seen.append((torch.is_autocast_enabled("cpu"), x.dtype, params["weight_ih"].dtype))
            return super().project(x, params)

    cell = Watching(3, 4)
    params = {name: torch.randn(shape) for name, shape in cell.parameter_shapes().items()}
    with torch.autocast("cpu", torch.bfloat16):
        dispatch.run(Sequence(cell, torch.randn(2, 5, 3), params))
    assert seen == [(False, torch.bfloat16, torch.bfloat16)]


def test_autocast_leaves_float64_alone() -> None:
    cell = GRU(3, 4)
    params = {
        name: torch.randn(shape, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }
    call = Sequence(cell, torch.randn(2, 5, 3, dtype=torch.float64), params)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = dispatch.run(call)
    assert torch.equal(output, dispatch.run(call)[0])


def _directions(cell: GRU, batch_first: bool = True) -> list[Sequence]:
    torch.manual_seed(4)
    x = torch.randn(2, 5, 3) if batch_first else torch.randn(5, 2, 3)
    calls = []
    for reverse in (False, True):
        params = {name: torch.randn(shape) for name, shape in cell.parameter_shapes().items()}
        calls.append(Sequence(cell, x, params, batch_first=batch_first, reverse=reverse))
    return calls


@pytest.mark.parametrize("batch_first", [True, False])
def test_directions_come_out_side_by_side_with_a_state_each(batch_first) -> None:
    calls = _directions(GRU(3, 4), batch_first)
    output, states = dispatch.run_together(calls, "reference")
    assert output.shape == ((2, 5, 8) if batch_first else (5, 2, 8))
    for call, part, state in zip(calls, output.split(4, -1), states, strict=True):
        alone, own = dispatch.run(call, "reference")
        assert torch.equal(part, alone)
        assert torch.equal(state.h, own.h)


def test_a_backend_that_can_gets_all_directions_at_once(monkeypatch) -> None:
    seen = []

    def run_together(calls):
        seen.append(len(calls))
        return torch.zeros(1), ["first", "second"]

    both = SimpleNamespace(
        why_not=lambda cell, features, dtype, device: "it is short" if features.reset else None,
        run=reference.run,
        run_together=run_together,
    )
    monkeypatch.setattr(dispatch, "BACKENDS", {"both": both, "reference": reference})
    forward, backward = _directions(GRU(3, 4))
    _, states = dispatch.run_together([forward, backward])
    assert (seen, states) == ([2], ["first", "second"])

    dispatch.run_together([forward])
    dispatch.run_together([forward, backward], "reference")
    resetting = backward._replace(reset=torch.zeros(2, 5, dtype=torch.bool))
    output, states = dispatch.run_together([forward, resetting])
    assert seen == [2], "one call, or two on different backends, are not run together"
    assert torch.equal(output[..., 4:], dispatch.run(backward, "reference")[0])
    with pytest.raises(BackendError, match="'both' cannot run this GRU: it is short"):
        dispatch.run_together([forward, resetting], "both")


def test_autocast_casts_directions_once_and_is_off_inside(monkeypatch) -> None:
    seen = []

    def run_together(calls):
        seen.extend((call.x, call.params["weight_hh"].dtype) for call in calls)
        assert not torch.is_autocast_enabled("cpu")
        return reference.run(calls[0])[0], []

    both = SimpleNamespace(why_not=reference.why_not, run_together=run_together)
    monkeypatch.setattr(dispatch, "BACKENDS", {"both": both})
    with torch.autocast("cpu", torch.bfloat16):
        dispatch.run_together(_directions(GRU(3, 4)))
    (x, dtype), (other, _) = seen
    assert x is other
    assert x.dtype == dtype == torch.bfloat16


@pytest.mark.parametrize("wanted", [False, True])
def test_parameters_are_found_by_name_whatever_their_order(wanted) -> None:
    call = _directions(GRU(3, 4))[0]
    params = {name: value.requires_grad_(wanted) for name, value in call.params.items()}
    turned = dict(reversed(params.items()))
    straight, _ = dispatch.run(call._replace(params=params))
    output, _ = dispatch.run(call._replace(params=turned))
    assert torch.equal(output, straight)
    if wanted:
        names = list(params)
        expected = torch.autograd.grad(straight.sum(), [params[name] for name in names])
        found = torch.autograd.grad(output.sum(), [turned[name] for name in names])
        assert all(map(torch.equal, found, expected))
