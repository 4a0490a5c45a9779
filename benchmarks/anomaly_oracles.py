"""Record what TSB-AD and dtaianomaly say of made-up labels and scores, for the tests.

    pip install tsb-ad dtaianomaly numba scikit-learn          # in a virtual environment of its own
    python benchmarks/anomaly_oracles.py tests/tasks/anomaly/oracles.json

Neither package is a dependency. The cases are made here from seeds and written out whole, so that
the file needs nothing beside it.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 20


def make_case(seed: int) -> dict[str, list[float]]:
    """Labels with runs of all kinds (also at both ends), scores with ties, and alarms."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(120, 300))
    labels = np.zeros(count, int)
    for start in rng.integers(0, count, rng.integers(1, 6)):
        labels[start : start + rng.integers(1, 40)] = 1
    if seed % 3 == 0:
        labels[:3] = 1
    if seed % 4 == 0:
        labels[-2:] = 1
    scores = np.round(rng.normal(size=count) + labels * rng.uniform(0, 2), 2 if seed % 2 else 1)
    alarms = (scores > rng.uniform(0.5, 1.5)).astype(int)
    return {"labels": labels.tolist(), "scores": scores.tolist(), "alarms": alarms.tolist()}


def ask(case: dict[str, list[float]]) -> dict[str, float]:
    """The outputs of both packages for one case."""
    from dtaianomaly import evaluation
    from TSB_AD.evaluation.basic_metrics import basic_metricor, generate_curve

    labels, scores, alarms = (np.array(case[key]) for key in ("labels", "scores", "alarms"))
    *_, vus_roc, vus_pr = generate_curve(labels, scores, WINDOW, "opt", 250)
    found = {
        "vus_pr": vus_pr,
        "vus_roc": vus_roc,
        "range_recall": evaluation.RangeBasedRecall().compute(labels, alarms),
        "range_precision": evaluation.RangeBasedPrecision().compute(labels, alarms),
        "range_f1": evaluation.RangeBasedFBeta().compute(labels, alarms),
        "event_recall": evaluation.EventWiseRecall().compute(labels, alarms),
        "precision": evaluation.Precision().compute(labels, alarms),
    }
    if not labels[-1]:  # of an anomaly that ends the series TSB-AD leaves out the last row
        found["event_f1"] = basic_metricor().metric_EventF1PA(labels, scores, preds=alarms)
    return found


def main() -> None:
    """Write cases and outputs to the path given."""
    cases: list[dict[str, Any]] = [make_case(seed) for seed in range(1, 13)]
    record = {
        "versions": {name: importlib.metadata.version(name) for name in ("TSB_AD", "dtaianomaly")},
        "window": WINDOW,
        "cases": [
            {**case, "outputs": {k: float(v) for k, v in ask(case).items()}} for case in cases
        ],
    }
    Path(sys.argv[1]).write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
