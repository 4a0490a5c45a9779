"""A language model's report: scores, a text coloured by surprise, samples, how it was trained."""

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
from recurra.tasks.language.fitted import Fitted
from recurra.tasks.language.samples import read_samples
from recurra.training.log import read_log

SAMPLES = 6
"""Sample texts that a report shows, spread over the training."""


def run_report(run: RunFolder, gradients: bool = False) -> Page:
    """The report of a run folder, from its files alone.

    Raises: RunError for files that are damaged; ConfigError for gradients, which it has no page of.
    """
    if gradients:
        raise refuse_gradients(run, "a language model")
    fitted, _ = Fitted.load(run)
    page = Page(f"Language model: {run.path.name}")
    add_metrics(page, run, "lm", _add_evaluation)
    _add_samples(page, read_samples(run.samples_path))
    history = read_log(run.log_path)
    add_training(page, fitted.training, fitted.notes, history, "Loss (nats per token)")
    return page


def _add_evaluation(page: Page, metrics: Metrics) -> None:
    page.heading("Scores on text that was not trained on")
    add_scores(page, metrics["results"], str(metrics.get("data", "")))
    add_notes(page, metrics.get("notes", ()))
    details = metrics.get("details") or {}
    pieces, nats = details.get("pieces", []), details.get("nats", [])
    if pieces:
        page.heading("Where the model was surprised")
        page.surprise(pieces, nats, f"The first {len(pieces)} tokens; the darker, the less likely.")


def _add_samples(page: Page, samples: Sequence[Mapping[str, Any]]) -> None:
    if not samples:
        return
    page.heading("What it wrote while it was trained")
    last = len(samples) - 1
    chosen = sorted({round(k * last / (SAMPLES - 1)) for k in range(SAMPLES)})
    for number in chosen:
        page.heading(f"After {samples[number]['step']} steps", 3)
        page.text(str(samples[number]["text"]))
