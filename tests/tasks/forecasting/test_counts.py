"""Counts: the negative binomial's likelihood and quantiles, and forecasts of slow movers."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp

from recurra import Forecaster
from recurra.errors import ConfigError, DataError
from recurra.tasks.forecasting.counts import (
    count_loss,
    count_quantiles,
    is_intermittent,
    negative_binomial,
)

LEVELS = (0.1, 0.5, 0.9, 0.99)


def truth(mean: torch.Tensor, shape: torch.Tensor) -> torch.distributions.NegativeBinomial:
    """torch's own, by the number of failures r = 1/α and the success probability."""
    odds = shape * mean
    return torch.distributions.NegativeBinomial(1.0 / shape, probs=odds / (1.0 + odds))


def some(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    free = torch.randn(50, 4, 3, generator=rng, dtype=torch.float64)
    level = torch.rand(50, 1, generator=rng, dtype=torch.float64) * 20
    scale = torch.rand(50, 1, generator=rng, dtype=torch.float64) * 5 + 0.01
    return free, level, scale


def test_loss_is_that_of_the_distribution() -> None:
    free, level, scale = some()
    y = torch.randint(0, 60, (50, 4), dtype=torch.float64)
    mean, shape = negative_binomial(free, level, scale)
    made = count_loss(free, (y - level) / scale, level, scale)
    torch.testing.assert_close(made, -truth(mean, shape).log_prob(y), rtol=1e-9, atol=1e-9)
    assert truth(mean, shape).mean == pytest.approx(mean)
    assert truth(mean, shape).variance == pytest.approx(mean + shape * mean**2)


def test_gradient_is_that_of_finite_differences() -> None:
    free, level, scale = some(1)
    y = torch.randint(0, 60, (50, 4), dtype=torch.float64)
    free.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda one: count_loss(one, (y - level) / scale, level, scale), (free,)
    )


def test_quantiles_are_the_smallest_counts_with_enough_below() -> None:
    free, level, scale = some(2)
    mean, shape = negative_binomial(free, level, scale)
    made = count_quantiles(mean, shape, LEVELS)
    y = torch.arange(0, 3000, dtype=torch.float64)
    share = truth(mean[..., None], shape[..., None]).log_prob(y).exp().cumsum(-1)
    for j, level_of in enumerate(LEVELS):
        wanted = (share < level_of - 1e-12).sum(-1).double()
        torch.testing.assert_close(made[..., j], wanted)
    assert (made.diff(dim=-1) >= 0).all()


def test_quantiles_of_large_counts_go_on_as_a_gamma_distribution() -> None:
    mean = torch.tensor([900.0, 5_000.0])
    shape = torch.tensor([0.1, 0.1])
    made = count_quantiles(mean, shape, (0.1, 0.5, 0.9))
    drawn = truth(mean, shape).sample((200_000,)).double()
    wanted = torch.quantile(drawn[:20_000], torch.tensor([0.1, 0.5, 0.9]).double(), dim=0).T
    torch.testing.assert_close(made, wanted, rtol=0.03, atol=1.0)


def test_counting_begins_at_a_probability_that_is_a_number() -> None:
    """With hardly any dispersion P(0) of a mean of 800 is below the smallest double."""
    mean, shape = torch.tensor([300.0, 450.0, 800.0]), torch.full((3,), 1e-4)
    made = count_quantiles(mean, shape, (0.1, 0.5, 0.9))
    wanted = mean[:, None] + (mean + 1e-4 * mean**2).sqrt()[:, None] * torch.tensor(
        [-1.2816, 0.0, 1.2816]
    )
    torch.testing.assert_close(made, wanted.double(), rtol=0.0, atol=1.5)


def slow(count: int, seed: int = 0) -> pl.DataFrame:
    """Sales of a slow mover: none on most days, a few on Saturdays."""
    rng = np.random.default_rng(seed)
    mean = np.where(np.arange(count) % 7 == 3, 3.0, 0.15)
    return pl.DataFrame({"time": days(count), "target": rng.poisson(mean).astype(float)})


def test_forecast_of_a_slow_mover_knows_its_zeros_and_its_saturdays(tmp_path: Any) -> None:
    frame = slow(420)
    made = {}
    for head in ("counts", "quantiles"):
        forecaster = fitted_on(
            frame.head(364),
            horizon=7,
            steps=200,
            batch_size=32,
            hidden_size=16,
            head=head,
            season=7,
        )
        evaluation = forecaster.evaluate(frame)
        made[head] = evaluation.results()[0]["metrics"]["wql"]
        if head == "counts":
            quantiles = evaluation.forecasts["recurra"]
            assert (quantiles == np.round(quantiles)).all()
            forecaster.save(tmp_path / "run")
            loaded = Forecaster.load(tmp_path / "run")
            assert loaded.predict().equals(forecaster.predict())
            answer = loaded.stream().forecast()["forecast"]["target"]["q0.9"]
            assert answer == forecaster.predict()["q0.9"].to_list()
            busy = np.array(answer) > 1
            assert busy.sum() == 1
            paths = forecaster.sample(count=50)["value"].to_numpy()
            assert (paths == np.round(paths)).all()
            assert paths.min() == 0.0
        else:
            assert any("holds counts with many zeros" in note for note in forecaster.fitted.notes)
    assert made["counts"] < made["quantiles"]


def test_silent_series_stay_finite() -> None:
    frame = slow(120).with_columns(target=pl.when(pl.arange(120) == 40).then(2.0).otherwise(0.0))
    forecaster = fitted_on(frame, horizon=5, steps=40, head="counts")
    made = forecaster.predict()["q0.9"].to_numpy()
    assert np.isfinite(made).all()
    assert (made <= 1.0).all()


@pytest.mark.parametrize(("value", "shown"), [(-1.0, "-1"), (2.5, "2.5"), (1e30, r"1e\+30")])
def test_what_is_no_count_is_refused(value: float, shown: str) -> None:
    frame = slow(60)
    frame = pl.concat([frame, pl.DataFrame({"time": days(61)[60:], "target": [value]})])
    with pytest.raises(DataError, match=rf"holds {shown}, and head='counts' expects"):
        fitted_on(frame, head="counts")


def test_settings_that_do_not_go_with_counts_are_refused() -> None:
    for more in ({"loss": "relative"}, {"model": "segments"}):
        with pytest.raises(ConfigError, match="head='counts' has a likelihood of its own"):
            Forecaster(horizon=3, head="counts", **{**QUICK, **more}).fit(ramp(60))


def test_intermittent_series_are_told_from_others() -> None:
    assert is_intermittent([slow(100)["target"].to_numpy()])
    assert not is_intermittent([np.array([1.0, 2.0, 3.0, np.nan])])
    assert not is_intermittent([np.array([0.0, 0.0, 0.5])])
    assert not is_intermittent([np.array([0.0, 0.0, -1.0])])
