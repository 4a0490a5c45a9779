"""mLSTM: the equation without stabiliser, the paper's parallel form, and a memory that recalls."""

from __future__ import annotations

import math

import pytest
import torch

from recurra.cells.mlstm import MLSTM, MLSTMState
from recurra.errors import ConfigError


def _params(cell: MLSTM, seed: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=rng, dtype=torch.float64)
        for name, shape in cell.parameter_shapes().items()
    }


def _run(cell: MLSTM, params, x: torch.Tensor, state=None) -> tuple[torch.Tensor, MLSTMState]:
    state = cell.initial_state(x.shape[0], params) if state is None else state
    outputs, step = [], cell.bind(params)
    for projected_t in cell.project(x, params).unbind(1):
        output, state = step(projected_t, state)
        outputs.append(output)
    return torch.stack(outputs, 1), state


def _raw(cell: MLSTM, params, x: torch.Tensor) -> list[torch.Tensor]:
    """q k v o (T, H) and i f (T, heads) of one row, before any gate's function."""
    stacked = x @ params["weight_ih"].T
    if cell.bias:
        stacked = stacked + params["bias_ih"]
    return list(stacked.split([cell.hidden_size] * 4 + [cell.num_heads] * 2, dim=1))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_stabiliser_does_not_change_h(heads, forget_gate, bias) -> None:
    cell = MLSTM(3, 4, bias, heads, forget_gate)
    params = _params(cell, seed=heads)
    x = torch.randn(1, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output, (c_n, n_n, m_n) = _run(cell, params, x)
    d = cell.head_size
    q, k, v, o, i, f = (part.tolist() for part in _raw(cell, params, x[0]))
    for head in range(heads):
        units = range(head * d, head * d + d)
        memory = [[0.0] * d for _ in range(d)]
        norm = [0.0] * d
        for t in range(9):
            write = math.exp(i[t][head])
            keep = math.exp(f[t][head])
            keep = keep / (1 + keep) if forget_gate == "sigmoid" else keep
            key = [k[t][unit] / math.sqrt(d) for unit in units]
            query = [q[t][unit] for unit in units]
            for b in range(d):
                norm[b] = keep * norm[b] + write * key[b]
                for a in range(d):
                    memory[a][b] = keep * memory[a][b] + write * v[t][units[a]] * key[b]
            below = max(abs(sum(norm[b] * query[b] for b in range(d))), 1.0)
            for a, unit in enumerate(units):
                gate = 1 / (1 + math.exp(-o[t][unit]))
                expected = gate * sum(memory[a][b] * query[b] for b in range(d)) / below
                assert float(output[0, t, unit]) == pytest.approx(expected, rel=1e-10, abs=1e-12)
        scale = math.exp(m_n[0, head])
        held = c_n[0].view(heads, d, d)[head] * scale
        torch.testing.assert_close(held, torch.tensor(memory).double(), rtol=1e-5, atol=1e-5)
        kept = n_n[0].view(heads, d)[head] * scale
        torch.testing.assert_close(kept, torch.tensor(norm).double(), rtol=1e-5, atol=1e-5)


def parallel_form(cell: MLSTM, params, x: torch.Tensor) -> torch.Tensor:
    """All outputs (T, H) of one row as the paper computes them in training, like attention."""
    q, k, v, o, i, f = _raw(cell, params, x)
    log_f = torch.log(torch.sigmoid(f)) if cell.forget_gate == "sigmoid" else f
    heads = []
    for head in range(cell.num_heads):
        own = slice(head * cell.head_size, (head + 1) * cell.head_size)
        sums = log_f[:, head].cumsum(0)
        decay = sums.unsqueeze(1) - sums.unsqueeze(0) + i[:, head].unsqueeze(0)
        decay = decay.masked_fill(torch.ones_like(decay).triu(1).bool(), -torch.inf)
        largest = decay.max(1, keepdim=True).values
        scores = q[:, own] @ k[:, own].T / math.sqrt(cell.head_size) * torch.exp(decay - largest)
        below = torch.maximum(scores.sum(1, keepdim=True).abs(), torch.exp(-largest))
        heads.append(scores / below @ v[:, own])
    return torch.sigmoid(o) * torch.cat(heads, 1)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_steps_are_the_parallel_form_of_the_paper(heads, forget_gate) -> None:
    cell = MLSTM(3, 6, num_heads=heads, forget_gate=forget_gate)
    params = _params(cell)
    x = torch.randn(2, 30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    output, _ = _run(cell, params, x)
    for row in range(2):
        torch.testing.assert_close(output[row], parallel_form(cell, params, x[row]))


def test_a_query_recalls_the_value_written_with_its_key() -> None:
    cell = MLSTM(8, 4, bias=True)
    keys, values = torch.eye(4).double(), torch.randn(4, 4, dtype=torch.float64)
    weight = torch.zeros(18, 8, dtype=torch.float64)
    weight[:4, :4] = weight[4:8, :4] = torch.eye(4)
    weight[4:8, :4] *= math.sqrt(4)
    weight[8:12, 4:] = torch.eye(4)
    bias = torch.zeros(18, dtype=torch.float64)
    bias[12:16], bias[17] = 40.0, 40.0  # o and f are 1
    params = {"weight_ih": weight, "bias_ih": bias}
    _, state = _run(cell, params, torch.cat([keys, values], 1).unsqueeze(0))
    for key, value in zip(keys, values, strict=True):
        asked = torch.cat([key, torch.zeros(4).double()]).expand(1, 1, 8)
        # What is written while asking has the value 0, and doubles the weight of the key.
        recalled, _ = _run(cell, params, asked, state)
        torch.testing.assert_close(recalled[0, 0], value / 2)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e8])
