"""Exponential smoothing in front of a forecaster's network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recurra.errors import ConfigError
from recurra.tasks.forecasting.network import ForkingNetwork
from recurra.tasks.forecasting.settings import ModelSettings
from recurra.tasks.forecasting.smoothing import ExponentialSmoothing


def settings(**given) -> ModelSettings:
    shape = {"horizon": 5, "context": 14, "season": 4, "stride": 1, "sequence_length": 4}
    return ModelSettings(**{**shape, "hidden_size": 8, "smoothing": True, **given})


def additive_ets(values: np.ndarray, season: int, alpha: float, gamma: float) -> tuple:
    """ETS(A,N,A) in its error-correction form: the level after all rows and the last season."""
    level = values[:season].mean()
    seasonal = {i - season: values[i] - level for i in range(season)}
    for t, value in enumerate(values[season:]):
        error = value - level - seasonal[t - season]
        seasonal[t] = seasonal[t - season] + gamma * error
        level = level + alpha * error
    count = len(values) - season
    return level, np.array([seasonal[count - season + k] for k in range(season)])


@pytest.mark.parametrize(("context", "season"), [(8, 4), (14, 4), (15, 7), (9, 2)])
def test_forecast_is_that_of_exponential_smoothing(context: int, season: int) -> None:
    front = ExponentialSmoothing(context, 9, season)
    with torch.no_grad():
        front.rates.copy_(torch.tensor([-0.4, 0.9]))
    alpha, gamma = torch.sigmoid(front.rates).tolist()
    window = np.random.default_rng(0).normal(size=context).cumsum()
    adjusted, forecast = front(torch.tensor(window, dtype=torch.float32))
    level, seasonal = additive_ets(window, season, alpha, gamma)
    wanted = level + seasonal[np.arange(9) % season]
    assert forecast.tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    known = level + seasonal[(np.arange(context) - context) % season]
    assert adjusted.tolist() == pytest.approx((window - known).tolist(), abs=1e-5)


def test_a_series_that_repeats_itself_is_all_level_and_season() -> None:
    front = ExponentialSmoothing(12, 7, 4)
    shape = torch.tensor([3.0, -1.0, 0.5, 2.0])
    adjusted, forecast = front(shape.repeat(3))
    assert adjusted.abs().max().item() < 1e-6
    assert forecast.tolist() == pytest.approx(shape.repeat(2)[:7].tolist())


def test_gradients_of_the_rates_are_those_of_finite_differences() -> None:
    front = ExponentialSmoothing(11, 6, 3).double()
    window = torch.randn(2, 11, dtype=torch.float64, requires_grad=True)

    def both(rates: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.func.functional_call(front, {"rates": rates}, (values,))

    rates = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(both, (rates, window))


def test_untrained_median_is_the_smoothed_forecast() -> None:
    network = ForkingNetwork(settings(), extra_size=2, future_size=0, baseline="naive").eval()
    window, extra = torch.randn(3, 6, 14), torch.randn(3, 6, 2)
    made = network(window, extra, torch.zeros(3, 6, 5, 0))
    assert network.smoothing is not None
    _, wanted = network.smoothing(window)
    middle = network.settings.quantile_levels.index(0.5)
    torch.testing.assert_close(made[..., middle], wanted)


def test_a_longer_seasonal_skip_is_the_season() -> None:
    network = ForkingNetwork(settings(skip=7), extra_size=1, future_size=0, baseline="naive")
    assert network.smoothing is not None
    assert network.smoothing.season == 7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context": 7}, r"two whole seasons .* context=7 rows, a season 4"),
        ({"season": 1}, r"two whole seasons .* context=14 rows, a season 1"),
        ({"profile": 2}, r"profile=2 has no meaning with smoothing=True"),
        ({"model": "autoregressive"}, r"smoothing=True has no meaning with model='autoregressive'"),
        ({"model": "segments", "segment": 2}, r"smoothing=True has no meaning with model='segmen"),
    ],
)
def test_smoothing_that_cannot_be_is_refused(given: dict, message: str) -> None:
    model = {"sequence_length": 1} if "model" in given else {}
    with pytest.raises(ConfigError, match=message):
        settings(**model, **given)
