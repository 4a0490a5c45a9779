"""ARPA files: the probabilities they give by hand, and files that are none."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from recurra.data.ngram import read_arpa
from recurra.errors import DataError

ARPA = """some words before it

\\data\\
ngram 1=5
ngram 2=4
ngram 3=1

\\1-grams:
-99\t<s>\t-0.5
-1.0\t</s>
-2.0\t<unk>\t-0.1
-0.6\tgo\t-0.3
-0.7\thome\t-0.2

\\2-grams:
-0.2\t<s> go\t-0.05
-0.4\tgo home\t-0.15
-0.3\thome </s>
-0.9 go go -0.4

\\3-grams:
-0.1\t<s> go home

\\end\\
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "words.arpa"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("go home", -0.2 - 0.1 - 0.3 - 0.15),  # the trigram "go home </s>" backs off once
        ("home", (-0.5 - 0.7) - 0.3),  # "<s> home" backs off, "<s> home </s>" has no back-off
        ("go go", -0.2 + (-0.05 - 0.9) + (-0.4 - 0.3 - 1.0)),
        ("", -0.5 - 1.0),
        ("go up", -0.2 + (-0.05 - 0.3 - 2.0) + (-0.1 - 1.0)),  # an unknown word
    ],
)
def test_words_have_the_probabilities_that_the_file_gives(
    tmp_path: Path, sentence: str, wanted: float
) -> None:
    ngram = read_arpa(write(tmp_path, ARPA))
    state, total = ngram.begin(), 0.0
    for word in sentence.split():
        state, nats = ngram.step(state, word)
        total += nats
    total += ngram.end(state)
    assert total / math.log(10) == pytest.approx(wanted, abs=1e-12)
    assert (ngram.order, len(ngram)) == (3, 10)


def test_without_an_unknown_word_others_are_very_unlikely(tmp_path: Path) -> None:
    text = ARPA.replace("-2.0\t<unk>\t-0.1\n", "").replace("1=5", "1=4")
    ngram = read_arpa(write(tmp_path, text))
    state, nats = ngram.step(ngram.begin(), "up")
    assert (state, nats / math.log(10)) == ((), pytest.approx(-7))


def test_packed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "words.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode()))
    assert len(read_arpa(path)) == 10


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("\\data\\", "data", r"line 24: the file ends; expected a line '.*data"),
        ("ngram 1=5", "ngram 1=x", r"line 4: 'ngram 1=x' stands where 'ngram 1=\.\.\.'"),
        ("ngram 1=5", "ngram 1=4", r"line 13: '-0.7\\thome.*' stands where '.*2-grams:'"),
        ("ngram 1=5", "ngram 1=99999999999999", r"line 15: '.*2-grams:' is no n-gram of 1"),
        ("-0.7\thome\t-0.2", "-0.7", r"line 13: '-0.7' is no n-gram of 1 word"),
        ("-0.7\thome", "x\thome", r"line 13: .* has no number"),
        ("-0.7\thome", "nan\thome", r"line 13: .* has a number that is none"),
        ("-0.7\thome", "0.7\thome", r"line 13: .* has a probability above 1"),
        ("-0.7\thome\t-0.2", "-0.7\tgo\t-0.2", r"line 13: the n-gram 'go' is there twice"),
        ("-0.4\tgo home", "-0.4\tgo where", r"line 17: the word 'where' is in no n-gram of one"),
        ("\\end\\", "", r"line 24: the file ends; expected a line '.*end"),
        ("ngram 3=1", "ngram 3=1\n" + "\n".join(f"ngram {k}=0" for k in range(4, 12)), "over 10"),
    ],
)
def test_what_is_no_arpa_file_is_refused_by_its_line(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    assert before in ARPA
    with pytest.raises(DataError, match=message) as caught:
        read_arpa(write(tmp_path, ARPA.replace(before, after, 1)))
    assert str(caught.value).startswith(f"{tmp_path / 'words.arpa'}, line ")
