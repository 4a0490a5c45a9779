"""What `gradient_flow` measured in the course of a run: gradients.jsonl, and warnings in words."""

from __future__ import annotations

import sys
from pathlib import Path

from recurra.training.flow_values import GradientFlow
from recurra.training.flow_warnings import flow_warnings
from recurra.training.log import JsonLines, read_log


class FlowLog:
    """One line for each measurement: `step`, the updates done before it, and the `GradientFlow`.

    `path` None keeps nothing. Each kind of warning is printed once, for the first layer with it.
    """

    def __init__(self, path: Path | None) -> None:
        self._lines = JsonLines(path)
        self._warned: set[str] = set()

    def open(self, step: int) -> None:
        """Begin, or go on before update `step`, which is measured anew where it is due.

        Raises: RunError when the file cannot be read or written.
        """
        path = self._lines.path
        entries = read_log(path) if path is not None and step > 0 else []
        self._lines.open([entry for entry in entries if entry["step"] < step])

    def add(self, step: int, flow: GradientFlow) -> None:
        """Append a measurement, and warn on stderr of what it shows for the first time."""
        self._lines.append({"step": step, **flow.to_json()})
        for warning in flow_warnings(flow):
            if warning.kind not in self._warned:
                self._warned.add(warning.kind)
                print(f"warning: step {step}: {warning.text}", file=sys.stderr, flush=True)

    def sync(self) -> None:
        """Force the file to the disk."""
        self._lines.sync()

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
