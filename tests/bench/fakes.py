"""Participants without a framework, which answer as told; and an outcome with made-up figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recurra.bench.figures import summarise


class FakeWorker:
    """Answers each visit with the next of `seconds`, the last one for ever."""

    def __init__(
        self,
        name: str,
        log: list[str],
        seconds: Sequence[float] = (1.0,),
        *,
        calls: Sequence[str] = ("run",),
        prepare: dict[str, Any] | None = None,
        memory: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.log, self.calls = name, log, calls
        self.seconds = list(seconds)
        self.prepared = prepare or {"errors": {"output": 1e-7}, "runs_on": ""}
        self.memory = memory or {"bytes": 2**20}
        self.closed = False
        self.directions: list[bool] = []

    def ask(self, **request: Any) -> dict[str, Any]:
        if request["do"] == "prepare":
            return self.prepared
        if request["do"] == "memory":
            return self.memory
        self.log.append(self.name)
        self.directions.append(request["backwards"])
        seconds = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        visit = {
            "median": seconds,
            "low": seconds / 2,
            "p99": 3 * seconds,
            "calls": 4,
            "cpus": 1.0,
        }
        return {call: {**visit} for call in self.calls}

    def close(self) -> None:
        self.closed = True


def outcome() -> dict[str, Any]:
    """An outcome with figures made up: training of a GRU, and one step."""
    head = {"cell": "gru", "threads": 2, "shape": [64, 96, 32, 64, 1], "kept": 5, "runs_on": None}
    timed = {**head, "mode": "train", "ratio_min": 1.0, "output_error": 2e-7, "min_ms": 1.0}
    rows = [
        {
            **timed,
            "participant": "recurra",
            "median_ms": 4.93,
            "ratio_median": 5.71,
            "product_percent": 84.0,
            "gradient_error": 1e-6,
            "runs_on": "cpu",
        },
        {**timed, "participant": "torch", "median_ms": 28.2, "ratio_median": 1.0, "kept": 0},
        {
            **head,
            "mode": "step",
            "participant": "numpy",
            "median_ms": 0.0041,
            "p99_ms": 0.0123,
            "min_ms": 0.004,
            "ratio_median": 12.0,
            "ratio_min": 13.0,
            "output_error": 1e-7,
        },
    ]
    return {
        "task": "bench",
        "command": "recurra bench --modes train,step",
        "seconds": 61.2,
        "machine": "a machine",
        "commit": "abc",
        "versions": {"torch": "2.13.0"},
        "settings": {"rounds": 5, "visit_s": 0.1, "warmups": 3, "pause_s": 0.03},
        "absent": {"jax": "pip install jax"},
        "failed": [{"case": "train gru", "participant": "openvino", "why": "it fell"}],
        "product_gflops": {"2": 151.2},
        "disturbed": {"rounds": 12, "discarded": 3, "waited": 0.07},
        "rows": rows,
        "summary": summarise(rows),
    }
