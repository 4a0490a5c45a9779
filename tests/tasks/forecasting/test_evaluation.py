"""Windows, splits and scores: nothing after the origin, nothing left out, nothing mixed up."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, days, fitted_on, ramp, read, several, wave

from recurra import Forecaster
from recurra.errors import ConfigError, DataError
from recurra.tasks.forecasting.evaluation import Evaluation
from recurra.tasks.forecasting.learning import plan
from recurra.tasks.forecasting.metrics import score
from recurra.tasks.forecasting.settings import ForecasterSettings

LEVELS = (0.1, 0.5, 0.9)


def planned(frame: pl.DataFrame, **settings: object):
    chosen = ForecasterSettings(horizon=4, context=8, stride=2, **{"hidden_size": 8, **settings})
    return plan(read(frame), chosen)


def truths(task, batch) -> np.ndarray:
    """Values that the loss of a batch counts, on the scale of the table."""
    steps, length = batch.steps, batch.truth.shape[1]
    values = batch.truth.view(-1, batch.truth.shape[2]).double() * steps.scale + steps.level
    assert len(values) == len(batch.lengths) * length
    return values[torch.isfinite(values)].numpy()


def test_training_never_reads_or_counts_a_validation_row() -> None:
    """On a ramp from −45 every value names its row, so what was used can be read off."""
    chosen = planned(ramp(90, start=-45.0))
    task, kept = chosen.task, round(0.15 * 90)
    assert task.train_rows.tolist() == [90 - kept]
    counted, read_up_to = [], []
    for step in range(200):
        batch = task.batch(step, torch.Generator().manual_seed(step))
        counted.append(truths(task, batch))
        read_up_to.append(int(batch.steps.row.max()))
    rows = np.concatenate(counted).round() + 45
    assert rows.max() == 90 - kept - 1
    assert max(read_up_to) == 90 - kept - 2


def test_loss_counts_only_steps_that_have_seen_enough() -> None:
    task = planned(ramp(90, start=-45.0)).task
    first = int(task.first_origin[0])
    for step in range(50):
        batch = task.batch(step, torch.Generator().manual_seed(step))
        counted = torch.isfinite(batch.truth).any(2).reshape(-1)
        assert int(batch.steps.row[counted].min()) >= first > 0


def test_validation_begins_where_training_ends_and_reaches_the_last_row() -> None:
    task = planned(ramp(90, start=-45.0)).task
    _, row = task.validation
    assert (int(row.min()), int(row.max())) == (int(task.train_rows[0]) - 1, 90 - 4 - 1)


def test_a_silent_end_is_no_perfect_validation() -> None:
    frame = ramp(200).with_columns(target=pl.Series(wave(200)))
    silent = frame.with_columns(target=pl.when(pl.arange(200) < 165).then(pl.col("target")))
    task = planned(silent).task
    assert torch.isfinite(task._truth(*task.validation)).any(1).all()
    assert len(task.validation[0])
    with torch.no_grad():
        loss = task.validate()
    assert loss is not None
    assert loss > 0


@pytest.mark.parametrize("settings", [{"validation": 0.0}, {}])
def test_known_future_that_ends_with_the_table_does_not_stop_training(settings) -> None:
    forecaster = Forecaster(horizon=5, **{**QUICK, "steps": 60}, **settings)
    forecaster.fit(several((60, 12)), future="promo")
    assert np.isfinite(forecaster.result.history[-1]["loss"])


def test_metrics_by_hand_with_uneven_quantiles() -> None:
    actual = np.array([[2.0, -4.0]])
    quantiles = np.array([[[1.0, 3.0, 4.0], [-9.0, -5.0, -4.5]]])
    made = score(actual, quantiles, LEVELS, np.array([2.0]), np.array([0]))
    # 2 max(τe, (τ−1)e): errors 1, −1, −2 and 5, 1, 0.5.
    first = 2 * np.mean([0.1 * 1, 0.5 * 1, 0.1 * 2])
    second = 2 * np.mean([0.1 * 5, 0.5 * 1, 0.9 * 0.5])
    assert made["wql"] == pytest.approx((first + second) / 6.0)
    assert made["coverage_80"] == 0.5  # −4 is above its 90 % quantile
    assert made["mase"] == pytest.approx(0.5)


def test_windows_without_truth_have_no_scores() -> None:
    nothing = np.full((2, 3), np.nan)
    made = score(nothing, np.zeros((2, 3, 3)), LEVELS, np.ones(2), np.arange(2))
    assert all(np.isnan(value) for value in made.values())
    frame = ramp(90)
    forecaster = Forecaster(horizon=5, **QUICK).fit(frame, until=str(frame["time"][59]))
    empty = frame.with_columns(target=pl.when(pl.arange(90) < 60).then(pl.col("target")))
    with pytest.raises(DataError, match=r"6 windows .* hold no observed value"):
        forecaster.evaluate(empty)


def test_calibration_is_the_share_below() -> None:
    found = Evaluation(
        target=("y",),
        levels=LEVELS,
        forecasts={"recurra": np.tile([1.0, 2.0, 3.0], (1, 1, 4, 1))},
        actual=np.array([[[0.0, 1.5, 2.5, 9.0]]]),
        number=np.array([0]),
        row=np.array([5]),
        scale=np.ones((1, 1)),
    )
    assert found.calibration("y").tolist() == [0.25, 0.5, 0.75]


def test_scale_comes_from_training_rows_alone() -> None:
    frame = several((90,))
    forecaster = Forecaster(horizon=5, season=1, **QUICK).fit(frame.head(60))
    wild = frame.with_columns(
        target=pl.when(pl.arange(90) >= 60).then(pl.col("target") * 50).otherwise(pl.col("target"))
    )
    assert (forecaster.evaluate(frame).scale == forecaster.evaluate(wild).scale).all()


def unequal() -> pl.DataFrame:
    short = pl.DataFrame({"series": ["a"] * 9, "time": days(9), "target": wave(9)})
    long = pl.DataFrame({"series": ["b"] * 90, "time": days(90), "target": 1000 * wave(90)})
    return pl.concat([short, long])


@pytest.mark.parametrize("refit", ["once", "each"])
def test_backtest_keeps_series_of_unequal_length_apart(refit) -> None:
    found = Forecaster(horizon=5, season=1, **QUICK).backtest(unequal(), windows=3, refit=refit)
    assert sorted(zip(found.number.tolist(), found.row.tolist(), strict=True)) == [
        (0, 3),
        (1, 74),
        (1, 79),
        (1, 84),
    ]
    for window, n in enumerate(found.number):
        size = 1000.0 if n else 1.0
        assert 0.5 < found.scale[window, 0] / size < 4.0
        assert 5 < found.actual[window].mean() / size < 15


def test_backtest_works_before_1970() -> None:
    frame = pl.DataFrame({"time": days(120, "1950-01-01"), "target": wave(120)})
    found = Forecaster(horizon=5, **QUICK).backtest(frame, windows=2)
    assert found.row.tolist() == [109, 114]


def test_series_without_a_scale_are_said() -> None:
    frame = pl.concat(
        [several((90,)), several((60, 40)).filter(pl.col("series") == "s1")], how="vertical"
    )
    forecaster = Forecaster(horizon=5, season=50, **QUICK).fit(frame, until="2020-02-05")
    notes = " ".join(forecaster.evaluate(frame).notes)
    assert "2 of 2 series and targets have no MASE" in notes


def test_table_that_starts_after_training_is_said_in_evaluate_and_right_in_predict() -> None:
    frame = several((90,))
    forecaster = fitted_on(frame.head(60), context=8, stride=2)
    newer = frame.tail(30)
    notes = " ".join(forecaster.evaluate(newer).notes)
    assert "1 series of the table start after the training data" in notes
    whole, rest = forecaster.predict(frame), forecaster.predict(newer)
    assert np.asarray(rest["q0.5"]) == pytest.approx(np.asarray(whole["q0.5"]), rel=1e-5)
    later = forecaster.predict(frame.tail(25))  # five rows are missing in between
    holes = frame.with_columns(
        target=pl.when(~pl.arange(90).is_between(60, 64)).then(pl.col("target"))
    )
    wanted = forecaster.predict(holes)
    assert np.asarray(later["q0.5"]) == pytest.approx(np.asarray(wanted["q0.5"]), rel=1e-5)


def test_sliding_backtest_trains_on_that_many_rows_before_each_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from recurra.tasks.forecasting import backtest as module

    seen: list[tuple[float, float]] = []
    real = module.plan

    def spied(table: Any, *given: Any) -> Any:
        target = table.series[0].target[:, 0]
        seen.append((float(target[0]), float(target[-1])))
        return real(table, *given)

    monkeypatch.setattr(module, "plan", spied)
    frame = ramp(100)  # 100 … 199
    forecaster = Forecaster(horizon=5, context=8, **QUICK)
    evaluation = forecaster.backtest(frame, windows=3, refit="each", sliding=40)
    assert seen == [(145.0, 184.0), (150.0, 189.0), (155.0, 194.0)]
    assert evaluation.row.tolist() == [84, 89, 94]
    assert evaluation.actual[:, 0, 0].tolist() == [185.0, 190.0, 195.0]
    naive = evaluation.forecasts["naive"][:, 0, 0, 4]
    assert naive.tolist() == [184.0, 189.0, 194.0]
    seen.clear()
    forecaster.backtest(frame, windows=3, refit="each")
    assert [first for first, _ in seen] == [100.0] * 3
    with pytest.raises(ConfigError, match=r"sliding=5 rows .* horizon=5"):
        forecaster.backtest(frame, windows=3, sliding=5)
