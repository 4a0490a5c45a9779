"""A transcriber's report: error rates, worst recordings, confusions, an alignment, training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recurra.report.drawing import to_svg
from recurra.report.maps import Alignment, alignment_chart
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
from recurra.tasks.speech.fitted import Fitted
from recurra.training.log import read_log

_NOTHING = "(nothing)"
_LOSS = "Loss in training (nats per character), and in validation (character error rate)"


def run_report(run: RunFolder, gradients: bool = False) -> Page:
    """The report of a run folder, from its files alone.

    Raises: RunError for files that are damaged; ConfigError for gradients, which it has no page of.
    """
    if gradients:
        raise refuse_gradients(run, "a transcriber")
    fitted, _ = Fitted.load(run)
    page = Page(f"Transcriber: {run.path.name}")
    add_metrics(page, run, "speech", _add_evaluation)
    history = read_log(run.log_path)
    add_training(page, fitted.training, fitted.notes, history, _LOSS)
    return page


def _add_evaluation(page: Page, metrics: Metrics) -> None:
    page.heading("Errors on recordings that were not trained on")
    add_scores(page, metrics["results"], str(metrics.get("data", "")))
    add_notes(page, metrics.get("notes", ()))
    details = metrics["details"]
    picture = details["picture"]
    if picture:
        page.heading("What it says, and when")
        page.figure(
            to_svg(alignment_chart(_alignment(picture))),
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


def _alignment(picture: Mapping[str, Any]) -> Alignment:
    return Alignment(
        str(picture["title"]),
        np.array(picture["features"], float),
        float(picture["step_s"]),
        [str(label) for label in picture["labels"]],
        np.array(picture["probabilities"], float).reshape(-1, len(picture["labels"])),
        np.array(picture["blank"], float),
    )
