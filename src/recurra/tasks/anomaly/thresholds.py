"""Alarms from surprises, and the threshold for a wanted rate of alarms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recurra.tasks.anomaly.lanes import Array, Flags


def raise_alarms(surprise: Array, threshold: float, refractory: float, jump: float) -> Flags:
    """Alarms (n,) that a watch raises over surprises (n,), NaN where a row had no value.

    A row raises one when its surprise reaches the threshold, and `refractory` rows with a value
    have passed since the last one, or it is `jump` above the surprise of that one.
    """
    alarms = np.zeros(len(surprise), bool)
    known = np.flatnonzero(np.isfinite(surprise))
    values = surprise[known]
    last, height = -np.inf, 0.0
    for n in np.flatnonzero(values >= threshold).tolist():
        if n - last > refractory or values[n] > height + jump:
            alarms[known[n]] = True
            last, height = float(n), float(values[n])
    return alarms


def threshold_for(surprises: Sequence[Array], rate: float, refractory: float, jump: float) -> float:
    """The lowest threshold with at most `rate` alarms for each thousand rows, by bisection."""
    rows = sum(int(np.isfinite(one).sum()) for one in surprises)
    allowed = rate * rows / 1000
    levels = np.unique(np.concatenate([one[np.isfinite(one) & (one > 0)] for one in surprises]))
    if not len(levels):
        return 1.0

    def alarms(threshold: float) -> int:
        return sum(int(raise_alarms(s, threshold, refractory, jump).sum()) for s in surprises)

    low, high = 0, len(levels)  # `high` is above all that was seen
    while low < high:
        middle = (low + high) // 2
        if alarms(float(levels[middle])) <= allowed:
            high = middle
        else:
            low = middle + 1
    return float(levels[low]) if low < len(levels) else float(np.nextafter(levels[-1], np.inf))
