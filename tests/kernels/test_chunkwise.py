"""chunkwise: the step's numbers whatever the chunk, NaN where the step has it, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.cells.gru import GRU
from recurra.cells.mlstm import MLSTM, MLSTMState
from recurra.errors import BackendError
from recurra.kernels import chunkwise, dispatch
from recurra.kernels.sequence import Features, Sequence, Zoneout, check_lengths

CELL = MLSTM(3, 6, num_heads=2)


def _params(cell: MLSTM = CELL, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {
        name: (0.6 * torch.randn(shape, generator=rng, dtype=torch.float64)).to(dtype)
        for name, shape in cell.parameter_shapes().items()
    }


def _both(sequence: Sequence) -> list[tuple[torch.Tensor, ...]]:
    results = [dispatch.run(sequence, name) for name in ("chunkwise", "reference")]
    return [(output, *final) for output, final in results]


@settings(max_examples=40, deadline=None)
@given(
    time=st.integers(0, 23),
    chunk=st.integers(1, 9),
    reverse=st.booleans(),
    ragged=st.booleans(),
    resets=st.sampled_from([0.0, 0.1, 0.6]),
    given_state=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_number_of_steps_in_any_chunks_is_step_by_step(
    time, chunk, reverse, ragged, resets, given_state, seed
) -> None:
    rng = torch.Generator().manual_seed(seed)
    params = _params()
    x = torch.randn(3, time, 3, generator=rng, dtype=torch.float64)
    reset = torch.rand(3, time, generator=rng) < resets if resets else None
    lengths = torch.randint(0, time + 1, (3,), generator=rng) if ragged else None
    sizes = CELL.state_sizes().values()
    state = MLSTMState(*(torch.randn(3, s, generator=rng, dtype=torch.float64) for s in sizes))
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunkwise, "CHUNK", chunk)
        for backend in ("chunkwise", "reference"):
            leaves = [x, *params.values(), *state]
            leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
            call = Sequence(
                CELL,
                leaves[0],
                dict(zip(params, leaves[1:3], strict=True)),
                MLSTMState(*leaves[3:]) if given_state else None,
                lengths=None if lengths is None else check_lengths(lengths, 3, time, x.device, ""),
                reset=reset,
                reverse=reverse,
            )
            output, final = dispatch.run(call, backend)
            values = (output, *final)
            factors = torch.Generator().manual_seed(seed)
            total = sum(
                (v * torch.randn(v.shape, generator=factors, dtype=torch.float64)).sum()
                for v in values
            )
            found = [torch.zeros(())] * len(leaves)
            if total.requires_grad:
                found = torch.autograd.grad(total, leaves, materialize_grads=True)
            results.append((values, found))
    (values, found), (expected, true) = results
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-10)
    for left, right in zip(found, true, strict=True):
        largest = max(1.0, float(right.abs().max())) if right.numel() else 1.0
        torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-10 * largest)


def test_two_thousand_steps_in_float32() -> None:
    cell = MLSTM(8, 16, num_heads=2)
    exact = _params(cell)
    torch.manual_seed(0)
    cell.draw(exact)
    x = torch.randn(2, 2000, 8, dtype=torch.float64)
    short = {name: value.float() for name, value in exact.items()}
    output, final = dispatch.run(Sequence(cell, x.float(), short), "chunkwise")
    expected, _ = dispatch.run(Sequence(cell, x, exact), "reference")
    assert all(part.isfinite().all() for part in final)
    largest = float(expected.abs().max())
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("closed", [-1e3, -1e6, -1e30])
def test_a_closed_gate_takes_no_digits_from_the_others(closed) -> None:
    cell = MLSTM(3, 4, bias=False, forget_gate="exp")
    params = _params(cell)
    params["weight_ih"][-1] = torch.tensor([0.0, 0.0, 1.0])
    x = torch.randn(1, 60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[:, :, 2] = -0.1
    x[:, 30, 2] = closed
    # As if the row began there: the gate of the first step closes on nothing.
    expected, _ = dispatch.run(Sequence(cell, x[:, 30:], params), "reference")
    short = {name: value.float() for name, value in params.items()}
    output, _ = dispatch.run(Sequence(cell, x.float(), short), "chunkwise")
    torch.testing.assert_close(output[:, 31:].double(), expected[:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e8])
def test_extreme_gates_give_finite_values_and_gradients(forget_gate, size) -> None:
    cell = MLSTM(3, 2, False, 1, forget_gate)
    weight = torch.zeros(10, 3)
    weight[:8, 0], weight[8, 1], weight[9, 2] = 0.7, 1.0, 1.0
    x = torch.ones(5, 70, 3)
    signs = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)] + [[1.0, 1.0]])
    x[:, :, 1:] = size * signs.unsqueeze(1)
    x[:, 1::3, 1:] *= -1
    x[4, :, 0] = 0.0
    values = _both(Sequence(cell, x, {"weight_ih": weight.requires_grad_()}))
    for result in values[0]:
        assert result.isfinite().all()
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)
    values[0][0].sum().backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_no_number_spoils_the_steps_after_it_up_to_a_reset(bad, reverse) -> None:
    x = torch.randn(2, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[0, 5] = bad
    reset = torch.zeros(2, 12, dtype=torch.bool)
    reset[0, 2 if reverse else 8] = True
    x[1, 6] = bad
    reset[1, 6] = True  # before the step: what it reads itself is not forgiven
    values, expected = _both(Sequence(CELL, x, _params(), reset=reset, reverse=reverse))
    spoiled = range(3, 6) if reverse else range(5, 8)
    assert [t for t in range(12) if values[0][0, t].isnan().all()] == list(spoiled)
    assert values[0][1, 6].isnan().all()
    torch.testing.assert_close(values, expected, equal_nan=True)
    values, expected = _both(Sequence(CELL, x, _params(), reverse=reverse))
    assert all(part[0].isnan().all() for part in values[1:])
    torch.testing.assert_close(values, expected, equal_nan=True)


def test_a_state_that_is_no_number_ends_at_a_reset() -> None:
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    nothing = MLSTMState(*(torch.full((2, s), torch.nan) for s in CELL.state_sizes().values()))
    nothing = MLSTMState(*(part.double() for part in nothing))
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[:, 3] = True
    values, expected = _both(Sequence(CELL, x, _params(), nothing, reset=reset))
    assert values[0][:, :3].isnan().all()
    torch.testing.assert_close(values, expected, equal_nan=True)
    assert all(part.isfinite().all() for part in values[1:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_dtypes_are_computed_in_float32(dtype) -> None:
    params, x = _params(dtype=dtype), torch.randn(2, 300, 3).to(dtype)
    output, final = dispatch.run(Sequence(CELL, x, params), "chunkwise")
    assert {value.dtype for value in (output, *final)} == {dtype}
    wide = {name: value.float() for name, value in params.items()}
    exact = dispatch.run(Sequence(CELL, x.float(), wide), "chunkwise")
    for left, right in zip((output, *final), (exact[0], *exact[1]), strict=True):
        assert torch.equal(left, right.to(dtype))


def test_what_it_cannot_run_it_says() -> None:
    plain, device = Features(batch=2, time=7), torch.device("cpu")
    assert chunkwise.why_not(CELL, plain, torch.float32, device) is None
    assert chunkwise.why_not(GRU(3, 5), plain, torch.float32, device) == (
        "it runs mLSTM only, and the cell is GRU"
    )
    call = Sequence(CELL, torch.zeros(1, 2, 3).double(), _params(), zoneout=Zoneout((0.5,) * 3))
    with pytest.raises(BackendError, match="'chunkwise' cannot run this mLSTM: zoneout changes"):
        dispatch.run(call, "chunkwise")
    features = call.features()
    assert dispatch.select("auto", CELL, features, torch.float32, device) == "reference"
    assert dispatch.select("auto", CELL, plain, torch.float32, device) == "chunkwise"


def test_second_derivatives() -> None:
    cell = MLSTM(2, 2)
    params = {name: value.requires_grad_() for name, value in _params(cell).items()}
    x = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)

    def function(x, *values):
        named = dict(zip(params, values, strict=True))
        return dispatch.run(Sequence(cell, x, named), "chunkwise")[0]

    torch.autograd.gradgradcheck(function, (x, *params.values()), fast_mode=True)
