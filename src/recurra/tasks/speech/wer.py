"""Word and character error rates, and what was heard instead of what was said (by jiwer)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recurra.errors import MissingExtraError


@dataclass(frozen=True)
class Errors:
    """Edits between transcripts and what was heard, over all of them together.

    words, characters   of the transcripts
    wer, cer            (substitutions + deletions + insertions) / words, or characters; fractions
    confusions          (said, heard, times), the commonest first; "" for nothing
    """

    words: int
    characters: int
    wer: float
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    confusions: tuple[tuple[str, str, int], ...]
    by_row: tuple[int, ...]


def count_errors(said: Sequence[str], heard: Sequence[str]) -> Errors:
    """The errors of texts heard, beside what was said, in the same order.

    Characters are counted with the blanks between words. Raises: MissingExtraError without jiwer.

    >>> errors = count_errors(["GO HOME", "YES"], ["GO ROME", "YES"])
    >>> round(errors.wer, 3), errors.cer, errors.confusions
    (0.333, 0.1, (('HOME', 'ROME', 1),))
    """
    jiwer = _jiwer()
    output = jiwer.process_words(list(said), list(heard))
    confusions: Counter[tuple[str, str]] = Counter()
    by_row = []
    for chunks, reference, hypothesis in zip(
        output.alignments, output.references, output.hypotheses, strict=True
    ):
        edits = 0
        for chunk in chunks:
            before = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            after = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            if chunk.type == "equal":
                continue
            edits += max(len(before), len(after))
            if chunk.type == "substitute":
                confusions.update(zip(before, after, strict=True))
            else:
                confusions.update((word, "") for word in before)
                confusions.update(("", word) for word in after)
        by_row.append(edits)
    ranked = sorted(confusions.items(), key=lambda item: (-item[1], item[0]))
    return Errors(
        sum(len(text.split()) for text in said),
        sum(map(len, said)),
        float(output.wer),
        character_errors(said, heard),
        output.substitutions,
        output.deletions,
        output.insertions,
        tuple((before, after, times) for (before, after), times in ranked),
        tuple(by_row),
    )


def character_errors(said: Sequence[str], heard: Sequence[str]) -> float:
    """The character error rate, a fraction."""
    return float(_jiwer().cer(list(said), list(heard)))


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise MissingExtraError("jiwer", "speech", "Counting word errors") from error
    return jiwer
