from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.data.chars import CharTokenizer
from recurra.data.corpus import read_corpus
from recurra.data.raw import ByteTokenizer
from recurra.data.subwords import SubwordTokenizer
from recurra.data.tokenizer import (
    KINDS,
    Tokenizer,
    encode_file,
    find_kind,
    read_tokenizer,
    train_tokenizer,
    write_tokenizer,
)
from recurra.data.words import WordTokenizer
from recurra.errors import ConfigError, DataError, RunError

TEXT = "the cat sat on the mat\n\n  the  dog saw the cat é 日\nno end"


def trained(kind: str, text: str = TEXT) -> Tokenizer:
    return find_kind(kind).train([text], 270 if kind == "subword" else None)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="abc é日\n\r\t", max_size=60), st.integers(0, 60))
def test_a_text_is_the_sequence_of_its_lines(kind: str, text: str, at: int) -> None:
    tokenizer = trained(kind)
    cut = text.rfind("\n", 0, at) + 1
    whole = tokenizer.encode(text)
    parts = [tokenizer.encode(text[:cut]), tokenizer.encode(text[cut:])]
    assert whole.tolist() == np.concatenate(parts).tolist()
    assert whole.dtype == np.int32
    assert all(0 <= i < tokenizer.vocab_size for i in whole)


@pytest.mark.parametrize("kind", ["char", "byte", "subword"])
def test_decoding_gives_the_text_back(kind: str) -> None:
    tokenizer = trained(kind)
    ids = tokenizer.encode(TEXT).tolist()
    assert tokenizer.decode(ids) == TEXT
    if kind == "char":
        assert "".join(tokenizer.pieces(ids)) == TEXT


def test_words_come_back_but_for_their_blanks() -> None:
    tokenizer = trained("word")
    text = "the cat the\n\nthe cat\n"
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    assert tokenizer.decode(tokenizer.encode("  the   cat").tolist()) == "the cat"


def test_characters_are_in_falling_order_of_frequency() -> None:
    tokenizer = CharTokenizer.train(["bbba\naa", "bc"], None)
    assert tokenizer.characters == "ba\nc"
    assert tokenizer.encode("abz").tolist() == [2, 1, 0]
    assert tokenizer.end_id == 3
    assert CharTokenizer.train(["bbba"], 2).characters == "b"


def test_words_seen_once_are_unknown_unless_the_text_says_so_itself() -> None:
    free = WordTokenizer.train(["a a b\n"], None)
    assert free.words == ["a", "<eos>", "<unk>"]
    closed = WordTokenizer.train(["a <unk> a b\n"], None)
    assert closed.words == ["a", "<eos>", "<unk>", "b"]
    assert closed.encode("b c\n").tolist() == [3, 2, 1]


def test_a_vocabulary_of_words_keeps_the_most_frequent() -> None:
    tokenizer = WordTokenizer.train(["a a a b b b b c c d d\n"], 4)
    # What was left out, c and d, makes <unk> the most frequent together with b.
    assert tokenizer.words == ["<unk>", "b", "a", "<eos>"]


