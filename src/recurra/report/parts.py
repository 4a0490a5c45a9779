"""The parts that the reports of all runs have: scores, notes, and how the run was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from recurra.errors import ConfigError, RunError
from recurra.report.charts import loss_curves
from recurra.report.drawing import to_svg
from recurra.report.page import Page
from recurra.report.results import metric_names
from recurra.runs import RunFolder, read_json

Metrics = Mapping[str, Any]


def refuse_gradients(run: RunFolder, model: str) -> ConfigError:
    """The error of `--gradients` for a model whose report does not draw them."""
    return ConfigError(
        f"--gradients: the report of {model} does not draw them. Leave it out, and read "
        f"{run.gradients_path.name} in the run folder."
    )


def add_metrics(
    page: Page, run: RunFolder, command: str, add: Callable[[Page, Metrics], None]
) -> None:
    """What `add` makes of what `recurra COMMAND evaluate` left in the run; else a warning.

    Raises: RunError when it is damaged, or not what `add` knows.
    """
    if not run.metrics_path.is_file():
        page.warning(
            f"This run has not been evaluated: `recurra {command} evaluate` adds the scores."
        )
        return
    try:
        add(page, read_json(run.metrics_path))
    except (RunError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = error if isinstance(error, RunError) else "it has no results of ours"
        raise RunError(
            f"{run.metrics_path} cannot be used ({reason}). Run `recurra {command} evaluate` "
            "again, or remove it."
        ) from error


def add_scores(page: Page, results: Sequence[Mapping[str, Any]], caption: str) -> None:
    """The table of metrics, one row per model."""
    names = metric_names(results)
    rows = [[row["model"], *(row["metrics"].get(name) for name in names)] for row in results]
    page.table(["model", *names], rows, caption=caption)


def add_notes(page: Page, notes: Iterable[str]) -> None:
    """Notes of an evaluation, a paragraph each."""
    for note in notes:
        page.text(f"Note: {note}.")


def add_training(
    page: Page,
    training: Mapping[str, Any],
    notes: Iterable[str],
    history: Sequence[Mapping[str, Any]],
    loss: str,
    remark: str = "",
) -> None:
    """What was noted before training, how long it took, and the loss curves.

    training   the settings of the training loop, and `result`: `TrainingResult.record`
    history    the entries of log.jsonl
    loss       what the curves show; remark, a sentence beside the length
    """
    page.heading("Training")
    for note in notes:
        if note.startswith("warning: "):
            page.warning(note)
        else:
            page.text(note)
    result = training["result"]
    words = f"{result['steps']} steps in {result['seconds']:.0f} s, ended by {result['stopped']}"
    if result["best_step"] is not None:
        words += f"; best weights at step {result['best_step']}"
    page.text(" ".join(filter(None, (f"{words}.", remark, f"Seed {training['seed']}."))))
    if history:
        page.figure(to_svg(loss_curves(history)), loss)
