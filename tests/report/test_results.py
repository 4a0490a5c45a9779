"""Outcomes keep their form, seeds are combined rightly, and tables come from the files alone."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recurra import __version__
from recurra.errors import DataError, RunError
from recurra.report import results


def outcome(seed: float, **changed: Any) -> dict[str, Any]:
    rows = [
        results.make_result("naive", {"mase": 1.0, "owa": None}),
        results.make_result("recurra", {"mase": seed, "owa": {"mean": seed, "sd": 9.0, "n": 2}}),
        results.make_result("Theta (A 2000)", {"mase": 0.9}, source="published"),
    ]
    made = results.make_outcome("forecasting", "toy, 3 series", rows, seconds=10 * seed)
    return {**made, "machine": "laptop", "commit": "abc", **changed}


def test_an_outcome_has_exactly_the_keys_of_the_contract() -> None:
    made = results.make_outcome(
        "speech", "an4", [results.make_result("recurra", {"wer": 0.1})], 1.23456
    )
    assert tuple(made) == ("task", "data", "results", "seconds", "machine", "commit")
    assert made["results"] == [{"model": "recurra", "source": "measured", "metrics": {"wer": 0.1}}]
    assert made["seconds"] == 1.235
    assert "CPU" in made["machine"]
    assert "torch" in made["machine"]
    assert json.loads(json.dumps(made)) == made


def test_seeds_are_combined_as_mean_and_deviation() -> None:
    seeds = [0.7, 0.8, 1.2]
    combined = results.combine([outcome(seed) for seed in seeds])
    rows = {row["model"]: row["metrics"] for row in combined["results"]}
    expected = {"mean": pytest.approx(0.9), "sd": pytest.approx(statistics.stdev(seeds)), "n": 3}
    assert rows["recurra"]["mase"] == expected
    assert rows["recurra"]["owa"] == expected  # of the seeds' means, not of what is inside them
    assert rows["naive"] == {"mase": {"mean": 1.0, "sd": 0.0, "n": 3}, "owa": None}
    assert rows["Theta (A 2000)"] == {"mase": 0.9}
    assert combined["seconds"] == pytest.approx(9.0)
    assert combined["machine"] == "laptop"


def test_targets_are_combined_and_shown_one_by_one() -> None:
    outcomes = [
        outcome(seed, targets={"rain": [results.make_result("recurra", {"mase": 2 * seed})]})
        for seed in (0.5, 0.7)
    ]
    combined = results.combine(outcomes)
    assert combined["targets"]["rain"][0]["metrics"]["mase"]["mean"] == pytest.approx(1.2)
    page = results.format_table("toy", "About.", combined, ["0", "1"])
    assert page.index("## rain") < page.index("| recurra | measured | 1.2 ± 0.283 |")
    assert "targets" not in results.combine([outcome(0.5)])


def test_a_metric_that_a_seed_lacks_counts_the_others() -> None:
    short = outcome(0.5)
    del short["results"][1]["metrics"]["mase"]
    combined = results.combine([short, outcome(0.7), outcome(0.9)])
    assert combined["results"][1]["metrics"]["mase"]["n"] == 2
    assert combined["results"][1]["metrics"]["mase"]["mean"] == pytest.approx(0.8)


def test_machines_and_commits_are_all_named() -> None:
    combined = results.combine([outcome(1), outcome(1, machine="server"), outcome(1, commit="def")])
    assert combined["machine"] == "laptop; server"
    assert combined["commit"] == "abc; def"


@pytest.mark.parametrize("key", ["task", "data"])
def test_different_things_are_not_combined(key: str) -> None:
    with pytest.raises(DataError, match="other"):
        results.combine([outcome(1), outcome(1, **{key: "other"})])
    with pytest.raises(DataError, match="no outcomes"):
        results.combine([])


def test_the_table_is_made_of_the_files(tmp_path: Path) -> None:
    for seed in (0, 2, 10):
        results.write_outcome(tmp_path / "toy" / f"seed-{seed}.json", outcome(0.5 + seed))
    path = results.write_table(tmp_path, "toy", "A toy.")
    assert path == tmp_path / "toy.md"
    lines = path.read_text().splitlines()
    assert lines[:3] == ["# toy", "", "A toy."]
    assert lines[4] == "| model | source | mase | owa |"
    assert lines[6] == "| naive | measured | 1 | - |"
    assert lines[7].startswith("| recurra | measured | 4.5 ± 5.29 |")
    assert lines[8] == "| Theta (A 2000) | published | 0.9 | - |"
    text = "\n".join(lines)
    assert "seeds: 0, 2, 10 (mean ± standard deviation" in text
    assert "time: 45 s for each seed" in text
    assert "machine: laptop" in text
    assert "recurra reproduce toy" in text


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    results.write_outcome(tmp_path / "toy" / "seed-3.json", outcome(0.5))
    text = results.write_table(tmp_path, "toy", "A toy.").read_text()
    assert "| recurra | measured | 0.5 |" in text
    assert "seed: 3\n" in text


def test_damaged_or_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="recurra reproduce toy"):
        results.write_table(tmp_path, "toy", "A toy.")
    path = tmp_path / "toy" / "seed-0.json"
    path.parent.mkdir()
    path.write_text('{"task": "forecasting", "data": "toy"}')
    with pytest.raises(DataError, match="has no results, seconds, machine, commit"):
        results.write_table(tmp_path, "toy", "A toy.")
    path.write_text("[]")
    with pytest.raises(DataError, match="has no task"):
        results.read_outcome(path)
    path.write_text("{")
    with pytest.raises(RunError, match="damaged"):
        results.read_outcome(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.753219, "0.7532"),
        (12.0, "12"),
        (123456.7, "123457"),
        (0.00001234, "1.234e-05"),
        (None, "-"),
        (float("nan"), "-"),
        ({"mean": 12.3, "sd": 0.456, "n": 3}, "12.3 ± 0.456"),
        ({"mean": 12.3, "sd": 0.0, "n": 3}, "12.3"),
        ({"mean": 12.3, "sd": None, "n": 1}, "12.3"),
    ],
)
def test_metrics_are_written_to_four_figures(value: object, text: str) -> None:
    assert results.format_metric(value) == text


def test_the_commit_is_that_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "checkout", lambda: None)
    assert results.describe_commit() == f"v{__version__}"
    monkeypatch.setattr(results, "checkout", lambda: tmp_path)
    assert results.describe_commit() == f"v{__version__}"
    (tmp_path / "a.txt").write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "a.txt"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert results.describe_commit() == head.stdout.strip()
    (tmp_path / "a.txt").write_text("2")
    assert results.describe_commit() == f"{head.stdout.strip()}+changes"


def test_a_checkout_is_where_this_code_lies() -> None:
    assert results.checkout() == Path(__file__).resolve().parents[2]
