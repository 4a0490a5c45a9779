"""Line by line: a text in, its translation out, and what it is so far where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from recurra.errors import DataError
from recurra.tasks.translation.batches import pad
from recurra.tasks.translation.fitted import Fitted
from recurra.tasks.translation.pairs import tidy
from recurra.tasks.translation.searching import NetworkStepper, Search
from recurra.tasks.translation.translate import Translation, split_text, translate


class TranslationStream:
    """Translates texts one after another; each alone, so nothing is carried on and nothing grows.

    >>> from recurra import Translator
    >>> model = Translator(tokens="word", hidden_size=4, steps=2, subword_dropout=0, progress=False)
    >>> stream = model.fit(["a cat", "a dog"] * 4, ["eine katze", "ein hund"] * 4).stream()
    >>> len(list(stream.partial("a cat"))) >= 1
    True
    >>> stream.push("").text
    ''
    """

    def __init__(self, fitted: Fitted, how: Search) -> None:
        self._fitted = fitted
        self._how = how

    def push(self, text: str) -> Translation:
        """The translation of a text: the same as in any batch."""
        return translate([self._fitted], [text], self._how)[0][0][0]

    def partial(self, text: str) -> Iterator[str]:
        """The greedy translation after each of its tokens, as it grows."""
        before = ""
        for piece in split_text(self._fitted, tidy(text)):
            written = ""
            for written in self._grow(piece):
                yield tidy(f"{before} {written}")
            before = tidy(f"{before} {written}")

    @torch.no_grad()
    def _grow(self, text: str) -> Iterator[str]:
        tokens = self._fitted.tokens
        ids = tokens.read(text)
        end_id = tokens.target.end_id
        stepper = NetworkStepper([self._fitted.network], *pad([ids]), 1)
        last, written = end_id, []
        for time in range(self._how.longest(len(ids))):
            log_probs, _ = stepper.step(torch.tensor([last]))
            if time == 0:
                log_probs[:, end_id] = -torch.inf
            last = int(log_probs.argmax())
            if last == end_id:
                return
            written.append(last)
            yield tokens.target.decode(written)


class LineStream:
    """Lines of text in, their translations out.

    text      the name under which an event holds its text
    partial   gets an event with `partial` for every token of the translation on its way; None to
              wait for the whole

    An answer echoes the event and adds `translation`, `log_prob` and `score`.
    """

    def __init__(
        self,
        stream: TranslationStream,
        *,
        text: str = "text",
        partial: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self._stream = stream
        self._text = text
        self._partial = partial

    def push(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one event. Raises: DataError when it has no text."""
        line = event.get(self._text)
        if not isinstance(line, str):
            raise DataError(
                f"the event has no text under {self._text!r}. Add it, or name another with --text."
            )
        if self._partial is not None:
            for written in self._stream.partial(line):
                self._partial({**event, "partial": written})
        found = self._stream.push(line)
        return {
            **event,
            "translation": found.text,
            "log_prob": round(found.log_prob, 6),
            "score": round(found.score, 6),
        }
