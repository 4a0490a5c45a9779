"""Reading and writing text one token after another, for ever, at a constant cost per token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recurra.decoding.beam import beam_search
from recurra.decoding.sampling import Sampler
from recurra.errors import ConfigError, RunError
from recurra.nn.language import LanguageStream, LayerStates
from recurra.runs import read_tensors, write_tensors
from recurra.training.nested import list_tensors, map_tensors, replace_tensors

if TYPE_CHECKING:
    from recurra.tasks.language.fitted import Fitted

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_HELD_BACK = 4  # tokens that may be parts of one character
_CHUNK = 1024


@dataclass(frozen=True)
class Reading:
    """A text that was read: its tokens, and the surprise at each of them in nats.

    Shapes: ids and nats (n,).
    """

    ids: Tensor
    nats: Tensor

    @property
    def total(self) -> float:
        """Nats of the whole text."""
        return float(self.nats.double().sum())


@dataclass(frozen=True)
class TextState:
    """Where a text stands: the layers' states before its last token, and that token."""

    layers: LayerStates
    last: int


class TextStream:
    """One text that is read and written on and on; it begins as if at the start of a line.

    >>> from recurra import LanguageModel
    >>> model = LanguageModel(steps=2, hidden_size=8, progress=False)
    >>> model = model.fit_text("to be or not\\n" * 99)
    >>> stream = model.stream()
    >>> reading = stream.read("to b")
    >>> len(reading.nats), len("".join(stream.write(3)))
    (4, 3)
    """

    def __init__(self, fitted: Fitted) -> None:
        self._fitted = fitted
        self._stream: LanguageStream = fitted.network.stream()
        self._last = fitted.tokenizer.end_id

    def read(self, text: str) -> Reading:
        """Read on, and say how surprising each token was after all that came before."""
        return self.read_ids(torch.from_numpy(self._fitted.tokenizer.encode(text)).long())

    @torch.no_grad()
    def read_ids(self, ids: Tensor) -> Reading:
        """The same for token ids (n,)."""
        inputs = torch.cat([torch.tensor([self._last]), ids.long()])
        nats = [
            self._fitted.network.nll(
                self._stream.push_chunk(inputs[begin : begin + _CHUNK][: len(ids) - begin]),
                ids[begin : begin + _CHUNK],
            )
            for begin in range(0, len(ids), _CHUNK)
        ]
        self._last = int(inputs[-1])
        return Reading(ids, torch.cat(nats) if nats else torch.empty(0))

    def next_log_probs(self) -> Tensor:
        """log p (vocab_size,) of the next token, in nats; where the text stands does not change."""
        before = self._stream.state
        log_probs = self._stream.push(self._last)
        self._stream.restore(before)
        return log_probs

    def draw(self, sampler: Sampler) -> int:
        """Write one more token and return its id."""
        self._last = sampler.draw(self._stream.push(self._last))
        return self._last

    def write(self, length: int, sampler: Sampler | None = None) -> Iterator[str]:
        """Write `length` more tokens, and hand their text over as soon as it is whole.

        sampler   how tokens are chosen, see `Fitted.sampler`; None draws from the model's own
                  probabilities
        """
        chosen = self._fitted.sampler() if sampler is None else sampler
        decode = self._fitted.tokenizer.decode
        # Blanks depend on the token before, so each piece begins with the one that was shown last.
        ids = [self._last]
        shown = decode(ids)
        for left in range(length - 1, -1, -1):
            ids.append(self.draw(chosen))
            text = decode(ids)
            # The bytes of one character may come in several tokens.
            whole = left == 0 or len(ids) > _HELD_BACK + 1 or not text.endswith(_UNFINISHED)
            if not whole:
                continue
            if text[len(shown) :]:
                yield text[len(shown) :]
            ids = ids[-1:]
            shown = decode(ids)

    @torch.no_grad()
    def write_likeliest(self, length: int, beam_size: int) -> str:
        """Write the likeliest `length` tokens that a beam finds, and return their text.

        Raises: ConfigError for a length or a size below 1.
        """
        network = self._fitted.network

        def step(last: Tensor, state: LayerStates) -> tuple[Tensor, LayerStates]:
            features, after = network(last[:, None], state)
            return self._stream.log_probs(features[:, 0]), after

        best = beam_search(
            step,
            lambda state, rows: map_tensors(state, lambda part: part[:, rows]),
            self._last,
            self._stream.state,
            beam_size=beam_size,
            length=length,
            banned=self._fitted.never_written,
        )[0]
        before = self._last
        self.read_ids(torch.tensor(best.tokens))
        decode = self._fitted.tokenizer.decode
        return decode([before, *best.tokens])[len(decode([before])) :]

    @property
    def state(self) -> TextState:
        """A copy of where the text stands, for `restore`."""
        return TextState(self._stream.state, self._last)

    def restore(self, state: TextState | None) -> None:
        """Go on from such a state; None is the beginning of a text."""
        self._stream.restore(None if state is None else state.layers)
        self._last = self._fitted.tokenizer.end_id if state is None else state.last

    def save(self, path: str | Path) -> None:
        """Write where the text stands to a file, for `load`."""
        parts = {f"part{k}": tensor for k, tensor in enumerate(list_tensors(self._stream.state))}
        last = torch.tensor([self._last])
        write_tensors(Path(path), {**parts, "last": last}, {"run": self._fitted.fingerprint})

    def load(self, path: str | Path) -> None:
        """Go on from a file that `save` wrote.

        Raises: RunError when it is damaged, or of another run.
        """
        tensors, metadata = read_tensors(Path(path))
        if metadata.get("run") != self._fitted.fingerprint:
            raise RunError(
                f"{path} is the state of another model's text; expected one that this run saved."
            )
        mould = self._stream.state
        wanted = {f"part{k}": part.shape for k, part in enumerate(list_tensors(mould))}
        wanted["last"] = torch.Size([1])
        found = {name: tensor.shape for name, tensor in tensors.items()}
        last = int(tensors["last"]) if found == wanted else -1
        if not 0 <= last < self._fitted.tokenizer.vocab_size:
            raise RunError(
                f"{path} is damaged: it does not hold the state of a text. Save it anew."
            )
        parts = [tensors[f"part{k}"] for k in range(len(wanted) - 1)]
        self.restore(TextState(replace_tensors(mould, parts), last))


def check_length(length: int) -> None:
    """Raise ConfigError for a length that is no number of tokens."""
    if length < 1:
        raise ConfigError(f"length={length}: expected at least 1 token.")
