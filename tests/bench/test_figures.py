"""Ratios, shares and means, on times chosen by hand."""

from __future__ import annotations

from typing import Any

import pytest

from recurra.bench.cases import Case
from recurra.bench.figures import make_rows, mean_of, memory_rows, summarise
from recurra.bench.protocol import Measured
from recurra.bench.rivals.product import GFLOP

CASE = Case("train", "gru", (64, 168, 64, 128, 2), 2)


def visit(median: float, low: float, p99: float = 1.0) -> dict[str, Any]:
    return {"median": median, "low": low, "p99": p99, "calls": 2, "cpus": 1.5}


def measured(case: Case, rounds: dict[str, list[Any]]) -> Measured:
    """Of each participant, {call: (median, low)} for each round; a pair alone is that of "run"."""
    count = len(next(iter(rounds.values())))
    found = Measured(case)
    for name in rounds:
        found.errors[name] = {} if name == "product" else {"output": 1e-7, "gradient": 2e-6}
        found.runs_on[name] = "reference" if name == "recurra" else ""
    for k in range(count):
        visits = {}
        for name, pairs in rounds.items():
            calls = pairs[k] if isinstance(pairs[k], dict) else {"run": pairs[k]}
            visits[name] = {call: visit(*pair) for call, pair in calls.items()}
        found.rounds.append(visits)
    return found


def test_ratios_of_medians_and_of_minima() -> None:
    one = measured(
        CASE,
        {
            "product": [(0.02, 0.016)] * 3,
            "recurra": [(0.1, 0.08), (0.3, 0.05), (0.2, 0.1)],
            "torch": [(0.4, 0.3), (0.9, 0.4), (0.6, 0.2)],
        },
    )
    ours, theirs = make_rows(one, 0.02)
    assert (ours["participant"], theirs["participant"]) == ("recurra", "torch")
    assert (ours["median_ms"], ours["min_ms"]) == pytest.approx((200.0, 50.0))
    assert ours["ratio_median"] == pytest.approx(0.6 / 0.2)
    assert ours["ratio_min"] == pytest.approx(0.2 / 0.05)
    assert (theirs["ratio_median"], theirs["ratio_min"]) == (1.0, 1.0)
    speed, product = CASE.gflop / 0.05, GFLOP / 0.016
    assert ours["product_percent"] == pytest.approx(100 * speed / product)
    assert (ours["runs_on"], theirs["runs_on"]) == ("reference", None)
    assert (ours["output_error"], ours["gradient_error"]) == (1e-7, 2e-6)


def test_disturbed_rounds_are_left_out_and_counted() -> None:
    one = measured(
        CASE,
        {
            "product": [(0.02, 0.016), (0.026, 0.016), (0.02, 0.016)],
            "recurra": [(0.1, 0.1), (9.0, 0.001), (0.1, 0.1)],
            "torch": [(0.2, 0.2), (0.2, 0.2), (0.2, 0.2)],
        },
    )
    ours = make_rows(one, 0.02)[0]
    assert (ours["rounds"], ours["kept"]) == (3, 2)
    assert (ours["median_ms"], ours["min_ms"]) == pytest.approx((100.0, 100.0))


def test_without_a_quiet_round_all_count_and_kept_says_so() -> None:
    one = measured(CASE, {"product": [(0.02, 0.02)], "recurra": [(0.1, 0.1)]})
    (ours,) = make_rows(one, 0.01)
    assert (ours["kept"], ours["rounds"], ours["median_ms"]) == (0, 1, 100.0)
    assert ours["ratio_median"] is None  # torch did not take part


def test_steps_are_held_against_the_cells_and_have_no_share_of_the_product() -> None:
    case = Case("step", "gru", (1, 20, 32, 32, 1), 1)
    one = measured(
        case,
        {
            "product": [(0.02, 0.02)],
            "recurra": [(1e-5, 5e-6, 3e-5)],
            "torch": [(4e-5, 4e-5, 1e-4)],
            "torch-cell": [(3e-5, 2e-5, 9e-5)],
        },
    )
    ours = make_rows(one, 0.02)[0]
    assert ours["ratio_median"] == pytest.approx(3.0)
    assert ours["ratio_min"] == pytest.approx(4.0)
    assert ours["p99_ms"] == pytest.approx(0.03)
    assert "product_percent" not in ours


def test_a_ragged_batch_is_held_against_its_padded_one_and_torchs_packed_one() -> None:
    case = Case("ragged-train", "gru", (64, 100, 64, 128, 1), 1)
    one = measured(
        case,
        {
            "recurra": [{"ragged": (0.6, 0.5), "padded": (1.0, 1.0)}],
            "torch": [{"ragged": (6.0, 6.0), "padded": (2.0, 2.0)}],
        },
    )
    ours = make_rows(one, float("inf"))[0]
    assert (ours["median_ms"], ours["padded_ms"]) == (600.0, 1000.0)
    assert (ours["of_padded_median"], ours["of_padded_min"]) == pytest.approx((0.6, 0.5))
    assert ours["ratio_median"] == pytest.approx(10.0)


def test_memory_is_the_median_of_processes_and_a_share_of_torchs() -> None:
    case = Case("memory", "gru", (64, 100, 64, 128, 1), 1)
    mib = 2**20
    ours, theirs = memory_rows(
        case, {"recurra": [1 * mib, 9 * mib, 2 * mib], "torch": [4 * mib] * 3}
    )
    assert (ours["mib"], ours["of_torch"], theirs["mib"]) == (2.0, 0.5, 4.0)
    assert memory_rows(case, {"recurra": [mib]})[0]["of_torch"] is None


def test_means_are_geometric_over_the_shapes_of_one_cell_mode_and_threads() -> None:
    def row(participant: str, time: int, median_ms: float, ratio: float) -> dict[str, Any]:
        return {
            "mode": "train",
            "cell": "gru",
            "threads": 2,
            "shape": [1, time, 3, 4, 1],
            "participant": participant,
            "median_ms": median_ms,
            "min_ms": median_ms / 2,
            "ratio_median": ratio,
            "ratio_min": ratio,
            "output_error": time * 1e-7,
        }

    rows = [
        row("recurra", 1, 10.0, 2.0),
        row("recurra", 2, 10.0, 8.0),
        row("torch-tuned", 1, 15.0, 1.0),
        row("torch-tuned", 2, 60.0, 1.0),
        {**row("recurra", 3, 10.0, 100.0), "cell": "rnn"},
    ]
    ours = summarise(rows)[0]
    assert (ours["participant"], ours["cell"], ours["shapes"]) == ("recurra", "gru", 2)
    assert ours["ratio_median"] == pytest.approx(4.0)
    assert ours["lowest_ratio"] == 2.0
    assert ours["tuned_ratio_median"] == pytest.approx(3.0)
    assert ours["tuned_lowest_ratio"] == pytest.approx(1.5)
    rows[0]["ratio_min"], rows[0]["min_ms"] = 0.9, 10.0  # the minima may be the worse ones
    ours = summarise(rows)[0]
    assert ours["lowest_ratio"] == 0.9
    assert ours["tuned_lowest_ratio"] == pytest.approx(7.5 / 10)
    assert ours["output_error"] == 2e-7
    assert "gradient_error" not in ours


def test_the_mean_of_nothing_is_nothing() -> None:
    assert mean_of([None, None]) is None
    assert mean_of([2.0, 8.0]) == pytest.approx(4.0)
