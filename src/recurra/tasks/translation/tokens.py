"""The tokenizers of both languages, one for both where they are joint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recurra.data.tokenizer import Ids, Tokenizer, find_kind
from recurra.errors import RunError
from recurra.runs import read_json, write_bytes

FORMAT = 1


class TokenPair:
    """What reads sources and writes targets; `source is target` where the tokens are joint.

    >>> pair = TokenPair.train(["a cat"] * 2, ["eine Katze"] * 2, "word", None, joint=False)
    >>> pair.target.decode(pair.write("eine Katze"))
    'eine Katze\\n'
    """

    def __init__(self, source: Tokenizer, target: Tokenizer) -> None:
        self.source = source
        self.target = target

    @classmethod
    def train(
        cls,
        sources: Iterable[str],
        targets: Iterable[str],
        kind: str,
        vocab_size: int | None,
        *,
        joint: bool,
    ) -> TokenPair:
        """Learn the tokens of sentences. Raises: ConfigError for a size that is too small."""
        made = find_kind(kind)
        lines = [[f"{text}\n" for text in side] for side in (sources, targets)]
        if joint:
            both = made.train([*lines[0], *lines[1]], vocab_size)
            return cls(both, both)
        return cls(made.train(lines[0], vocab_size), made.train(lines[1], vocab_size))

    @property
    def joint(self) -> bool:
        """Whether both languages have the same tokens."""
        return self.source is self.target

    def read(self, text: str) -> Ids:
        """The ids of a source with its end."""
        return _ended(self.source, text)

    def write(self, text: str) -> Ids:
        """The ids of a target with its end."""
        return _ended(self.target, text)

    def begin(self, text: str) -> Ids:
        """The ids of what a target begins with, without an end."""
        return _ended(self.target, text)[:-1]

    def save(self, path: Path) -> None:
        """Write both as one JSON file."""
        sides = [self.source] if self.joint else [self.source, self.target]
        value = {
            "format": FORMAT,
            "sides": [{"kind": one.kind, "vocabulary": one.to_json()} for one in sides],
        }
        write_bytes(path, json.dumps(value, ensure_ascii=False).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> TokenPair:
        """Read such a file; no code is run. Raises: RunError when it is damaged."""
        value = read_json(path)
        try:
            if not isinstance(value, dict) or value.get("format") != FORMAT:
                raise ValueError(f"expected an object of format {FORMAT}")
            sides = value.get("sides")
            if not isinstance(sides, list) or len(sides) not in (1, 2):
                raise ValueError("expected one side, or two")
            made = [_from_json(side) for side in sides]
        except ValueError as error:
            raise RunError(
                f"{path} holds no tokenizers of ours: {error}. Restore it from a copy or train "
                "again."
            ) from error
        return cls(made[0], made[-1])


def _ended(tokenizer: Tokenizer, text: str) -> Ids:
    """The ids of a line; a word that is written as the end's own name is an unknown one."""
    ids = tokenizer.encode(f"{text}\n")
    if tokenizer.unk_id is not None:
        ids[:-1][ids[:-1] == tokenizer.end_id] = tokenizer.unk_id
    return ids


class SubwordDropout:
    """Splits subwords at random into the two that they were merged from, and those again.

    A word is then seen in several ways, and its parts are learned where only the whole is frequent.
    Close to BPE-dropout (Provilkov et al. 2020), which leaves out merges while encoding; here they
    are undone afterwards, so that the draws come from the run's own seed.
    """

    def __init__(self, tokenizer: Tokenizer, p: float) -> None:
        self._p = p
        self._left = np.full(tokenizer.vocab_size, -1, np.int32)
        self._right = self._left.copy()
        if tokenizer.kind == "subword":
            model = json.loads(tokenizer.to_json())["model"]
            ids = model["vocab"]
            for pair in model["merges"]:
                first, second = pair.split(" ") if isinstance(pair, str) else pair
                merged = ids[first + second]
                self._left[merged], self._right[merged] = ids[first], ids[second]

    def __call__(self, ids: Ids, rng: np.random.Generator) -> Ids:
        """Ids of the same text, some split."""
        while True:
            split = (rng.random(len(ids)) < self._p) & (self._left[ids] >= 0)
            if not split.any():
                return ids
            sizes = 1 + split
            first = (np.cumsum(sizes) - sizes)[split]
            longer = np.repeat(ids, sizes)
            longer[first], longer[first + 1] = self._left[ids[split]], self._right[ids[split]]
            ids = longer


def lengths(several: Sequence[Ids]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How many ids each has."""
    return np.array([len(one) for one in several], np.int64)


def _from_json(side: Any) -> Tokenizer:
    if not isinstance(side, dict) or side.keys() != {"kind", "vocabulary"}:
        raise ValueError("a side has not the keys kind, vocabulary")
    made = find_kind(str(side["kind"])).from_json(side["vocabulary"])
    if made.end_id == made.unk_id:
        raise ValueError("a side has no token for the end of a line")
    return made
