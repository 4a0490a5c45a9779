"""The forecaster: what torch trained is what numpy steps, and it knows what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recurra.errors import ConfigError, DataError, RunError
from recurra.runs import RunFolder, read_tensors, write_tensors
from recurra.tasks.anomaly.detector import AnomalyDetector
from recurra.tasks.anomaly.forecast import INPUTS, ForecastHead, weight_shapes
from recurra.tasks.anomaly.network import ForecastNetwork, learn_weights
from recurra.training.loop import TrainingResult, train

ROWS = 900


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """A wave that is easy to forecast, with one row that goes against it inside its usual range."""
    rng = np.random.default_rng(0)
    value = 10 * np.sin(np.arange(ROWS) / 8) + rng.normal(0, 0.3, ROWS)
    value[800] *= -0.8
    return pl.DataFrame({"time": np.arange(ROWS), "value": value})


@pytest.fixture(scope="module")
def detector(table: pl.DataFrame) -> AnomalyDetector:
    return AnomalyDetector(model="forecaster", steps=120, hidden_size=12).fit(table, until=599)


def test_a_numpy_step_is_the_network_s() -> None:
    torch.manual_seed(3)
    network = ForecastNetwork(7)
    weights = {k: v.detach().numpy().astype(float) for k, v in network.named_parameters()}
    assert {name: v.shape for name, v in weights.items()} == weight_shapes(7)
    x = torch.randn(2, 9, INPUTS)
    with torch.no_grad():
        wanted, _ = network(x, None, None)
    head = ForecastHead(weights)
    h = head._states(np.zeros((2, 7)), x.numpy().astype(float).transpose(1, 0, 2))
    made = x.numpy().transpose(1, 0, 2)[:, :, :1] + head._quantiles(h)
    np.testing.assert_allclose(made.transpose(1, 0, 2), wanted.numpy(), atol=2e-6)


def test_it_expects_the_wave_and_alarms_where_it_breaks(
    detector: AnomalyDetector, table: pl.DataFrame
) -> None:
    answers = detector.predict(table)
    late = answers[600:].with_columns(value=table["value"][600:])
    assert late["surprise"].arg_max() in (200, 201)  # the row itself, or the way back
    assert late["alarm"][200:202].any()
    error = (late["expected"] - late["value"]).abs().median()
    steps = table["value"][600:].diff().abs().median()
    assert error < 0.6 * steps  # better than that nothing changes
    inside = ((late["lower"] <= late["value"]) & (late["value"] <= late["upper"])).mean()
    assert 0.94 < inside <= 1.0


def test_a_stream_and_a_saved_run_give_the_same_bits(
    detector: AnomalyDetector, table: pl.DataFrame, tmp_path: Path
) -> None:
    wanted = detector.predict(table[600:])
    detector.save(tmp_path / "run")
    again = AnomalyDetector.load(tmp_path / "run")
    assert again.predict(table[600:]).equals(wanted)
    stream = again.stream()
    found = [stream.push(row)["surprise"] for row in table[600:].to_dicts()]
    assert found == wanted["surprise"].to_list()


def test_lanes_do_not_touch(detector: AnomalyDetector, table: pl.DataFrame) -> None:
    rng = np.random.default_rng(1)
    names = [f"s{n}" for n in range(5)]
    tables = [
        pl.DataFrame(
            {"time": np.arange(70 + 9 * n), "value": rng.normal(size=70 + 9 * n), "series": name}
        )
        for n, name in enumerate(names)
    ]
    both = AnomalyDetector(model="forecaster", steps=2).fit(pl.concat(tables))
    whole = both.predict(pl.concat(tables))
    for name, one in zip(names, tables, strict=True):
        assert whole.filter(series=name).equals(both.predict(one))


def test_the_same_seed_trains_the_same_weights(table: pl.DataFrame) -> None:
    lanes = [(table["value"].to_numpy(), np.zeros((ROWS, 2)))]

    def learn(seed: int) -> np.ndarray:
        made = learn_weights(lanes, hidden_size=3, seed=seed, progress=False, steps=3)
        return made["gru.weight_hh_l0"]

    assert learn(0).tolist() == learn(0).tolist() != learn(1).tolist()


def test_what_cannot_be_trained_is_refused(table: pl.DataFrame) -> None:
    with pytest.raises(DataError, match=r"there are 150 values to learn from, .* at least 200"):
        AnomalyDetector(model="forecaster").fit(table[:150])
    with pytest.raises(ConfigError, match="head='segment' and model='forecaster' do not go"):
        AnomalyDetector(model="forecaster", head="segment")
    with pytest.raises(ConfigError, match="model='memory' has nothing to train"):
        AnomalyDetector(minutes=1)
    with pytest.raises(ConfigError, match="steps=5 and minutes=1 both say"):
        AnomalyDetector(model="forecaster", steps=5, minutes=1)


def test_short_series_are_learned_from_and_validated_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve values each, two are kept, and the last of these has nothing after it."""
    results = []

    def keep(*given: Any, **how: Any) -> TrainingResult:
        results.append(train(*given, **how))
        return results[0]

    monkeypatch.setattr("recurra.tasks.anomaly.network.train", keep)
    values = np.random.default_rng(0).normal(size=(20, 12))
    lanes = [(one, np.zeros((12, 2))) for one in values]
    learn_weights(lanes, hidden_size=4, seed=0, progress=False, steps=60)
    assert results[0].best_loss is not None
    assert results[0].best_loss > 0.1


def test_series_of_one_row_are_nothing_to_learn_from() -> None:
    lanes = [(np.ones(1), np.zeros((1, 2)))] * 250
    with pytest.raises(DataError, match="0 values to learn from, in series of 3 rows and more"):
        learn_weights(lanes, hidden_size=4, seed=0, progress=False, steps=1)


def test_damaged_weights_are_refused(detector: AnomalyDetector, tmp_path: Path) -> None:
    detector.save(tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    tensors, metadata = read_tensors(run.state_path)
    tensors["weights.head.bias"] = torch.full((5,), torch.nan, dtype=torch.float64)
    write_tensors(run.state_path, tensors, metadata)
    run.write_config("anomaly", run.read_config()["config"], [run.state_path])
    with pytest.raises(RunError, match=r"the weights 'head.bias' are float64 \(5,\)"):
        AnomalyDetector.load(tmp_path / "run")
