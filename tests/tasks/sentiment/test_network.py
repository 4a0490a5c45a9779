"""The network: chunks, padding, pools."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recurra.tasks.sentiment.batches import collate, like_lengths, order_of_epoch, shorten
from recurra.tasks.sentiment.network import SentimentNetwork
from recurra.tasks.sentiment.settings import SentimentSettings
from recurra.tasks.sentiment.words import Vocabulary, WordTable

POOLING = ("max", "mean", "last", "attention")


def make(**settings: object) -> SentimentNetwork:
    torch.manual_seed(0)
    values = {"hidden_size": 5, "embedding_size": 6, "buckets": 40, "pooling": POOLING, **settings}
    return SentimentNetwork(4, 3, SentimentSettings(**values)).eval()


@pytest.mark.parametrize("cell", ["gru", "lstm", "min-gru", "slstm"])
def test_rows_do_not_depend_on_each_other(cell: str) -> None:
    network = make(cell=cell, chunk=3, num_layers=2)
    table = WordTable(Vocabulary(["a", "b", "c"], 40))
    texts = [table.add(list(text)) for text in ("abcabca", "b", "zzab", "abc")]
    lexical = torch.randn(4, 3)
    with torch.no_grad():
        together = network(collate(table, texts, lexical))
        for k, text in enumerate(texts):
            alone = network(collate(table, [text], lexical[k : k + 1]))
            torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_within_a_chunk_it_is_a_bidirectional_layer_and_pools() -> None:
    network, x = make(chunk=9), torch.randn(2, 7, 6)
    pools = network.read_embedded(x)
    y, final = network.layers[0](x)
    torch.testing.assert_close(pools.highest, y.amax(1))
    torch.testing.assert_close(pools.total / pools.words, y.mean(1))
    torch.testing.assert_close(pools.last, torch.cat([final[0], final[1]], dim=1))
    weights = torch.softmax(network.attention(y), dim=1)
    torch.testing.assert_close(pools.attended / pools.mass, (weights * y).sum(1))


@torch.no_grad()
def test_the_forward_half_knows_all_chunks_and_the_reverse_half_its_own() -> None:
    network, x = make(chunk=4), torch.randn(1, 10, 6)
    changed = x.clone()
    changed[:, 0] += 1.0
    before, after = network.read_embedded(x).last, network.read_embedded(changed).last
    assert not torch.equal(before[:, :5], after[:, :5])
    assert torch.equal(before[:, 5:], after[:, 5:])  # of words 9 and 10


@torch.no_grad()
def test_a_forward_network_reads_the_same_in_any_chunks() -> None:
    x = torch.randn(2, 10, 6)
    whole, pieces = make(bidirectional=False, chunk=99), make(bidirectional=False, chunk=3)
    for one, other in zip(whole.read_embedded(x), pieces.read_embedded(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_dropouts_act_in_training_only() -> None:
    network = make(word_dropout=0.9)
    x = torch.randn(1, 6, 6)
    assert torch.equal(network.read_embedded(x).total, network.read_embedded(x).total)
    network.train()
    assert not torch.equal(network.read_embedded(x).total, network.read_embedded(x).total)


def test_every_text_is_seen_once_an_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 333)
    batches = order_of_epoch(lengths, 8, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(333))
    assert np.mean([np.ptp(lengths[rows]) for rows in batches]) < 5
    batches = like_lengths(lengths, 200)
    assert sorted(np.concatenate(batches)) == list(range(333))
    assert max(len(rows) * lengths[rows].max() for rows in batches) <= 200


def test_a_long_text_is_shortened_to_its_two_ends() -> None:
    assert shorten(np.arange(10), 5).tolist() == [0, 1, 7, 8, 9]
    assert shorten(np.arange(5), 5).tolist() == [0, 1, 2, 3, 4]
