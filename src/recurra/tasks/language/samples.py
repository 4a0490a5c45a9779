"""What a model writes while it is trained, one sample after each validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from recurra.data.tokenizer import Tokenizer
from recurra.decoding.sampling import Sampler
from recurra.nn.language import LanguageNetwork
from recurra.training.log import JsonLines, read_log

_LENGTH = 200
_TEMPERATURE = 0.8


class SampleLog:
    """samples.jsonl: {"step", "text"} of each sample, always from the same seed.

    A resumed run may do some steps a second time; the later line of a step counts.
    """

    def __init__(
        self, path: Path, tokenizer: Tokenizer, network: LanguageNetwork, counts: Tensor
    ) -> None:
        self._path = path
        self._lines = JsonLines(path)
        self._tokenizer = tokenizer
        self._network = network
        unk = tokenizer.unk_id
        self._banned = () if unk is None or int(counts[unk]) else (unk,)

    def open(self, resume: bool) -> None:
        """Begin the file, or go on with it."""
        self._lines.open(read_samples(self._path) if resume else [])

    def add(self, step: int) -> None:
        """Write one sample with the network as it is now."""
        sampler = Sampler(temperature=_TEMPERATURE, banned=self._banned)
        stream, token = self._network.stream(), self._tokenizer.end_id
        ids = []
        for _ in range(_LENGTH):
            token = sampler.draw(stream.push(token))
            ids.append(token)
        self._lines.append({"step": step, "text": self._tokenizer.decode(ids)})

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The samples of a run by rising step, each step once; none where there is no such file."""
    by_step = {
        entry["step"]: entry for entry in read_log(path) if isinstance(entry.get("text"), str)
    }
    return [by_step[step] for step in sorted(by_step)]
