"""What `evaluate` says, as the JSON that the command line prints and run folders keep."""

from __future__ import annotations

from typing import Any

from recurra.report.results import make_outcome
from recurra.tasks.language.evaluation import Evaluation
from recurra.tasks.language.fitted import TASK


def evaluation_outcome(evaluation: Evaluation, data: str, seconds: float) -> dict[str, Any]:
    """The outcome of one evaluation, with its notes."""
    outcome = make_outcome(
        TASK, f"{data}, {evaluation.tokens} tokens", evaluation.results(), seconds
    )
    outcome["notes"] = list(evaluation.notes)
    return outcome
