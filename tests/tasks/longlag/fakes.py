"""A stand-in for scikit-learn's images, for tests that need no real ones."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest


def install_digits(monkeypatch: pytest.MonkeyPatch, rows: int = 1797) -> tuple[np.ndarray, ...]:
    """Make `sklearn.datasets.load_digits` give these pixels, 0 to 16, and classes."""
    rng = np.random.default_rng(0)
    data, target = rng.integers(0, 17, (rows, 64)).astype(float), rng.integers(0, 10, rows)
    module = types.ModuleType("sklearn.datasets")
    module.load_digits = lambda return_X_y: (data, target)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sklearn", types.ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", module)
    return data, target
