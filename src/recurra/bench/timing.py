"""Timing calls, and the memory of a call: what a worker does in one visit."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Visit:
    """Seconds of one visit's calls, how many there were, and the CPUs kept busy meanwhile."""

    median: float
    low: float
    p99: float
    calls: int
    cpus: float


def time_calls(
    call: Callable[[], object],
    seconds: float,
    warmups: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Visit:
    """Time single calls for at least `seconds`, after warm-ups that may take no longer than that.

    At least one warm-up and one timed call; Python's garbage collector rests meanwhile.
    """
    begun = clock()
    for _ in range(warmups):
        call()
        if clock() - begun >= seconds:
            break
    times: list[float] = []
    gc.collect()
    gc.disable()
    try:
        busy, begun = time.process_time(), clock()
        now = begun
        while not times or now - begun < seconds:
            start = clock()
            call()
            now = clock()
            times.append(now - start)
        busy = time.process_time() - busy
    finally:
        gc.enable()
    times.sort()
    return Visit(
        median=statistics.median(times),
        low=times[0],
        p99=times[min(len(times) - 1, int(0.99 * len(times)))],
        calls=len(times),
        cpus=busy / (now - begun),
    )


def peak_growth(call: Callable[[], object]) -> int:
    """Bytes by which the call's peak of resident memory lies above what was resident before it.

    On Linux the peak is set back first; elsewhere it is that of the whole process so far, so the
    figure is right only for what needs more than anything before it.
    Raises: OSError where the system does not tell.
    """
    gc.collect()
    if sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # forbidden in some containers: then the peak before the call counts
            before = _status("VmHWM")
        else:
            before = _status("VmRSS")
        call()
        return _status("VmHWM") - before
    if sys.platform == "win32":
        raise OSError("Windows does not tell the peak of a call's memory")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun) * unit


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
