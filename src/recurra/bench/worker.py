"""The process of one participant: JSON lines in on stdin, one JSON line back for each.

    {"do": "prepare", "case": {...}, "file": PATH}   {"errors": {...}, "runs_on": "..."}
    {"do": "visit", "seconds": s, "warmups": n, "backwards": no}   {"run": {"median": s, ...}}
    {"do": "memory", "case": {...}, "file": PATH}    {"bytes": n}

What fails is answered by {"failed": "Type: message"}, and the worker goes on. It ends with stdin.
Whatever a framework prints goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recurra.bench.cases import Case
from recurra.bench.inputs import largest_errors, make_arrays, read_case
from recurra.bench.job import Job
from recurra.bench.participants import PARTICIPANTS, PRODUCT
from recurra.bench.timing import peak_growth, time_calls

WRONG = 1e-3
"""Numbers further than this from the truth are another computation, whose time says nothing."""


class Server:
    """Answers requests for one participant; holds the case made ready last."""

    def __init__(self, participant: str) -> None:
        self.participant = participant
        module = PRODUCT.module if participant == PRODUCT.name else PARTICIPANTS[participant].module
        self.make: Callable[..., Job] = importlib.import_module(
            f"recurra.bench.rivals.{module}"
        ).make
        self.job: Job | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answers: dict[str, Callable[..., dict[str, Any]]] = {
            "prepare": self.prepare,
            "visit": self.visit,
            "memory": self.memory,
        }
        return answers[request.pop("do")](**request)

    def prepare(self, case: dict[str, Any], file: str) -> dict[str, Any]:
        """Make the case ready, and compare its numbers with the truth."""
        self.job = None  # what the last case holds goes before the next one comes
        arrays, truth = read_case(Path(file))
        job = self.make(as_case(case), arrays, self.participant)
        with job.within():
            results = job.results()
        errors = largest_errors(results, truth) if results else {}
        for name, error in errors.items():
            if not error <= WRONG:  # NaN too
                raise ArithmeticError(f"its {name} is off by {error:.3g} from torch's in float64")
        self.job = job
        return {"errors": errors, "runs_on": job.runs_on}

    def visit(self, seconds: float, warmups: int, backwards: bool = False) -> dict[str, Any]:
        """Time every call of the case, the last one first when `backwards`."""
        assert self.job is not None, "visit before prepare"
        calls = self.job.calls
        with self.job.within():
            found = {
                name: asdict(time_calls(calls[name], seconds, warmups))
                for name in (reversed(calls) if backwards else calls)
            }
        return {name: found[name] for name in calls}

    def memory(self, case: dict[str, Any], file: str) -> dict[str, Any]:
        """The peak of one call; a tiny call of the same kind has loaded the libraries before."""
        large = as_case(case)
        tiny = Case(large.mode, large.cell, (2, 3, *large.shape[2:]), large.threads)
        self.make(tiny, make_arrays(tiny), self.participant).calls["run"]()
        job = self.make(large, read_case(Path(file))[0], self.participant)
        with job.within():
            return {"bytes": peak_growth(job.calls["run"])}


def as_case(value: dict[str, Any]) -> Case:
    """A case out of its JSON form."""
    batch, time, inputs, hidden, layers = value["shape"]
    return Case(**{**value, "shape": (batch, time, inputs, hidden, layers)})


def main() -> None:
    """Serve stdin, with stdout kept for the answers alone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server: Server | None = None
    for line in sys.stdin:
        try:
            server = server or Server(sys.argv[1])
            reply = server.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - a rival may raise anything; it must not end the run
            reply = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
