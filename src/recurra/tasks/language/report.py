"""A language model's report: scores, a text coloured by surprise, samples, how it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recurra.errors import ConfigError, RunError
from recurra.report import charts
from recurra.report.page import Page
from recurra.report.results import metric_names
from recurra.runs import RunFolder, read_json
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
        raise ConfigError(
            "--gradients: the report of a language model does not draw them. Leave it out, and "
            f"read {run.gradients_path.name} in the run folder."
        )
    fitted, _ = Fitted.load(run)
    page = Page(f"Language model: {run.path.name}")
    if run.metrics_path.is_file():
        _add_scores(page, _read_metrics(run))
    else:
        page.warning("This run has not been evaluated: `recurra lm evaluate` adds the scores.")
    _add_samples(page, read_samples(run.samples_path))
    _add_training(page, fitted, read_log(run.log_path))
    return page


def _add_scores(page: Page, metrics: Mapping[str, Any]) -> None:
    page.heading("Scores on text that was not trained on")
    results = metrics["results"]
    names = metric_names(results)
    rows = [[row["model"], *(row["metrics"].get(name) for name in names)] for row in results]
    page.table(["model", *names], rows, caption=str(metrics.get("data", "")))
    for note in metrics.get("notes", ()):
        page.text(f"Note: {note}.")
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


def _add_training(page: Page, fitted: Fitted, history: Sequence[Mapping[str, Any]]) -> None:
    result = fitted.training["result"]
    page.heading("Training")
    for note in fitted.notes:
        page.text(note)
    words = f"{result['steps']} steps in {result['seconds']:.0f} s, ended by {result['stopped']}"
    if result["best_step"] is not None:
        words += f"; best weights at step {result['best_step']}"
    page.text(words + f". Seed {fitted.training['seed']}.")
    if history:
        page.figure(charts.to_svg(charts.loss_curves(history)), "Loss (nats per token)")


def _read_metrics(run: RunFolder) -> dict[str, Any]:
    metrics = read_json(run.metrics_path)
    if isinstance(metrics, dict) and _are_results(metrics.get("results")) and _are_details(metrics):
        return metrics
    raise RunError(
        f"{run.metrics_path} cannot be used (it has no results of ours). Run `recurra lm evaluate` "
        "again, or remove it."
    )


def _are_results(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, dict) and "model" in row and isinstance(row.get("metrics"), dict)
        for row in value
    )


def _are_details(metrics: Mapping[str, Any]) -> bool:
    details = metrics.get("details", {})
    if not isinstance(details, dict):
        return False
    pieces, nats = details.get("pieces", []), details.get("nats", [])
    return (
        isinstance(pieces, list)
        and isinstance(nats, list)
        and len(pieces) == len(nats)
        and all(isinstance(piece, str) for piece in pieces)
        and all(isinstance(value, (int, float)) for value in nats)
    )