def test_bytes_need_no_text_to_learn_from() -> None:
    tokenizer = ByteTokenizer.train([], None)
    assert tokenizer.decode([0xC3]) == "\N{REPLACEMENT CHARACTER}"
    assert tokenizer.pieces([65, 0xC3]) == ["A", "\\xc3"]


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("char", 1, "vocab_size=1: characters need at least 2"),
        ("byte", 300, "vocab_size=300: there are 256 bytes"),
        ("word", 2, "vocab_size=2: words need at least 3"),
        ("subword", 256, "vocab_size=256: subwords need at least 257"),
        ("wrod", None, "unknown kind of tokens 'wrod'; did you mean 'word'"),
    ],
)
def test_vocabularies_that_cannot_be(
    tmp_path: Path, kind: str, size: int | None, message: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    with pytest.raises(ConfigError, match=message):
        train_tokenizer(kind, [path], size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_is_kept_in_a_file(tmp_path: Path, kind: str) -> None:
    tokenizer = trained(kind)
    write_tokenizer(tmp_path / "t.json", tokenizer)
    again = read_tokenizer(tmp_path / "t.json")
    assert type(again) is type(tokenizer)
    assert again.vocab_size == tokenizer.vocab_size
    assert (again.unk_id, again.end_id) == (tokenizer.unk_id, tokenizer.end_id)
    assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "expected the keys"),
        ({"format": 2, "kind": "char", "vocabulary": ["a"]}, "format 2"),
        ({"format": 1, "kind": "os.system", "vocabulary": []}, "unknown kind of tokens"),
        ({"format": 1, "kind": "char", "vocabulary": ["ab"]}, "no list of characters"),
        ({"format": 1, "kind": "char", "vocabulary": ["a", "a"]}, "a character twice"),
        ({"format": 1, "kind": "byte", "vocabulary": [1]}, "need no vocabulary"),
        ({"format": 1, "kind": "word", "vocabulary": ["a"]}, "no list of words with <unk>"),
        ({"format": 1, "kind": "word", "vocabulary": ["<unk>", "<eos>", "a", "a"]}, "twice"),
        ({"format": 1, "kind": "subword", "vocabulary": 3}, "its vocabulary is no text"),
        ({"format": 1, "kind": "subword", "vocabulary": "{}"}, "no tokenizer of ours"),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path: Path, value: object, reason: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(value))
    with pytest.raises(RunError, match=reason):
        read_tokenizer(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"truncation": {"max_length": 0}}, "no plain byte-pair encoding"),
        ({"padding": {"strategy": {"Fixed": 5_000_000}}}, "no plain byte-pair encoding"),
        ({"normalizer": {"type": "Strip"}}, "no plain byte-pair encoding"),
        ({"added_tokens": [{"id": 0, "content": "the"}]}, "no plain byte-pair encoding"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "no byte-pair encoding"),
        ({"model": {"dropout": 0.9}}, "no plain byte-pair encoding"),
        ({"model": {"type": "WordPiece"}}, "no plain byte-pair encoding"),
        ({"model": {"vocab": {"a": 0, "b": 5}}}, "not those of 257 subwords"),
        ({"model": {"merges": [["zz", "zz"]]}}, "zz"),
    ],
)
def test_subwords_that_would_do_anything_else_are_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    whole = json.loads(trained("subword").to_json())
    for name, value in change.items():
        whole[name] = {**whole[name], **value} if name == "model" else value
    value = {"format": 1, "kind": "subword", "vocabulary": json.dumps(whole)}
    (tmp_path / "t.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match=reason):
        read_tokenizer(tmp_path / "t.json")


def test_subwords_learn_the_pairs_of_a_text() -> None:
    tokenizer = SubwordTokenizer.train(["banana bandana\n" * 20], 280)
    assert len(tokenizer.encode("banana")) < 4
    assert tokenizer.decode([tokenizer.end_id]) == "\n"


def test_a_file_is_counted_as_it_is_encoded(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("é日a\n", encoding="utf-8")
    for kind in KINDS:
        found = list(encode_file(trained(kind), path))
        assert sum(part[1] for part in found) == 4
        assert sum(part[2] for part in found) == 7


def test_a_corpus_holds_documents_after_line_ends(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("ab\nb")
    second.write_text("zb")
    tokenizer = CharTokenizer("ab\n")
    corpus = read_corpus([first, second], tokenizer)
    assert corpus.ids.tolist() == [3, 1, 2, 3, 2, 3, 0, 2]
    reset = corpus.resets()
    assert reset is not None
    assert reset.nonzero().flatten().tolist() == [0, 5]
    assert [(d.tokens, d.characters, d.bytes, d.unknown) for d in corpus.documents] == [
        (4, 4, 4, 0),
        (2, 2, 2, 1),
    ]
    assert corpus.text_of(corpus.documents[1]).tolist() == [0, 2]
    assert corpus.counts.tolist() == [1, 1, 3, 1]
    assert corpus.tokens == 6
    alone = read_corpus([first], tokenizer)
    assert alone.resets() is None
    assert alone.fingerprint != corpus.fingerprint


@pytest.mark.parametrize(("size", "dtype"), [(255, "uint8"), (300, "int16"), (40_000, "int32")])
def test_ids_take_as_little_room_as_they_can(tmp_path: Path, size: int, dtype: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a" + chr(size + 0x20000))
    tokenizer = CharTokenizer([chr(0x20001 + k) for k in range(size)])
    corpus = read_corpus([path], tokenizer, folder=tmp_path)
    assert str(corpus.ids.dtype) == f"torch.{dtype}"
    assert corpus.ids.tolist() == [0, 0, size]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_text_without_words_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("   ")
    with pytest.raises(DataError, match=r"a\.txt holds no words"):
        read_corpus([path], trained("word"))
