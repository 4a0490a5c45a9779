from __future__ import annotations

from typing import Any

import pytest
import torch

from recurra.errors import ConfigError
from recurra.nn.language import CELLS, LanguageNetwork
from recurra.training.nested import map_tensors

DESIGNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tied": True, "embedding_size": 6},
    "deep": {"num_layers": 3, "norm": True, "residual": True},
    "bands": {"cutoffs": (4, 7), "tied": True},
}


def make(**options: Any) -> LanguageNetwork:
    torch.manual_seed(0)
    network = LanguageNetwork(11, **{"hidden_size": 8, "num_layers": 2, **options})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize("design", DESIGNS)
def test_a_stream_has_the_bits_of_the_network(design: str) -> None:
    network = make(**DESIGNS[design])
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])
    with torch.no_grad():
        features, state = network(tokens)
        expected = network.log_probs(features[0])
    stream = network.stream()
    steps = torch.stack([stream.push(int(token)) for token in tokens[0]])
    assert torch.equal(steps, expected)
    stream.restore(None)
    chunks = torch.cat([stream.push_chunk(tokens[0, :3]), stream.push_chunk(tokens[0, 3:])])
    assert torch.equal(chunks, features[0])
    stream.restore(state)
    again = network.stream()
    again.push_chunk(tokens[0])
    assert torch.equal(stream.push(7), again.push(7))


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_makes_a_language_model(cell: str) -> None:
    network = make(cell=cell)
    tokens = torch.arange(14).view(2, 7) % 11
    with torch.no_grad():
        features, _ = network(tokens)
        begin, middle = network(tokens[:, :4])
        end, _ = network(tokens[:, 4:], middle)
        torch.testing.assert_close(torch.cat([begin, end], 1), features)
        alone = map_tensors(middle, lambda part: part[:, 1:])
        row, _ = network(tokens[1:, 4:], alone)
        torch.testing.assert_close(row, features[1:, 4:])
    stream = network.stream()
    torch.testing.assert_close(stream.push_chunk(tokens[0]), features[0])


def test_a_reset_begins_anew() -> None:
    network = make()
    tokens = torch.tensor([[1, 2, 3, 4]])
    reset = torch.tensor([[False, False, True, False]])
    features, _ = network(tokens, None, reset)
    fresh, _ = network(tokens[:, 2:])
    torch.testing.assert_close(features[:, 2:], fresh)


def test_tied_layers_end_in_the_size_of_the_embedding() -> None:
    network = make(tied=True, embedding_size=6, num_layers=3)
    assert [layer.hidden_size for layer in network.layers] == [8, 8, 6]
    assert network.output_weight is None
    assert sum("embedding" in name for name, _ in network.named_parameters()) == 1


@pytest.mark.parametrize(
    "name", ["embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout"]
)
def test_each_dropout_acts_in_training_only(name: str) -> None:
    network = make(**{name: 0.5})
    tokens = torch.arange(11)[None]

    def run() -> torch.Tensor:
        return network.drop_output(network(tokens)[0])

    assert torch.equal(run(), run())
    network.train()
    assert not torch.equal(run(), run())


@pytest.mark.parametrize("locked", [True, False])
def test_a_locked_mask_is_one_for_the_whole_sequence(locked: bool) -> None:
    network = make(output_dropout=0.5, locked=locked).train()
    dropped = network.drop_output(torch.ones(2, 50, 8)) != 0
    same = (dropped == dropped[:, :1]).all(1)
    assert bool(same.all()) is locked


def test_embedding_dropout_leaves_out_whole_tokens() -> None:
    network = make(embedding_dropout=0.5).train()
    kept = network._embed(torch.arange(11)) != 0
    assert (kept.all(1) | ~kept.any(1)).all()
    assert 0 < kept.all(1).sum() < 11


def test_an_unknown_cell_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown cell 'lst'; did you mean 'lstm'"):
        make(cell="lst")
