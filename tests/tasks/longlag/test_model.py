"""Each row of the comparison is the layer that its name says."""

from __future__ import annotations

import pytest
import torch

from recurra.errors import ConfigError
from recurra.nn.lstm import LSTM
from recurra.tasks.longlag.model import VARIANTS, Network, find_variant, make_network


def network(name: str, seed: int = 0, hidden_size: int = 6) -> Network:
    return make_network(
        find_variant(name),
        input_size=3,
        hidden_size=hidden_size,
        num_layers=2,
        output_size=4,
        length=50,
        seed=seed,
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_reads_a_batch_at_the_steps_asked_about(name: str) -> None:
    model, mask = network(name), torch.zeros(2, 7, dtype=torch.bool)
    mask[0, 2] = mask[1, 6] = True
    inputs = torch.randn(2, 7, 3)
    y = model(inputs, mask)
    assert y.shape == (2, 4)
    changed = inputs.clone()
    changed[0, 3:] += 1.0  # after the step that is asked about
    assert torch.equal(model(changed, mask), y)
    changed[0, 0] += 1.0
    assert not torch.equal(model(changed, mask)[0], y[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_come_from_the_seed_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = network(name), network(name), network(name, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_chrono_gates_remember_for_as_long_as_the_sequence() -> None:
    layer = network("lstm-chrono", hidden_size=200).layer
    assert isinstance(layer, LSTM)
    i, f, *_ = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().chunk(4)
    assert torch.equal(i, -f)
    memory = f.exp()  # uniform on 1 to 49
    assert 1 <= float(memory.min()) < 3
    assert 47 < float(memory.max()) <= 49
    plain = network("lstm", hidden_size=200).layer
    assert float((plain.bias_ih_l0 + plain.bias_hh_l0).detach().abs().max()) < 0.15


def test_an_unknown_cell_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown cell 'lsmt'; did you mean 'lstm'"):
        find_variant("lsmt")