def test_extreme_gates_give_finite_values_and_gradients(forget_gate, size) -> None:
    cell = MLSTM(3, 2, False, 1, forget_gate)
    weight = torch.zeros(10, 3)
    weight[:8, 0], weight[8, 1], weight[9, 2] = 0.7, 1.0, 1.0
    params = {"weight_ih": weight.requires_grad_()}
    x = torch.ones(5, 3, 3)
    signs = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)] + [[1.0, 1.0]])
    x[:, :, 1:] = size * signs.unsqueeze(1)
    x[:, 1, 1:] *= -1
    x[4, :, 0] = 0.0  # queries, keys and values of 0
    output, state = _run(cell, params, x)
    for value in (output, *state):
        assert value.isfinite().all()
    assert not output[4].any()
    output.sum().backward()
    assert params["weight_ih"].grad.isfinite().all()


def test_two_thousand_steps_in_float32() -> None:
    cell = MLSTM(3, 8, num_heads=2)
    exact = {name: torch.empty(s).double() for name, s in cell.parameter_shapes().items()}
    torch.manual_seed(0)
    cell.draw(exact)
    x = torch.randn(2, 2000, 3, dtype=torch.float64)
    output, state = _run(cell, {name: value.float() for name, value in exact.items()}, x.float())
    expected, _ = _run(cell, exact, x)
    assert all(part.isfinite().all() for part in state)
    # The gates are the same at all steps, and so is the rounding of what they keep.
    largest = float(expected.abs().max())
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_weights_are_drawn_as_the_authors_do(forget_gate) -> None:
    cell = MLSTM(10, 400, num_heads=4, forget_gate=forget_gate)
    params = {name: torch.full(s, 9.0) for name, s in cell.parameter_shapes().items()}
    torch.manual_seed(0)
    cell.draw(params)
    assert float(params["weight_ih"][:1600].std()) == pytest.approx(0.2, rel=0.02)
    assert not params["weight_ih"][1600:].any()
    rest, i, f = params["bias_ih"].split([1600, 4, 4])
    assert not rest.any()
    assert 0 < float(i.abs().max()) < 0.5
    gates = torch.sigmoid(f) if forget_gate == "sigmoid" else torch.exp(f)
    torch.testing.assert_close(gates, torch.sigmoid(torch.tensor([3.0, 4.0, 5.0, 6.0])))
    MLSTM(2, 3, bias=False).draw({"weight_ih": torch.zeros(14, 2)})


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mLSTM: num_heads=3 does not divide hidden_size=4"):
        MLSTM(3, 4, num_heads=3)
    with pytest.raises(ConfigError, match=r"unknown forget_gate 'sigmoids'"):
        MLSTM(3, 4, forget_gate="sigmoids")
