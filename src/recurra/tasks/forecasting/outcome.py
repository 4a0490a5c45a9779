"""What `evaluate` says, as the JSON that the command line prints and run folders keep."""

from __future__ import annotations

from typing import Any

from recurra.report.results import make_outcome
from recurra.tasks.forecasting.evaluation import Evaluation
from recurra.tasks.forecasting.fitted import TASK


def evaluation_outcome(evaluation: Evaluation, data: str, seconds: float) -> dict[str, Any]:
    """DESIGN's outcome over all targets; with several, each one's results under `targets`."""
    windows = evaluation.windows
    horizon = evaluation.actual.shape[2]
    outcome = make_outcome(
        TASK,
        f"{data}, {windows} window{'s' if windows > 1 else ''} of {horizon} steps",
        evaluation.results(),
        seconds,
    )
    if len(evaluation.target) > 1:
        outcome["targets"] = {name: evaluation.results(name) for name in evaluation.target}
    outcome["season"] = evaluation.season
    outcome["notes"] = list(evaluation.notes)
    return outcome
