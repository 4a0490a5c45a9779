"""A translator's report: scores, worst and best sentences, attention, how it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recurra.errors import ConfigError, RunError
from recurra.report import charts
from recurra.report.page import Page
from recurra.report.results import metric_names
from recurra.runs import RunFolder, read_json
from recurra.tasks.translation.fitted import Fitted
from recurra.training.log import read_log

_LONGEST = 60
"""Pieces of a side up to which attention is drawn."""


def run_report(run: RunFolder, gradients: bool = False) -> Page:
    """The report of a run folder, from its files alone.

    Raises: RunError for files that are damaged; ConfigError for gradients, which it has no page of.
    """
    if gradients:
        raise ConfigError(
            "--gradients: the report of a translator does not draw them. Leave it out, and read "
            f"{run.gradients_path.name} in the run folder."
        )
    fitted = Fitted.load(run)
    page = Page(f"Translator: {run.path.name}")
    if run.metrics_path.is_file():
        metrics = read_json(run.metrics_path)
        try:
            _add_scores(page, metrics)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{run.metrics_path} cannot be used (it has no results of ours). Run `recurra "
                "translate evaluate` again, or remove it."
            ) from error
    else:
        page.warning("This run has not been evaluated: `recurra translate evaluate` adds scores.")
    _add_training(page, fitted, read_log(run.log_path))
    return page


def _add_scores(page: Page, metrics: Mapping[str, Any]) -> None:
    page.heading("Scores")
    results = metrics["results"]
    names = metric_names(results)
    rows = [[row["model"], *(row["metrics"].get(name) for name in names)] for row in results]
    page.table(["model", *names], rows, caption=str(metrics["data"]))
    for note in metrics["notes"]:
        page.text(f"Note: {note}.")
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


def _add_training(page: Page, fitted: Fitted, history: Sequence[Mapping[str, Any]]) -> None:
    result = fitted.training["result"]
    page.heading("Training")
    for note in fitted.notes:
        page.text(note)
    page.text(
        f"{result['steps']} steps in {result['seconds']:.0f} s, ended by {result['stopped']}; best "
        f"weights at step {result['best_step']}. Seed {fitted.training['seed']}."
    )
    if history:
        page.figure(charts.to_svg(charts.loss_curves(history)), "Loss (nats per token)")
