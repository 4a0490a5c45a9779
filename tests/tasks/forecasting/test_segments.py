"""The segment network: a GRU over a window's pieces, which streams from a ring of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, several, wave
from torch import nn

from recurra import Forecaster
from recurra.errors import ConfigError
from recurra.tasks.forecasting.segments import SegmentNetwork
from recurra.tasks.forecasting.settings import ModelSettings

SEGMENTS: dict[str, Any] = {"model": "segments", "context": 12, "segment": 4}
LEVELS = (0.1, 0.5, 0.9)


def network(horizon: int = 7, context: int = 12, segment: int = 4, targets: int = 2, hidden=6):
    torch.manual_seed(0)
    settings = ModelSettings(
        model="segments",
        horizon=horizon,
        context=context,
        segment=segment,
        season=1,
        stride=1,
        sequence_length=1,
        hidden_size=hidden,
        quantile_levels=LEVELS,
    )
    made = SegmentNetwork(settings, targets).eval()
    nn.init.normal_(made.out.weight)
    nn.init.normal_(made.out.bias)
    return made


def which(targets: int, number: int, count: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.full((count,), number), targets).float()


@pytest.mark.parametrize("hidden", [6, 7])
def test_step_ahead_is_the_gru_s_own_step_with_place_and_target_as_input(hidden: int) -> None:
    made = network(hidden=hidden)
    h = torch.randn(5, hidden)
    steps = made.step_ahead(h, which(2, 1, 5))
    assert steps.shape == (5, 2, hidden)  # 7 rows ahead are 2 segments of 4
    for j in range(2):
        x = torch.cat((made.place[j], made.target[1])).expand(5, 1, -1)
        _, wanted = made.recurrent(x, h[None])
        assert torch.allclose(steps[:, j], wanted[0], atol=1e-6)


def test_window_is_read_in_segments_in_order() -> None:
    made = network()
    window = torch.randn(3, 12)
    embedded = torch.relu(made.embed(window.view(3, 3, 4)))
    _, wanted = made.recurrent(embedded)
    assert torch.allclose(made.encode(window), wanted[0], atol=1e-6)


def test_no_windows_have_no_forecasts() -> None:
    assert network()(torch.zeros(0, 12), which(2, 0, 0)).shape == (0, 7, 3)


def test_window_that_is_no_multiple_of_a_segment_is_lengthened_by_its_level() -> None:
    made, window = network(context=10), torch.randn(3, 10)
    longer = torch.cat((torch.zeros(3, 2), window), dim=1)
    assert torch.allclose(made.encode(window), made.encode(longer))


def test_targets_differ_and_quantiles_do_not_cross() -> None:
    made, window = network(), torch.randn(3, 12)
    first, second = (made(window, which(2, k, 3)) for k in range(2))
    assert first.shape == (3, 7, 3)
    assert not torch.allclose(first, second)
    assert (first.diff(dim=-1) > 0).all()


def test_every_row_of_the_window_moves_every_step_of_the_forecast() -> None:
    made, window = network(context=10), torch.randn(1, 10)
    slopes = torch.func.jacrev(lambda x: made(x, which(2, 0, 1))[0, :, 1])(window)[:, 0]
    assert slopes.shape == (7, 10)
    assert (slopes.abs() > 0).any(dim=0).all()


def test_untrained_median_is_the_last_value() -> None:
    forecaster = fitted_on(
        several((60,)), **{**SEGMENTS, "steps": 1, "training": {"learning_rate": 1e-12}}
    )
    made = forecaster.predict(several((60,)))["q0.5"].to_numpy()
    assert made == pytest.approx(np.full(5, several((60,))["target"][-1]), rel=1e-5)


@pytest.mark.parametrize(("context", "segment"), [(12, 4), (10, 3), (5, 5), (1, 1)])
def test_stream_equals_batch_at_every_row(context: int, segment: int) -> None:
    frame = several((70,)).with_columns(
        target=pl.when(pl.arange(70) % 7 != 3).then(pl.col("target"))
    )
    frame = frame.filter(~pl.arange(70).is_between(60, 62))
    forecaster = fitted_on(frame.head(50), model="segments", context=context, segment=segment)
    stream = forecaster.stream()
    for row in range(50, len(frame)):
        answer = stream.push(frame.row(row, named=True))["forecast"]["target"]["q0.9"]
        assert answer == pytest.approx(
            forecaster.predict(frame.head(row + 1))["q0.9"].to_list(), rel=1e-5
        )


def test_stream_keeps_a_ring_of_context_rows_and_no_recurrent_state() -> None:
    forecaster = fitted_on(ramp(60), **SEGMENTS)
    assert any("a stream keeps these rows" in note for note in forecaster.fitted.notes)
    stream = forecaster.stream()
    for k, day in enumerate(days(20, "2020-03-01")):
        stream.push({"time": str(day), "target": 160.0 + k})
        assert stream.state[""].tail.shape[2] == 12
        assert stream.state[""].recurrent == ()


def test_stream_of_a_new_series_equals_batch_from_its_first_row() -> None:
    frame = several((60, 60))
    forecaster = fitted_on(frame.filter(pl.col("series") == "s0"), **SEGMENTS)
    fresh = frame.filter(pl.col("series") == "s1")
    stream = forecaster.stream()
    for row in range(20):
        answer = stream.push(fresh.row(row, named=True))["forecast"]["target"]["q0.5"]
        wanted = forecaster.predict(fresh.head(row + 1))["q0.5"].to_list()
        assert answer == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_update_equals_a_fresh_read_of_the_whole_history(rows: int) -> None:
    frame = several((70, 60))
    fit = {"target": ("target", "other")}
    forecaster = Forecaster(horizon=3, **{**QUICK, **SEGMENTS}).fit(frame.head(40), **fit)
    new = frame.slice(40, rows)
    forecaster.update(new)
    wanted = forecaster.predict(frame.head(40 + rows))
    made = forecaster.predict()
    for level in ("q0.1", "q0.5", "q0.9"):
        assert made[level].to_list() == pytest.approx(wanted[level].to_list(), rel=1e-5)


def test_several_targets_and_series_are_saved_and_loaded_to_the_same_bits(tmp_path: Path) -> None:
    frame = several()
    forecaster = Forecaster(horizon=5, **{**QUICK, **SEGMENTS})
    forecaster.fit(frame, target=("target", "other"))
    forecaster.save(tmp_path / "run")
    again = Forecaster.load(tmp_path / "run")
    assert again.predict().equals(forecaster.predict())
    assert again.predict(frame).equals(forecaster.predict(frame))


def test_interrupted_run_is_resumed_to_the_same_bits_and_seeds_differ(tmp_path: Path) -> None:
    frame = several((60,))
    settings = {**QUICK, **SEGMENTS, "horizon": 5, "steps": 6}
    whole = Forecaster(**settings).fit(frame, out=tmp_path / "a")
    for path in (tmp_path / "a" / "checkpoints").glob("step-*6.*"):
        path.unlink()
    resumed = Forecaster(**settings).fit(frame, out=tmp_path / "a", resume=True)
    same = Forecaster(**settings).fit(frame)
    other = Forecaster(**settings, seed=1).fit(frame)
    assert resumed.predict().equals(whole.predict())
    assert same.predict().equals(whole.predict())
    assert not other.predict().equals(whole.predict())


def test_ensemble_of_both_designs_is_their_mean_and_streams() -> None:
    frame = several((60,))
    each: tuple[dict[str, Any], ...] = (SEGMENTS, {"context": 10, "stride": 2})
    together = fitted_on(frame.head(50), ensemble=each, seed=3)
    stream = together.stream()
    for row in range(50, 56):
        answer = stream.push(frame.row(row, named=True))["forecast"]["target"]["q0.5"]
        wanted = together.predict(frame.head(row + 1))["q0.5"].to_list()
        assert answer == pytest.approx(wanted, rel=1e-5)
    alone = [fitted_on(frame.head(50), **{**e, "seed": 3 + 1000 * n}) for n, e in enumerate(each)]
    mean = np.mean([one.predict(frame)["q0.5"].to_numpy() for one in alone], axis=0)
    assert together.predict(frame)["q0.5"].to_numpy() == pytest.approx(mean, rel=1e-12)


def test_wave_is_learned_better_than_its_baseline() -> None:
    values = wave(400, noise=0.3) + 2 * np.sin(2 * np.pi * np.arange(400) / 23)
    frame = pl.DataFrame({"time": days(400), "target": values})
    forecaster = Forecaster(
        horizon=5, steps=300, hidden_size=32, batch_size=64, model="segments", progress=False
    )
    forecaster.fit(frame, until="2020-10-31")
    mase = {r["model"]: r["metrics"]["mase"] for r in forecaster.evaluate(frame).results()}
    assert mase["recurra"] < 0.8 * min(mase["naive"], mase["seasonal_naive"])


@pytest.mark.parametrize("covariate", ["future", "past", "static"])
def test_covariates_are_refused_by_name(covariate: str) -> None:
    column = {"future": "promo", "past": "price", "static": "size"}[covariate]
    forecaster = Forecaster(horizon=3, **{**QUICK, **SEGMENTS})
    with pytest.raises(ConfigError, match=rf"takes no covariates, but {column} are given"):
        forecaster.fit(several((60,)), **{covariate: column})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 2}, r"stride=2 has no meaning with model='segments'"),
        ({"sequence_length": 4}, r"sequence_length=4 has no meaning"),
        ({"cell": "lstm"}, r"cell='lstm' has no meaning with model='segments', which is a GRU"),
        ({"num_layers": 2}, r"num_layers=2 has no meaning .* one layer"),
        ({"skip": 3}, r"skip=3 has no meaning"),
        ({"segment": 13}, r"segment=13 does not fit into the window of context=12 rows"),
        ({"model": "forking"}, r"segment=4 has no meaning with model='forking'"),
        ({"model": "segment"}, r"model='segment'.*'forking', 'segments' or 'autoregressive'"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Forecaster(horizon=3, **{**QUICK, **SEGMENTS, **settings}).fit(several((60,)))
