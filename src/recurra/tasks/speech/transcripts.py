"""What was heard: a text, its words with times and confidences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recurra.decoding.ctc import Emission
from recurra.tasks.speech.settings import Design


@dataclass(frozen=True)
class Word:
    """A word, when it was said, in seconds from the beginning, and how sure the network is, 0 to 1.

    Times are those at which the network says the word's characters. Training does not tell it when
    to, so they may lie some tenths of a second off, mostly late.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """A text and its words; `confidence` is the mean over the words, None without any."""

    text: str
    words: tuple[Word, ...]

    @property
    def confidence(self) -> float | None:
        """Mean of the words' confidences."""
        if not self.words:
            return None
        return sum(word.confidence for word in self.words) / len(self.words)

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        words = [{**asdict(word), "confidence": round(word.confidence, 4)} for word in self.words]
        confidence = None if self.confidence is None else round(self.confidence, 4)
        return {"text": self.text, "confidence": confidence, "words": words}


def make_transcript(emissions: Sequence[Emission], design: Design) -> Transcript:
    """The transcript of a sequence of labels; words are what stands between blanks."""
    words: list[Word] = []
    word, said_by = "", list[Emission]()  # the open word, and the labels that said some of it
    for emission in emissions:
        for character in design.decode([emission.token]):
            if character != " ":
                word += character
                said_by.append(emission)
            elif word:
                words.append(_word(word, said_by, design))
                word, said_by = "", []
    if word:
        words.append(_word(word, said_by, design))
    return Transcript(" ".join(one.text for one in words), tuple(words))


def _word(text: str, said_by: Sequence[Emission], design: Design) -> Word:
    return Word(
        text,
        round(said_by[0].start * design.step_s, 3),
        round(said_by[-1].end * design.step_s, 3),
        sum(one.confidence for one in said_by) / len(said_by),
    )
