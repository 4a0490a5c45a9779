from __future__ import annotations

import numpy as np
import pytest

from recurra.tasks.anomaly.returns import BEGIN, CAP, LARGEST, ReturnPeriods


def feed(values: np.ndarray) -> tuple[ReturnPeriods, dict[str, np.ndarray], list[float]]:
    periods = ReturnPeriods(1)
    state = periods.initial_state(1)
    said = periods.run(state, values[:, None, None], np.array([0]))
    return periods, state, said[:, 0, 0].tolist()


def test_surprise_is_the_equation() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    _, state, said = feed(values)
    kept = np.sort(values[BEGIN:-1])[-LARGEST:]
    low = kept.min()
    excess = (kept - low).mean() + 0.01 * abs(low)
    rate = np.log10((999 - BEGIN + 1) / LARGEST)
    x = low + 1.0
    periods = ReturnPeriods(1)
    _, state, _ = feed(values[:-1])
    found = periods.run(state, np.array([[[x]]]), np.array([999]))[0, 0, 0]
    assert found == pytest.approx(rate + (x - low) / excess / np.log(10), rel=1e-12)
    assert min(said) == 0.0


def test_noise_is_as_surprising_as_it_is_rare() -> None:
    """Surprise is −log10 of a probability: s or more is met in 10^−s of the rows."""
    periods, lanes, rows = ReturnPeriods(1), 200, 2500
    state = periods.initial_state(lanes)
    values = np.random.default_rng(1).exponential(size=(rows, lanes, 1))
    said = periods.run(state, values, np.zeros(lanes, np.int64))
    level = 2.5
    share = float((said[1000:] > level).mean())
    assert 0.8 * 10**-level < share < 1.4 * 10**-level


def test_nothing_is_said_before_there_are_enough() -> None:
    _, _, said = feed(np.arange(BEGIN + LARGEST, dtype=float) ** 2)
    assert said == [0.0] * (BEGIN + LARGEST)


def test_surprise_is_capped_and_learned() -> None:
    values = np.concatenate([np.random.default_rng(2).normal(size=500), [1e6] * 6])
    _, _, said = feed(values)
    assert said[-6] == CAP
    assert said[-1] < 4 < said[-4]


def test_a_constant_is_never_surprising() -> None:
    _, _, said = feed(np.full(300, 7.0))
    assert max(said) == 0.0
