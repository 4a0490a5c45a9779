"""The autoregressive network: paths that read their own draws, and forecasts made of them."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, several
from torch import nn

from recurra import Forecaster
from recurra.errors import ConfigError
from recurra.tasks.forecasting.autoregressive import (
    PATHS,
    AutoregressiveNetwork,
    even_shares,
    share_weights,
)
from recurra.tasks.forecasting.settings import ModelSettings

DRAWN: dict[str, Any] = {"model": "autoregressive", "context": 14}
LEVELS = (0.1, 0.5, 0.9)


def network(season: int = 1, baseline: Any = "naive", **settings: Any) -> AutoregressiveNetwork:
    torch.manual_seed(0)
    given = {"horizon": 6, "context": 8, "stride": 1, "sequence_length": 1, "hidden_size": 6}
    made = ModelSettings(
        model="autoregressive",
        season=season,
        quantile_levels=LEVELS,
        **{**given, **settings},
    )
    return AutoregressiveNetwork(made, 2, baseline).eval().requires_grad_(False)


def trained(**settings: Any) -> AutoregressiveNetwork:
    made = network(**settings)
    nn.init.normal_(made.out.weight)
    nn.init.normal_(made.out.bias)
    return made


def which(count: int, number: int = 0) -> torch.Tensor:
    return nn.functional.one_hot(torch.full((count,), number), 2).float()


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("season", [1, 4])
def test_a_path_goes_on_as_if_its_own_rows_were_true(cell: str, season: int) -> None:
    made = trained(cell=cell, season=season, num_layers=2)
    window, shares = torch.randn(3, 8), torch.rand(5, 6)
    weights = share_weights(shares, LEVELS)
    paths = made.draw(window, which(3), weights)
    for p in range(5):
        taught = made.teach(window, which(3), paths[:, p])
        assert torch.allclose((taught * weights[p]).sum(-1), paths[:, p], atol=1e-4)


def test_taught_quantiles_never_see_the_row_they_forecast_or_later_ones() -> None:
    made, window, truth = trained(), torch.randn(1, 8), torch.randn(1, 6)
    slopes = torch.func.jacrev(lambda y: made.teach(window, which(1), y)[0, :, 1])(truth)[:, 0]
    assert (slopes.tril(-1).abs() > 0).sum() == 15  # every earlier row moves every later forecast
    assert (slopes.triu() == 0).all()


def test_untrained_network_walks_from_the_last_value_or_the_last_season() -> None:
    window = torch.arange(8.0)[None]
    assert network()(window, which(1))[0, :, 1].tolist() == pytest.approx([7.0] * 6, abs=0.5)
    seasonal = network(season=4, baseline="seasonal_naive")
    median = torch.full((1, 6), 0.5)
    path = seasonal.draw(window, which(1), share_weights(median, LEVELS))
    assert path[0, 0].tolist() == pytest.approx([4, 5, 6, 7, 4, 5])


def test_spread_of_an_untrained_walk_grows_with_the_root_of_the_steps() -> None:
    made = network(horizon=30)(torch.zeros(1, 8), which(1))[0]
    assert made[0].tolist() == pytest.approx([-1.28, 0.0, 1.28], abs=0.05)
    spread = made[:, 2] - made[:, 0]
    assert float(spread[24] / spread[0]) == pytest.approx(5.0, rel=0.2)


def test_unknown_rows_are_read_as_the_one_before() -> None:
    made, window = trained(), torch.randn(1, 8)
    gap = torch.tensor([[0.3, torch.nan, torch.nan, -0.2, 0.1, 0.0]])
    full = torch.tensor([[0.3, 0.3, 0.3, -0.2, 0.1, 0.0]])
    assert torch.equal(made.teach(window, which(1), gap), made.teach(window, which(1), full))


def test_paths_stay_in_the_range_of_windows() -> None:
    made = network()
    with torch.no_grad():
        made.lag.fill_(3.0)
    assert made(torch.ones(1, 8), which(1)).abs().max() <= 20.0


def test_shares_are_even_at_every_step_and_read_the_quantile_function() -> None:
    shares = even_shares(10, 7)
    assert torch.allclose(
        shares.sort(dim=0).values, (torch.arange(10.0).double() + 0.5)[:, None] / 10
    )
    assert len({tuple(column.tolist()) for column in shares.T}) > 1
    normal = NormalDist(2.0, 3.0)
    quantiles = torch.tensor([normal.inv_cdf(level) for level in LEVELS])
    asked = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.77, 0.97])
    read = (share_weights(asked, LEVELS) * quantiles).sum(-1)
    assert read.tolist() == pytest.approx([normal.inv_cdf(p) for p in asked.tolist()], rel=1e-4)


def test_forecast_does_not_depend_on_what_is_forecast_beside_it() -> None:
    made, window = trained(), torch.randn(4, 8)
    alone = torch.cat([made(window[n : n + 1], which(1)) for n in range(4)])
    together = made(window, which(4))
    assert torch.allclose(alone, together, atol=1e-5)
    assert (together.diff(dim=-1) > 0).all()
    assert not torch.allclose(together, made(window, which(4, 1)))


def autocorrelated(count: int = 600, keep: float = 0.9) -> np.ndarray:
    """y_t = 0.9 y_{t−1} + e_t: the paths of its future are as correlated as its past."""
    rng = np.random.default_rng(0)
    values = np.zeros(count)
    for t in range(1, count):
        values[t] = keep * values[t - 1] + rng.standard_normal()
    return values


def test_paths_of_a_process_have_its_spread_and_its_memory() -> None:
    values = autocorrelated()
    frame = pl.DataFrame({"time": days(600, "2018-01-01"), "target": values})
    forecaster = Forecaster(
        horizon=10, season=1, steps=150, hidden_size=16, model="autoregressive", progress=False
    ).fit(frame)
    paths = forecaster.sample(count=2000, seed=1)["value"].to_numpy().reshape(2000, 10)
    deviation = paths.std(axis=0)
    wanted = np.sqrt((1 - 0.9 ** (2 * np.arange(1, 11))) / (1 - 0.9**2))
    assert deviation == pytest.approx(wanted, rel=0.3)
    together = np.corrcoef(paths[:, 8], paths[:, 9])[0, 1]
    assert together == pytest.approx(0.9, abs=0.08)
    made = forecaster.predict()
    for level in (0.1, 0.5, 0.9):
        assert made[f"q{level}"].to_numpy() == pytest.approx(
            np.quantile(paths, level, axis=0), abs=0.8
        )


def test_samples_depend_on_the_seed_alone_and_targets_move_together() -> None:
    frame = several((60, 60))
    fit = {"target": ("target", "other"), "series": "series"}
    forecaster = Forecaster(horizon=3, **{**QUICK, **DRAWN}).fit(frame, **fit)
    first, again = (forecaster.sample(count=4, seed=5) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(forecaster.sample(count=4, seed=6))
    assert first.columns == ["series", "time", "target", "sample", "step", "value"]
    assert len(first) == 2 * 2 * 4 * 3
    read = forecaster.sample(frame, count=4, seed=5)
    assert read["value"].to_numpy() == pytest.approx(first["value"].to_numpy(), rel=1e-5)


def test_ensemble_draws_paths_from_each_of_its_networks() -> None:
    frame = ramp(60)
    together = fitted_on(frame, **DRAWN, ensemble=2, steps=1, training={"learning_rate": 1e-12})
    with torch.no_grad():
        together.fitted.networks[1].spread.fill_(5.0)
    first = together.sample(count=40)["value"].to_numpy().reshape(40, 5)[:, 0]
    assert first[20:].std() > 10 * first[:20].std() > 0


def test_stream_and_update_equal_a_fresh_read() -> None:
    frame = several((70,)).with_columns(
        target=pl.when(pl.arange(70) % 7 != 3).then(pl.col("target"))
    )
    forecaster = fitted_on(frame.head(50), **DRAWN)
    stream = forecaster.stream()
    for row in range(50, 56):
        answer = stream.push(frame.row(row, named=True))["forecast"]["target"]["q0.9"]
        wanted = forecaster.predict(frame.head(row + 1))["q0.9"].to_list()
        assert answer == pytest.approx(wanted, rel=1e-5)
        assert stream.state["s0"].recurrent == ()
    forecaster.update(frame.slice(50, 20))
    wanted = forecaster.predict(frame)["q0.1"].to_list()
    assert forecaster.predict()["q0.1"].to_list() == pytest.approx(wanted, rel=1e-5)


def test_saved_and_resumed_to_the_same_bits(tmp_path: Path) -> None:
    frame = several((60,))
    settings = {**QUICK, **DRAWN, "horizon": 5, "steps": 6}
    whole = Forecaster(**settings).fit(frame, out=tmp_path / "a")
    assert Forecaster.load(tmp_path / "a").predict(frame).equals(whole.predict(frame))
    for path in (tmp_path / "a" / "checkpoints").glob("step-*6.*"):
        path.unlink()
    resumed = Forecaster(**settings).fit(frame, out=tmp_path / "a", resume=True)
    assert resumed.predict().equals(whole.predict())
    note = "window of 14 rows, row by row, horizon 5; a stream keeps these rows"
    assert any(note in one for one in whole.fitted.notes)


def test_explanation_is_refused_because_a_draw_has_no_gradient() -> None:
    forecaster = fitted_on(ramp(60), **DRAWN)
    with pytest.raises(ConfigError, match=r"draws its forecast at random.*model='forking'"):
        forecaster.explain(ramp(60))


@pytest.mark.parametrize("covariate", [{"future": "promo"}, {"past": "price"}, {"static": "size"}])
def test_covariates_are_refused_by_name(covariate: dict[str, str]) -> None:
    (name,) = covariate.values()
    with pytest.raises(ConfigError, match=rf"model='autoregressive' .* no covariates, but {name}"):
        Forecaster(horizon=3, **{**QUICK, **DRAWN}).fit(several((60,)), **covariate)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 2}, r"stride=2 has no meaning with model='autoregressive'"),
        ({"profile": 2, "season": 7}, r"profile=2 has no meaning .* sees its window alone"),
        ({"segment": 4}, r"segment=4 has no meaning with model='autoregressive'"),
        ({"linear": True}, r"linear=True has no meaning with model='autoregressive'"),
        ({"quantile_levels": [0.5]}, r"expected two quantile_levels or more, not \[0\.5\]"),
        ({"context": 1}, r"a context of 2 rows or more, not 1"),
        ({"model": "deepar"}, r"model='deepar'.*'forking', 'segments' or 'autoregressive'"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Forecaster(horizon=3, **{**QUICK, **DRAWN, **settings}).fit(several((60,)))


def test_counts_have_a_head_of_their_own() -> None:
    with pytest.raises(ConfigError, match=r"head='counts' .* not model='autoregressive'"):
        network(head="counts")


def test_number_of_paths_bounds_the_error_of_a_forecast() -> None:
    made = network(horizon=1)(torch.zeros(1, 8), which(1))[0, 0]
    exact = [NormalDist().inv_cdf(level) for level in LEVELS]
    assert PATHS == 100
    assert made.tolist() == pytest.approx(exact, abs=0.005)
