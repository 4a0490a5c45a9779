"""What the reports of all runs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recurra.errors import RunError
from recurra.report.page import Page
from recurra.report.parts import (
    Metrics,
    add_metrics,
    add_notes,
    add_scores,
    add_training,
    refuse_gradients,
)
from recurra.runs import RunFolder, write_json

RESULTS = [
    {"model": "naive", "metrics": {"mase": 1.5}},
    {"model": "recurra", "metrics": {"mase": 0.75, "wql": 0.25}},
]
RECORD = {
    "seed": 3,
    "result": {"steps": 40, "seconds": 12.4, "stopped": "patience", "best_step": 30},
}


def draw(page: Page, metrics: Metrics) -> None:
    add_scores(page, metrics["results"], "test set")
    add_notes(page, metrics["notes"])


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def test_scores_have_a_column_for_each_metric_of_any_model(run: RunFolder) -> None:
    write_json(run.metrics_path, {"results": RESULTS, "notes": ["2 rows left out"]})
    page = Page("Toy")
    add_metrics(page, run, "toy", draw)
    html = page.html()
    assert "<td>naive</td>" in html
    assert '<td class="number">1.500</td><td class="number">–</td>' in html
    assert '<td class="number">0.7500</td><td class="number">0.2500</td>' in html
    assert "<caption>test set</caption>" in html
    assert "<p>Note: 2 rows left out.</p>" in html


def test_a_run_without_scores_says_how_to_get_them(run: RunFolder) -> None:
    page = Page("Toy")
    add_metrics(page, run, "toy", draw)
    assert "has not been evaluated: `recurra toy evaluate` adds the scores" in page.html()


@pytest.mark.parametrize("value", [[], {"results": 3}, {"results": [{}]}, {"results": RESULTS}])
def test_what_are_no_results_is_named_with_what_to_do(run: RunFolder, value: Any) -> None:
    write_json(run.metrics_path, value)
    message = r"metrics\.json cannot be used \(it has no results of ours\)\. Run `recurra toy eval"
    with pytest.raises(RunError, match=message):
        add_metrics(Page("Toy"), run, "toy", draw)


def test_a_damaged_file_is_named_with_its_damage_and_what_to_do(run: RunFolder) -> None:
    run.metrics_path.write_bytes(b"{")
    with pytest.raises(RunError, match=r"is damaged: not valid JSON.*\)\. Run `recurra toy eval"):
        add_metrics(Page("Toy"), run, "toy", draw)


def test_training_says_how_long_it_was_and_which_weights_count() -> None:
    page = Page("Toy")
    add_training(page, RECORD, ["9 rows", "warning: few rows"], [], "loss", "Temperature 2.")
    html = page.html()
    assert "<p>9 rows</p>" in html
    assert '<p class="warning" role="note">warning: few rows</p>' in html
    words = "40 steps in 12 s, ended by patience; best weights at step 30. Temperature 2. Seed 3."
    assert f"<p>{words}</p>" in html
    assert "<figure" not in html


def test_training_without_validation_has_no_best_weights_but_a_curve() -> None:
    page = Page("Toy")
    result = {**RECORD["result"], "best_step": None}  # type: ignore[dict-item]
    history = [{"step": 1, "loss": 2.0, "learning_rate": 1e-3}]
    add_training(page, {**RECORD, "result": result}, [], history, "Loss (nats)")
    assert "<p>40 steps in 12 s, ended by patience. Seed 3.</p>" in page.html()
    assert "<figcaption>Loss (nats)</figcaption>" in page.html()


def test_gradients_that_no_page_shows_are_refused_with_their_file(run: RunFolder) -> None:
    message = str(refuse_gradients(run, "a toy"))
    assert "--gradients: the report of a toy does not draw them" in message
    assert "read gradients.jsonl in the run folder" in message
