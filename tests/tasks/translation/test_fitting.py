from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recurra import Translator
from recurra.errors import ConfigError, DataError
from recurra.tasks.translation.batches import collate, cut, order_of_epoch
from recurra.tasks.translation.fitting import Corpus, TranslationTask, all_log_probs
from recurra.tasks.translation.learning import plan, split_pairs
from recurra.tasks.translation.network import TranslationNetwork
from recurra.tasks.translation.pairs import Pairs
from recurra.tasks.translation.settings import TranslationSettings
from recurra.tasks.translation.tokens import SubwordDropout, TokenPair


def ids(*sizes: int) -> list[np.ndarray]:
    return [np.arange(1, size + 1, dtype=np.int32) for size in sizes]


def corpus(count: int = 60) -> Corpus:
    rng = np.random.default_rng(0)
    sides = [[rng.integers(1, 9, size).astype(np.int32) for size in rng.integers(1, 12, count)]
             for _ in range(2)]  # fmt: skip
    return Corpus(*sides, start_id=0)


def network(**settings: object) -> TranslationNetwork:
    torch.manual_seed(0)
    small = {"embedding_size": 6, "hidden_size": 5, **settings}
    return TranslationNetwork(9, 9, TranslationSettings(**small)).eval()


def test_outputs_follow_inputs_and_padding_is_not_real() -> None:
    batch = collate(ids(2, 3), ids(3, 1), 7)
    assert batch.source.tolist() == [[1, 2, 0], [1, 2, 3]]
    assert batch.lengths.tolist() == [2, 3]
    assert batch.inputs.tolist() == [[7, 1, 2], [7, 1, 0]]
    assert batch.outputs.tolist() == [[1, 2, 3], [1, 0, 0]]
    assert batch.real.tolist() == [[True] * 3, [True, False, False]]


def test_batches_hold_at_most_so_many_tokens_and_every_pair_once() -> None:
    rng = np.random.default_rng(1)
    sources, targets = rng.integers(1, 30, (2, 200))
    first = order_of_epoch(sources, targets, 100, np.random.default_rng(2))
    assert sorted(np.concatenate(first).tolist()) == list(range(200))
    sizes = np.maximum(sources, targets)
    assert max(len(rows) * sizes[rows].max() for rows in first) <= 100
    second = order_of_epoch(sources, targets, 100, np.random.default_rng(3))
    assert {tuple(rows) for rows in first} != {tuple(rows) for rows in second}
    assert [len(rows) for rows in cut(np.arange(3), np.array([500, 1, 1]), 100)] == [1, 2]


