"""A transcriber's report: error rates, worst recordings, confusions, an alignment, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recurra.errors import ConfigError, RunError
from recurra.report import charts
from recurra.report.page import Page
from recurra.report.results import metric_names
from recurra.runs import RunFolder, read_json
from recurra.tasks.speech.fitted import Fitted
from recurra.training.log import read_log

_NOTHING = "(nothing)"


def run_report(run: RunFolder, gradients: bool = False) -> Page:
    """The report of a run folder, from its files alone.

    Raises: RunError for files that are damaged; ConfigError for gradients, which it has no page of.
    """
    if gradients:
        raise ConfigError(
            "--gradients: the report of a transcriber does not draw them. Leave it out, and "
            f"read {run.gradients_path.name} in the run folder."
        )
    fitted, _ = Fitted.load(run)
    page = Page(f"Transcriber: {run.path.name}")
    if run.metrics_path.is_file():
        metrics = read_json(run.metrics_path)
        try:
            _add_scores(page, metrics)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{run.metrics_path} cannot be used ({error!r}). Run `recurra speech evaluate` "
                "again, or remove it."
            ) from error
    else:
        page.warning("This run has not been evaluated: `recurra speech evaluate` adds the scores.")
    _add_training(page, fitted, read_log(run.log_path))
    return page


def _add_scores(page: Page, metrics: Mapping[str, Any]) -> None:
    page.heading("Errors on recordings that were not trained on")
    results = metrics["results"]
    names = metric_names(results)
    rows = [[row["model"], *(row["metrics"].get(name) for name in names)] for row in results]
    page.table(["model", *names], rows, caption=str(metrics.get("data", "")))
    for note in metrics.get("notes", ()):
        page.text(f"Note: {note}.")
    details = metrics["details"]
    picture = details["picture"]
    if picture:
        page.heading("What it says, and when")
        page.figure(
            charts.to_svg(charts.alignment_chart(_alignment(picture))),
            "Above the log-mel spectrogram of a recording, below the probability of each character",
        )
    if details["worst"]:
        page.heading("Worst recordings")
        page.table(
            ["recording", "said", "heard", "words wrong"],
            [[str(n), str(s), str(h) or _NOTHING, int(e)] for n, s, h, e in details["worst"]],
        )
    if details["confusions"]:
        page.heading("Words taken for others")
        page.table(
            ["said", "heard", "times"],
            [[str(s) or _NOTHING, str(h) or _NOTHING, int(n)] for s, h, n in details["confusions"]],
        )


def _alignment(picture: Mapping[str, Any]) -> charts.Alignment:
    return charts.Alignment(
        str(picture["title"]),
        np.array(picture["features"], float),
        float(picture["step_s"]),
        [str(label) for label in picture["labels"]],
        np.array(picture["probabilities"], float).reshape(-1, len(picture["labels"])),
        np.array(picture["blank"], float),
    )


def _add_training(page: Page, fitted: Fitted, history: Sequence[Mapping[str, Any]]) -> None:
    result = fitted.training["result"]
    page.heading("Training")
    for note in fitted.notes:
        if note.startswith("warning: "):
            page.warning(note)
        else:
            page.text(note)
    words = f"{result['steps']} steps in {result['seconds']:.0f} s, ended by {result['stopped']}"
    if result["best_step"] is not None:
        words += f"; best weights at step {result['best_step']}"
    page.text(words + f". Seed {fitted.training['seed']}.")
    if history:
        caption = "Loss in training (nats per character), and in validation (character error rate)"
        page.figure(charts.to_svg(charts.loss_curves(history)), caption)
