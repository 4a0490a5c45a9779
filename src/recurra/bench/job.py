"""What a framework hands its worker: the calls to time, and the numbers they give."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from recurra.bench.inputs import Arrays


@dataclass
class Job:
    """A case made ready in one framework.

    calls     what is timed, by name: "run", and for a ragged case "ragged" and "padded"
    results   outputs and gradients of the call, under the names of `truth.true_results`
    within    entered around every visit and around `results`, such as torch.inference_mode
    runs_on   what runs it, where the framework says so
    """

    calls: dict[str, Callable[[], object]]
    results: Callable[[], Arrays]
    within: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    runs_on: str = ""
