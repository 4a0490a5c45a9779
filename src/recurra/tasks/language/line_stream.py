"""How surprising each line of an endless text is, as logs want it: a line in, its score out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recurra.errors import DataError
from recurra.streaming.jsonlines import read_key
from recurra.tasks.language.fitted import Fitted
from recurra.tasks.language.text_stream import TextState, TextStream


class LineStream:
    """Scores lines one after another; each is read after all that came before under its key.

    text   the name under which an event holds its line
    key    the name under which it says which text that line belongs to; None for one text

    An answer echoes the event and adds `bits` of the whole line with its end, `bits_per_char`,
    `tokens`, the texts of its tokens, and `surprise`, the bits of each.
    """

    def __init__(self, fitted: Fitted, *, text: str = "text", key: str | None = None) -> None:
        self._fitted = fitted
        self._stream = TextStream(fitted)
        self._states: dict[Any, TextState] = {}
        self._text = text
        self._key = key

    def push(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Score one line. Raises: DataError when the event has no text, or no key."""
        line, key = event.get(self._text), read_key(event, self._key)
        if not isinstance(line, str):
            raise DataError(
                f"the event has no text under {self._text!r}. Add it, or name another with --text."
            )
        if "\n" in line:
            raise DataError(f"{self._text!r} has a line end in it; expected one line an event.")
        self._stream.restore(self._states.get(key))
        reading = self._stream.read(f"{line}\n")
        self._states[key] = self._stream.state
        bits = reading.nats.double() / math.log(2)
        return {
            **event,
            "bits": round(float(bits.sum()), 4),
            "bits_per_char": round(float(bits.sum()) / (len(line) + 1), 4),
            "tokens": self._fitted.tokenizer.pieces(reading.ids.tolist()),
            "surprise": [round(value, 4) for value in bits.tolist()],
        }
