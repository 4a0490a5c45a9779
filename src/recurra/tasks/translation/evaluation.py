"""Scores of translations against references, by sacrebleu, beside what needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recurra.errors import ConfigError, MissingExtraError, unknown
from recurra.report.results import make_result
from recurra.tasks.translation.fitted import Fitted
from recurra.tasks.translation.pairs import Pairs
from recurra.tasks.translation.searching import Search
from recurra.tasks.translation.translate import Translation, translate

OURS = "recurra"
NAIVE = "source copied"
SHOWN = 5
"""Best and worst sentences, and attention pictures, that are shown."""
_LEARNED = 1.0  # BLEU below which hardly four words in a row are right
_FEWEST_WORDS = 4  # below, one word decides whether a sentence is among the best or the worst


@dataclass(frozen=True)
class Scores:
    """BLEU and chrF of a corpus, 0 to 100, and the signatures that say how they were computed."""

    bleu: float
    chrf: float
    signatures: tuple[str, str]


@dataclass(frozen=True)
class Row:
    """One sentence: where it stood, what was to be said, what was said, chrF of it (0 to 100)."""

    line: int
    source: str
    reference: str
    translation: str
    chrf: float


@dataclass(frozen=True)
class Evaluation:
    """What was found on pairs that were not trained on; `rows` are in their order."""

    ours: Scores
    naive: Scores
    rows: tuple[Row, ...]
    translations: tuple[Translation, ...]
    notes: tuple[str, ...]

    @property
    def bleu(self) -> float:
        """BLEU of the corpus, 0 to 100."""
        return self.ours.bleu

    @property
    def chrf(self) -> float:
        """chrF of the corpus, 0 to 100."""
        return self.ours.chrf

    def results(self) -> list[dict[str, Any]]:
        """A row of metrics for the model, and for the source as its own translation."""
        return [
            make_result(name, {"bleu": scores.bleu, "chrf": scores.chrf})
            for name, scores in ((OURS, self.ours), (NAIVE, self.naive))
        ]

    def ranked(self) -> list[Row]:
        """Sentences that are not very short, the worst first."""
        rows = [row for row in self.rows if len(row.reference.split()) >= _FEWEST_WORDS]
        return sorted(rows or self.rows, key=lambda row: row.chrf)

    def details(self) -> dict[str, Any]:
        """Best and worst sentences and attention pictures, for the report."""
        ranked = self.ranked()
        worst, best = ranked[:SHOWN], ranked[::-1][:SHOWN]
        index = {row.line: k for k, row in enumerate(self.rows)}
        pictured = [self.translations[index[row.line]] for row in (*best[:2], *worst[:2])]
        return {
            "signatures": list(self.ours.signatures),
            "worst": [vars(row) for row in worst],
            "best": [vars(row) for row in best],
            "attention": [
                {
                    "source": list(one.source_pieces),
                    "target": [*one.pieces, "⏎"],
                    "weights": [[round(float(w), 4) for w in line] for line in one.attention],
                }
                for one in pictured
            ],
        }


def evaluate(
    several: Sequence[Fitted], pairs: Pairs, how: Search, tokenize: str | None = None
) -> Evaluation:
    """Translate the sources and score them.

    Raises: MissingExtraError without sacrebleu, ConfigError for a tokenizer it has not.
    """
    check_tokenizer(tokenize)
    lines = [pairs.line(k) for k in range(len(pairs))]
    found, notes = translate(several, pairs.source, how, lines=lines)
    best = [one[0] for one in found]
    said = [one.text for one in best]
    rows = tuple(
        Row(*row)
        for row in zip(
            lines, pairs.source, pairs.target, said, sentence_chrf(said, pairs.target), strict=True
        )
    )
    ours = score(said, pairs.target, tokenize)
    cut = sum(not one.complete for one in best)
    notes = [*pairs.notes, *notes, *ours.signatures]
    if cut:
        notes.append(f"{cut} translations did not end before their greatest length")
    if ours.bleu < _LEARNED:
        notes.append(
            f"BLEU {ours.bleu:.2f}: hardly four words in a row are right, so it has not learned to "
            "translate these sentences. Train longer (--minutes, --steps) or on more pairs, and "
            "check that the files are aligned and in the right order."
        )
    naive = score(list(pairs.source), pairs.target, tokenize)
    return Evaluation(ours, naive, rows, tuple(best), tuple(notes))


def score(said: Sequence[str], references: Sequence[str], tokenize: str | None = None) -> Scores:
    """BLEU and chrF of a corpus with one reference for each sentence.

    tokenize   sacrebleu's tokenizer, "none" for sentences that are tokenised; None for its default
    Raises: MissingExtraError without sacrebleu.
    """
    metrics = _sacrebleu()
    # `force` keeps it from warning that sentences which are said to be tokenised look so.
    bleu, chrf = metrics.BLEU(tokenize=tokenize or "13a", force=tokenize == "none"), metrics.CHRF()
    values = [metric.corpus_score(list(said), [list(references)]).score for metric in (bleu, chrf)]
    signatures = (
        f"BLEU {bleu.get_signature().format()}",
        f"chrF {chrf.get_signature().format()}",
    )
    return Scores(float(values[0]), float(values[1]), signatures)


def sentence_chrf(said: Sequence[str], references: Sequence[str]) -> list[float]:
    """chrF of each sentence by itself."""
    chrf = _sacrebleu().CHRF()
    return [
        float(chrf.sentence_score(text, [reference]).score)
        for text, reference in zip(said, references, strict=True)
    ]


def check_tokenizer(name: str | None) -> None:
    """Raise ConfigError for a tokenizer that sacrebleu has not."""
    known = _sacrebleu().BLEU.TOKENIZERS
    if name is not None and name not in known:
        raise ConfigError(unknown("sacrebleu tokenizer", name, known))


def _sacrebleu() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise MissingExtraError("sacrebleu", "translation", "Scoring translations") from error
    return sacrebleu.metrics
