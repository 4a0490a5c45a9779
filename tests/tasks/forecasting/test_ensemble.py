"""Ensembles: the mean of their networks, wherever it is made, saved and streamed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.tasks.forecasting.tables import QUICK, fitted_on, ramp, read, several

from recurra import Forecaster
from recurra.errors import ConfigError, RunError
from recurra.runs import RunFolder
from recurra.tasks.forecasting.learning import plan
from recurra.tasks.forecasting.settings import ForecasterSettings, members
from recurra.training.loop import TrainingInterrupted

DIFFERENT = (
    {"context": 10, "stride": 2},
    {"context": 20, "cell": "lstm", "hidden_size": 4, "steps": 2},
    {"loss": "relative", "num_layers": 2},
)


def quantiles(made: pl.DataFrame) -> np.ndarray:
    return made.select(name for name in made.columns if name.startswith("q0")).to_numpy()


def test_forecast_is_the_mean_of_networks_trained_alone() -> None:
    frame = several((60, 50))
    together = fitted_on(frame, ensemble=DIFFERENT, seed=3)
    alone = [
        fitted_on(frame, **{**different, "seed": 3 + 1000 * number})
        for number, different in enumerate(DIFFERENT)
    ]
    wanted = np.mean([quantiles(one.predict(frame)) for one in alone], axis=0)
    assert quantiles(together.predict(frame)) == pytest.approx(wanted, rel=1e-12)
    assert "the mean of 3 networks" in together.fitted.notes


def test_weights_come_from_the_rows_kept_and_are_saved_and_streamed(tmp_path: Path) -> None:
    frame = several((70,))
    each = ({"skip": 7}, {"training": {"learning_rate": 3.0}})  # the second one diverges
    usual = {"ensemble": each, "season": 7, "context": 14, "steps": 30, "horizon": 5}
    together = fitted_on(frame.head(60), weights="validation", **usual)
    weights = together.fitted.weights
    assert weights is not None
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] > 0.5
    assert any(note.startswith("weights of the networks") for note in together.fitted.notes)
    assert not any("the mean of" in note for note in together.fitted.notes)
    alone = [
        fitted_on(frame.head(60), **{**usual, "ensemble": 1, **one, "seed": 1000 * n})
        for n, one in enumerate(each)
    ]
    made = [quantiles(one.predict(frame.head(65))) for one in alone]
    wanted = sum(share * one for share, one in zip(weights, made, strict=True))
    assert quantiles(together.predict(frame.head(65))) == pytest.approx(wanted, rel=1e-9)
    together.save(tmp_path / "run")
    again = Forecaster.load(tmp_path / "run")
    assert again.fitted.weights == weights
    stream = again.stream()
    for row in range(60, 65):
        answer = stream.push(frame.row(row, named=True))["forecast"]["target"]
    assert answer["q0.5"] == pytest.approx(
        again.predict(frame.head(65))["q0.5"].to_list(), rel=1e-5
    )


def test_weights_and_paths_come_from_rows_that_no_network_was_trained_on() -> None:
    """A longer window keeps fewer rows of a short series."""
    settings = ForecasterSettings(horizon=3, ensemble=[{"context": 8}, {"context": 55}], steps=3)
    chosen = plan(read(ramp(60)), settings)
    trained = [int(member.task.train_rows[0]) for member in chosen.members]
    assert trained == [51, 60]
    assert chosen.kept == (0,)
    longer = plan(read(ramp(90)), settings)
    assert [int(member.task.train_rows[0]) for member in longer.members] == [76, 76]
    assert longer.kept == (14,)


def test_weights_without_rows_to_choose_them_by_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"weights='validation' needs rows .* weights='equal'"):
        fitted_on(several((60,)), ensemble=2, weights="validation", validation=0.0)
    with pytest.raises(ConfigError, match=r"weights='validation' has nothing to weigh with one"):
        Forecaster(horizon=3, weights="validation")


def test_weights_of_a_run_must_be_shares_of_its_networks(tmp_path: Path) -> None:
    forecaster = fitted_on(several((60,)), ensemble=2)
    wrong = replace(forecaster.fitted, weights=(0.5, 0.25))
    wrong.save(RunFolder.create(tmp_path / "run"), forecaster.settings.model_dump())
    with pytest.raises(RunError, match="weights are not 2 shares of one"):
        Forecaster.load(tmp_path / "run")


def test_number_of_networks_differ_in_their_seeds() -> None:
    fitted = fitted_on(several((50,)), ensemble=3).fitted
    weights = [network.embed.weight for network in fitted.networks]
    assert len(weights) == 3
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_stream_of_an_ensemble_equals_batch_at_every_row() -> None:
    frame = several((70,))
    forecaster = fitted_on(frame.head(50), ensemble=DIFFERENT)
    stream = forecaster.stream()
    for row in range(50, 70):
        answer = stream.push(frame.row(row, named=True))["forecast"]["target"]
        made = forecaster.predict(frame.head(row + 1))
        assert answer["q0.5"] == pytest.approx(made["q0.5"].to_list(), rel=1e-5)
        assert answer["q0.9"] == pytest.approx(made["q0.9"].to_list(), rel=1e-5)


def test_saved_and_loaded_ensemble_has_the_same_bits(tmp_path: Path) -> None:
    frame = several((60, 40))
    forecaster = fitted_on(frame, ensemble=DIFFERENT)
    forecaster.save(tmp_path / "run")
    again = Forecaster.load(tmp_path / "run")
    assert again.settings == forecaster.settings
    assert np.array_equal(quantiles(again.predict(frame)), quantiles(forecaster.predict(frame)))
    assert np.array_equal(quantiles(again.predict()), quantiles(forecaster.predict()))


def test_weights_of_another_ensemble_are_refused(tmp_path: Path) -> None:
    frame = several((60,))
    fitted_on(frame, ensemble=2).save(tmp_path / "two")
    fitted_on(frame, ensemble=3).save(tmp_path / "three")
    run = RunFolder(tmp_path / "two")
    run.model_path.write_bytes(RunFolder(tmp_path / "three").model_path.read_bytes())
    config = run.read_config()
    run.write_config("forecasting", config["config"], (run.model_path, run.state_path))
    with pytest.raises(RunError, match=r"'2/direct.bias' has the shape .* expected None"):
        Forecaster.load(tmp_path / "two")


def test_resumed_ensemble_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recurra.tasks.forecasting.fitting import ForecastTask

    frame = several((60,))
    settings = {**QUICK, "horizon": 5, "ensemble": 3, "steps": 6}
    whole = Forecaster(**settings).fit(frame)
    calls = 0
    loss = ForecastTask.loss

    def killed(self, batch, state):
        nonlocal calls
        calls += 1
        if calls == 9:  # in the second network
            raise KeyboardInterrupt
        return loss(self, batch, state)

    monkeypatch.setattr(ForecastTask, "loss", killed)
    out = tmp_path / "run"
    with pytest.raises((KeyboardInterrupt, TrainingInterrupted)):
        Forecaster(**settings).fit(frame, out=out)
    assert (out / "members" / "1" / "log.jsonl").exists()
    monkeypatch.setattr(ForecastTask, "loss", loss)
    resumed = Forecaster(**settings).fit(frame, out=out, resume=True)
    for one, other in zip(resumed.fitted.networks, whole.fitted.networks, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
        )


def test_force_removes_the_further_networks_of_the_run_before(tmp_path: Path) -> None:
    frame, out = several((60,)), tmp_path / "run"
    Forecaster(**QUICK, horizon=5, ensemble=3).fit(frame, out=out)
    assert (out / "members" / "2" / "checkpoints").is_dir()
    Forecaster(**QUICK, horizon=5).fit(frame, out=out, force=True)
    assert not (out / "members").exists()
    assert len(Forecaster.load(out).fitted.networks) == 1


def test_backtest_and_evaluate_take_an_ensemble() -> None:
    frame = several((60, 60))
    forecaster = Forecaster(**QUICK, horizon=5, ensemble=2)
    assert forecaster.backtest(frame, windows=2).windows == 4


def test_networks_share_the_minutes() -> None:
    settings = ForecasterSettings(horizon=2, minutes=9, ensemble=({}, {"steps": 5}, {}), seed=7)
    first, second, third = members(settings)
    assert (first.minutes, second.minutes, second.steps, third.minutes) == (3, None, 5, 3)
    assert [one.seed for one in (first, second, third)] == [7, 1007, 2007]


def test_training_settings_of_a_network_come_on_top() -> None:
    common = {"ema_decay": 0.9, "weight_decay": 0.1}
    different = ({"training": {"weight_decay": 0.2}},)
    settings = ForecasterSettings(horizon=2, training=common, ensemble=different)
    assert members(settings)[0].training == {"ema_decay": 0.9, "weight_decay": 0.2}


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        (0, r"ensemble has 0 networks; expected 1 to 64"),
        (65, r"ensemble has 65 networks; expected 1 to 64"),
        ([], r"ensemble has 0 networks"),
        ([{"contxt": 3}], r"'contxt'.*context"),
        ([{"horizon": 3}], r"'horizon'"),
        ([{"context": 0}], r"context=0"),
        ([{"training": {"learning_rat": 1}}], r"learning_rat"),
    ],
)
def test_wrong_ensembles_are_refused(ensemble, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Forecaster(horizon=3, ensemble=ensemble)
