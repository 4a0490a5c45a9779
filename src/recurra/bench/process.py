"""The workers as seen from the run: started once, asked in turn, ended together."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol

from recurra.bench.participants import Participant

TAIL = 300  # characters of stderr that a message shows
PATIENCE_S = 900.0
"""A worker that is silent for longer hangs: it is killed, and has failed from then on."""


class Worker(Protocol):
    """What the protocol needs of a participant."""

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request, {"failed": why} when there is none."""
        ...

    def close(self) -> None: ...


class WorkerProcess:
    """One participant's process on `threads` threads; see `recurra.bench.worker` for requests."""

    def __init__(
        self, participant: Participant, threads: int, patience_s: float = PATIENCE_S
    ) -> None:
        self.name = participant.name
        self._patience_s = patience_s
        self._hung = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recurra.bench.worker", participant.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=make_environment(participant, threads),
            text=True,
            encoding="utf-8",
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(self._patience_s, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        return dict(json.loads(line)) if line else {"failed": f"its process ended: {self._told()}"}

    def _give_up(self) -> None:
        self._hung = True
        self._process.kill()

    def _told(self) -> str:
        status = self._process.wait()
        if self._hung:
            return f"killed after {self._patience_s:g} s without an answer"
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace").strip()
        return f"exit status {status}. {text[-TAIL:]}".strip()

    def close(self) -> None:
        """End the process; one that does not end with its stdin is killed."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended, with something still to be written
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()


def make_environment(participant: Participant, threads: int) -> dict[str, str]:
    """The environment of a worker: this one, the number of threads under every library's name.

    NPROC is XLA's; recurra is imported from where this file is.
    """
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    source = str(Path(__file__).resolve().parents[2])
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **dict.fromkeys(counts, str(threads)),
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_PLATFORMS": "cpu",
        **participant.environment,
    }
