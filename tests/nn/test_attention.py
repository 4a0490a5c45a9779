from __future__ import annotations

import pytest
import torch

from recurra.errors import ConfigError
from recurra.nn.attention import KINDS, Attention, Kind


def made(kind: Kind, seed: int = 0) -> tuple[Attention, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(attention, values (3, 7, 5), lengths, queries (3, 4, 6))."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    attention = Attention(6, 5, kind)
    values = torch.randn(3, 7, 5, generator=rng)
    return attention, values, torch.tensor([7, 2, 4]), torch.randn(3, 4, 6, generator=rng)


def mask(lengths: torch.Tensor, places: int) -> torch.Tensor:
    return torch.arange(places) < lengths[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_weighted_mean_of_the_paper(kind: Kind) -> None:
    attention, values, lengths, queries = made(kind)
    context, weights = attention(queries, attention.prepare(values, mask(lengths, 7)))
    for row, length in enumerate(lengths.tolist()):
        memory = values[row, :length]
        for t in range(4):
            q = attention.query.weight @ queries[row, t]
            if kind == "multiplicative":
                scores = memory @ q / 5**0.5
            else:
                assert attention.key is not None
                assert attention.weight is not None
                keys = memory @ attention.key.weight.T + attention.key.bias
                scores = torch.tanh(keys + q) @ attention.weight
            expected = scores.softmax(0)
            torch.testing.assert_close(weights[row, t, :length], expected)
            assert not weights[row, t, length:].any()
            torch.testing.assert_close(context[row, t], expected @ memory)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers_are_close_to_the_training_path(kind: Kind) -> None:
    attention, values, lengths, queries = made(kind)
    trained = attention(queries, attention.prepare(values, mask(lengths, 7)))
    with torch.no_grad():
        exact = attention(queries, attention.prepare(values, mask(lengths, 7)))
    for one, other in zip(trained, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_bits_of_a_row_depend_on_the_row_alone(kind: Kind) -> None:
    rng = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    attention = Attention(33, 130, kind)
    values = torch.randn(9, 31, 130, generator=rng)
    queries = torch.randn(9, 3, 33, generator=rng)
    lengths = torch.tensor([31, 1, 5, 17, 30, 2, 9, 16, 8])
    values[~mask(lengths, 31)] = torch.nan
    context, weights = attention(queries, attention.prepare(values, mask(lengths, 31)))
    for row, length in enumerate(lengths.tolist()):
        memory = attention.prepare(values[row : row + 1, :length], mask(lengths[row, None], length))
        for t in range(3):
            alone, own = attention(queries[row : row + 1, t : t + 1], memory)
            assert torch.equal(alone[0, 0], context[row, t])
            assert torch.equal(own[0, 0], weights[row, t, :length])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_finite_differences(kind: Kind) -> None:
    attention, values, lengths, queries = made(kind)
    attention.double()
    inputs = values.double().requires_grad_(), queries.double().requires_grad_()

    def run(values: torch.Tensor, queries: torch.Tensor) -> object:
        return attention(queries, attention.prepare(values, mask(lengths, 7)))

    assert torch.autograd.gradcheck(run, inputs)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown attention 'aditive'; did you mean 'additive'"):
        Attention(3, 3, "aditive")  # type: ignore[arg-type]