def test_a_step_draws_the_same_batch_wherever_training_begins() -> None:
    def task() -> TranslationTask:
        return TranslationTask(network(), corpus(), corpus(), 60, 5)

    whole, late = task(), task()
    steps = 3 * whole.steps_per_epoch
    batches = [whole.batch(step, torch.Generator()) for step in range(steps)]
    again = late.batch(steps - 1, torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(batches[-1], again, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_smoothed_cross_entropy(smoothing: float) -> None:
    made = network(label_smoothing=smoothing).train()
    torch.nn.init.normal_(made.bias)
    o, targets = torch.randn(7, 6), torch.arange(7)
    logits = o @ made.embedding.weight.T + made.bias
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(made.loss(o, targets), expected)


@pytest.mark.parametrize("settings", [
    {}, {"input_feeding": True}, {"decoder_layers": 1}, {"decoder_layers": 3, "encoder_layers": 2},
    {"attention": "additive", "cell": "lstm"}, {"cell": "min-gru", "joint": False},
    {"cell": "mlstm"}, {"cell": "slstm", "input_feeding": True},
])  # fmt: skip
@torch.no_grad()
def test_steps_give_the_whole_sequence(settings: dict[str, object]) -> None:
    made = network(**settings)
    batch = corpus(5).batch(np.arange(5))
    source = made.read(batch.source, batch.lengths)
    whole, _, weights = made.decode(batch.inputs, source)
    state, pieces = None, []
    for t in range(batch.inputs.shape[1]):
        o, state, seen = made.decode(batch.inputs[:, t : t + 1], source, state)
        pieces.append(o[:, 0])
        torch.testing.assert_close(seen[:, 0], weights[:, t])
    torch.testing.assert_close(torch.stack(pieces, 1), whole)


def test_the_source_is_seen_and_the_future_is_not() -> None:
    made = network()
    batch = corpus(3).batch(np.arange(3))
    before = made.decode(batch.inputs, made.read(batch.source, batch.lengths))[0]
    later = batch.inputs.clone()
    later[:, 2:] = 8
    after = made.decode(later, made.read(batch.source, batch.lengths))[0]
    assert torch.equal(before[:, :2], after[:, :2])
    other = made.decode(batch.inputs, made.read(batch.source.flip(1), batch.lengths))[0]
    assert not torch.allclose(before[:, 0], other[:, 0])


@torch.no_grad()
def test_padding_and_neighbours_leave_scores_as_they_are() -> None:
    made, pairs = network(), corpus(30)
    together = all_log_probs(made, pairs)
    for k in range(30):
        alone = Corpus(pairs.sources[k : k + 1], pairs.targets[k : k + 1], 0)
        assert torch.equal(all_log_probs(made, alone)[0], together[k])


def test_subword_dropout_keeps_the_text_and_draws_from_the_seed() -> None:
    lines = ["the lower the better", "lowest newest widest"] * 20
    pair = TokenPair.train(lines, lines, "subword", 300, joint=True)
    dropout = SubwordDropout(pair.source, 0.5)
    ids = pair.read(lines[1])
    split = dropout(ids, np.random.default_rng(0))
    assert len(split) > len(ids)
    assert pair.source.decode(split) == pair.source.decode(ids)
    assert np.array_equal(split, dropout(ids, np.random.default_rng(0)))
    letters = SubwordDropout(pair.source, 0.999999)(ids, np.random.default_rng(0))
    assert len(letters) == len(lines[1]) + 1
    assert SubwordDropout(pair.source, 0.0)(ids, np.random.default_rng(0)) is ids


def test_tokens_travel_as_a_file(tmp_path) -> None:
    for joint in (True, False):
        pair = TokenPair.train(["a cat"] * 2, ["eine katze"] * 2, "word", None, joint=joint)
        pair.save(tmp_path / "t.json")
        loaded = TokenPair.load(tmp_path / "t.json")
        assert loaded.joint is joint
        assert loaded.write("eine katze").tolist() == pair.write("eine katze").tolist()


def test_filters_are_stated() -> None:
    long, short = " ".join("x" * 30), "x"
    given = Pairs(
        ("a b",) * 5 + (long, " ".join("x" * 15), "c d"), ("a b",) * 5 + (long, short, "d c")
    )
    settings = TranslationSettings(tokens="word", max_length=20, max_ratio=4, steps=1)
    made = plan(given, Pairs(("a",), ("b",)), settings)
    assert len(made.train.sources) == 6
    notes = "\n".join(made.notes)
    assert "8 pairs of the pairs" in notes
    assert "4 pairs are there more than once" in notes
    assert "1 pairs with more than 20 tokens on a side left out" in notes
    assert "1 pairs with one side more than 4 times as long as the other left out" in notes
    with pytest.raises(DataError, match="no pair is left"):
        plan(Pairs((long,) * 4, (long,) * 4), Pairs(("a",), ("b",)), settings)


def test_copies_of_a_source_are_kept_on_one_side() -> None:
    pairs = Pairs(tuple("abcde" * 4), tuple("vwxyz" * 4))
    learned, kept = split_pairs(pairs, 0.4, 0)
    assert (len(learned), len(kept)) == (12, 8)
    assert not set(learned.source) & set(kept.source)
    with pytest.raises(DataError, match="1 distinct source sentence; expected at least 2"):
        split_pairs(Pairs(("a", "a"), ("b", "c")), 0.4, 0)


def test_an_unknown_cell_is_refused_in_a_sentence_with_one_end() -> None:
    with pytest.raises(ConfigError, match=r"unknown cell 'foo'\. Valid: .*'slstm'\.$"):
        Translator(cell="foo")
