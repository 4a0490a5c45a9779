from __future__ import annotations

import pytest

from recurra.tasks.sentiment.words import Vocabulary, WordTable, split_words, written_words


def test_words_carry_their_places() -> None:
    text = "It's  so-so... 很好, no?!"
    words = split_words(text)
    assert [word.text for word in words] == [
        "It's",
        "so-so",
        "...",
        "很",
        "好",
        ",",
        "no",
        "?",
        "!",
    ]
    assert all(text[word.begin : word.end] == word.text for word in words)


def test_a_text_without_words_is_one_word() -> None:
    assert written_words(" \n ") == ["⟨empty⟩"]


def test_a_word_never_seen_shares_buckets_with_one_that_was() -> None:
    vocabulary = Vocabulary(["great"], 1 << 20)
    assert vocabulary.number("greatest") == 0
    shared = set(vocabulary.grams("great")) & set(vocabulary.grams("greatest"))
    # "<gr", "gre", "rea", "eat", "<gre", "grea", "reat", "<grea", "great", and the shape
    assert len(shared) == 10
    assert set(vocabulary.grams("GREAT")) ^ set(vocabulary.grams("great")) == {
        zlib_of("shape:upper"),
        zlib_of("shape:lower"),
    }


def zlib_of(text: str) -> int:
    import zlib

    return zlib.crc32(text.encode()) % (1 << 20)


def test_a_runaway_word_has_few_grams() -> None:
    assert len(Vocabulary([], 100).grams("x" * 100_000)) < 130


def test_a_table_selects_words_for_a_bag() -> None:
    vocabulary = Vocabulary(["a", "b"], 50)
    table = WordTable(vocabulary)
    entries = table.add(["b", "new", "b"])
    assert entries.tolist() == [0, 1, 0]
    numbers, buckets, offsets = table.select(entries[:2])
    assert numbers.tolist() == [2, 0]
    assert buckets.tolist() == [*vocabulary.grams("b"), *vocabulary.grams("new")]
    assert offsets.tolist() == [0, len(vocabulary.grams("b"))]


@pytest.mark.parametrize("value", [3, {"buckets": 1}, {"buckets": 1, "words": ["a", "a"]}])
def test_a_damaged_vocabulary_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"vocabulary|texts|twice"):
        Vocabulary.from_json(value)
