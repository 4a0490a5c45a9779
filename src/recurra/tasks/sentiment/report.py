"""A classifier's report: scores, calibration, confusions, explained texts, how it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
from recurra.tasks.sentiment.evaluation import Evaluation
from recurra.tasks.sentiment.fitted import Fitted
from recurra.training.log import read_log

_LONGEST = 3000
"""Characters of a text that the report explains."""
_MOST_LABELS = 30
"""Labels whose confusions are drawn."""


def choose_texts(evaluation: Evaluation, texts: Sequence[str], count: int) -> list[int]:
    """Numbers of texts worth looking at: half the surest right ones, half the surest wrong ones."""
    probabilities = evaluation.rows["recurra"]
    right = probabilities.argmax(1) == evaluation.targets
    order = [k for k in np.argsort(-probabilities.max(1)) if len(texts[k]) <= _LONGEST]
    sure = [int(k) for k in order if right[k]][: count // 2]
    return sure + [int(k) for k in order if not right[k]][: count - len(sure)]


def run_report(run: RunFolder, gradients: bool = False) -> Page:
    """The report of a run folder, from its files alone.

    Raises: RunError for files that are damaged; ConfigError for gradients, which it has no page of.
    """
    if gradients:
        raise refuse_gradients(run, "a classifier")
    fitted = Fitted.load(run)
    page = Page(f"Text classifier: {run.path.name}")
    add_metrics(page, run, "sentiment", _add_evaluation)
    history = read_log(run.log_path)
    add_training(
        page,
        fitted.training,
        fitted.notes,
        history,
        "Loss (nats per text)",
        f"Temperature {fitted.temperature:.3f}.",
    )
    return page


def _add_evaluation(page: Page, metrics: Metrics) -> None:
    page.heading("Scores")
    add_scores(page, metrics["results"], str(metrics["data"]))
    add_notes(page, metrics["notes"])
    details = metrics["details"]
    _add_explained(page, details["explained"])
    page.heading("Is it as sure as it may be?")
    page.table(
        ["confidence", "accuracy", "texts"],
        [[row["confidence"], row["accuracy"], row["n"]] for row in details["reliability"]],
        caption="Texts by the probability of their likeliest label; both columns should agree.",
    )
    labels = details["labels"]
    if len(labels) <= _MOST_LABELS:
        page.heading("Confusions")
        page.table(
            ["true label", *labels],
            [[label, *row] for label, row in zip(labels, details["confusion"], strict=True)],
            caption="Texts of each true label, by the label that they were given.",
        )


def _add_explained(page: Page, explained: Sequence[Mapping[str, Any]]) -> None:
    if not explained:
        return
    page.heading("Why")
    page.text(
        "The surest answers, right and wrong. Orange words speak for the label given, blue words "
        "against it."
    )
    for one in explained:
        verdict = "right" if one["true"] == one["label"] else f"wrong, it is {one['true']}"
        page.attribution(
            one["pieces"], one["values"], f"{one['label']} ({one['confidence']:.3f}), {verdict}"
        )
