"""A translator's report: scores, worst and best sentences, attention, how it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recurra.report.page import Page
from recurra.report.parts import (
    Metrics,
    add_metrics,
    add_notes,
    add_scores,
    add_training,
    refuse_gradients,
)
from recurra.runs import RunFolder
from recurra.tasks.translation.fitted import Fitted
from recurra.training.log import read_log

_LONGEST = 60
"""Pieces of a side up to which attention is drawn."""


def run_report(run: RunFolder, gradients: bool = False) -> Page:
    """The report of a run folder, from its files alone.

    Raises: RunError for files that are damaged; ConfigError for gradients, which it has no page of.
    """
    if gradients:
        raise refuse_gradients(run, "a translator")
    fitted = Fitted.load(run)
    page = Page(f"Translator: {run.path.name}")
    add_metrics(page, run, "translate", _add_evaluation)
    history = read_log(run.log_path)
    add_training(page, fitted.training, fitted.notes, history, "Loss (nats per token)")
    return page


def _add_evaluation(page: Page, metrics: Metrics) -> None:
    page.heading("Scores")
    add_scores(page, metrics["results"], str(metrics["data"]))
    add_notes(page, metrics["notes"])
    details = metrics["details"]
    for title, key in (("Worst sentences", "worst"), ("Best sentences", "best")):
        page.heading(title)
        page.table(
            ["line", "chrF", "source", "translation", "reference"],
            [
                [row["line"], row["chrf"], row["source"], row["translation"], row["reference"]]
                for row in details[key]
            ],
            caption="By chrF of each sentence, without those of three words and fewer.",
        )
    _add_attention(page, details["attention"])


def _add_attention(page: Page, pictures: Sequence[Mapping[str, Any]]) -> None:
    shown = [one for one in pictures if max(len(one["source"]), len(one["target"])) <= _LONGEST]
    if not shown:
        return
    page.heading("What it looked at")
    page.text("Downwards the translation, to the right the source; two good ones, two bad ones.")
    for one in shown:
        caption = "".join(one["target"][:-1])
        page.attention(one["source"], one["target"], one["weights"], caption)
