"""Long horizons: every window is scored, parts do not leak, and published figures come out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.tasks.forecasting.tables import days

from recurra.data.catalogue import find
from recurra.data.recipe import find_recipe
from recurra.errors import DataError
from recurra.tasks.forecasting import long_horizon
from recurra.tasks.forecasting.fitted import Fitted
from recurra.tasks.forecasting.long_horizon import (
    WINDOWS_AT_ONCE,
    LongHorizonSection,
    linear_scores,
    read_split,
    repeated,
    score,
)

RECIPES = [f"ett{table}{end}" for table in ("h1", "h2", "m1", "m2") for end in ("", "-96")]
TINY = {
    "file": "table.csv",
    "time": "time",
    "splits": (60, 80, 100),
    "horizons": (2, 5),
    "season": 7,
    "linear": (14,),
    "settings": {"steps": 2, "hidden_size": 4, "quantile_levels": [0.5], "model": "segments"},
    "entries": ({"name": "look-back 6", "settings": {"context": 6, "segment": 3}},),
}


def table(rows: int = 120) -> pl.DataFrame:
    t = np.arange(rows)
    noise = np.random.default_rng(0).standard_normal((2, rows))
    return pl.DataFrame(
        {"time": days(rows), "a": np.sin(t * 2 * np.pi / 7) + 0.1 * noise[0], "b": t + noise[1]}
    )


def section(**changed) -> LongHorizonSection:
    return LongHorizonSection(**{**TINY, **changed})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    table().write_csv(tmp_path / "table.csv")
    monkeypatch.setattr(long_horizon, "locate", lambda dataset: tmp_path)
    return tmp_path


def test_parts_begin_where_the_part_before_ends(folder: Path) -> None:
    _, split = read_split(folder / "table.csv", section())
    assert split.z.shape == (100, 2)
    for part, first, last in ((1, 60, 79), (2, 80, 99)):
        origins = split.origins(part, 5)
        assert origins[0] + 1 == first
        assert origins[-1] + 5 == last
        assert len(origins) == 20 - 5 + 1
    assert split.z[:60].mean(0) == pytest.approx(0.0, abs=1e-12)
    assert split.z[:60].std(0) == pytest.approx(1.0)


@pytest.mark.parametrize("at_once", [1, 7, WINDOWS_AT_ONCE])
def test_score_is_the_plain_mean_over_every_window_however_many_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(long_horizon, "WINDOWS_AT_ONCE", at_once)
    _, split = read_split(folder / "table.csv", section())
    metrics = score(split, repeated(split, 1, 5), (2, 5))
    for horizon in (2, 5):
        errors = [
            split.z[row + 1 : row + 1 + horizon] - split.z[row] for row in range(79, 100 - horizon)
        ]
        assert len(errors) == 21 - horizon
        assert metrics[f"mse_{horizon}"] == pytest.approx(np.mean(np.square(errors)))
        assert metrics[f"mae_{horizon}"] == pytest.approx(np.mean(np.abs(errors)))
    assert metrics["mse"] == pytest.approx((metrics["mse_2"] + metrics["mse_5"]) / 2)


def best_losses(fitted: dict[str, list[Fitted]]) -> list[float]:
    """The best validation loss of each horizon's forecaster."""
    return [one.training["result"]["best_loss"] for one in fitted["look-back 6"]]


def test_all_models_are_scored_and_no_test_row_is_trained_on(folder: Path) -> None:
    rows, fitted = long_horizon.run(section(), "ett", seed=0)
    names = [row["model"] for row in rows]
    assert names == ["recurra, look-back 6", "linear, look-back 14", "seasonal_naive", "naive"]
    assert all(np.isfinite(list(row["metrics"].values())).all() for row in rows)
    changed = table().with_columns(
        b=pl.when(pl.arange(120) >= 80).then(-5.0).otherwise(pl.col("b"))
    )
    changed.write_csv(folder / "table.csv")
    _, again = long_horizon.run(section(), "ett", seed=0)
    assert [one.settings.horizon for one in fitted["look-back 6"]] == [2, 5]
    assert best_losses(fitted) == best_losses(again)


def test_validation_rows_are_those_of_the_split(folder: Path) -> None:
    first = best_losses(long_horizon.run(section(), "ett", seed=0)[1])
    for row, moved in ((59, False), (60, True), (79, True)):
        table().with_columns(
            b=pl.when(pl.arange(120) == row).then(500.0).otherwise(pl.col("b"))
        ).write_csv(folder / "table.csv")
        _, split = read_split(folder / "table.csv", section())
        assert (split.mean[1] == pytest.approx(table()["b"][:60].mean())) == moved
        made = best_losses(long_horizon.run(section(), "ett", seed=0)[1])
        assert made != first


def test_linear_penalty_is_chosen_on_validation_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, split = read_split(folder / "table.csv", section())
    weights = [np.zeros((14, 2)), np.full((14, 2), 5.0)]
    monkeypatch.setattr(long_horizon.linear, "learn", lambda *given: weights)
    made = linear_scores(split, 14, (2,), 1)
    assert made["mse_2"] == pytest.approx(score(split, repeated(split, 1, 2), (2,))["mse_2"])


def test_file_without_a_header_is_read_by_names_and_its_rows_are_counted(folder: Path) -> None:
    path = folder / "numbers.txt.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f"{n},{n - 200}.5\n" for n in range(120))
    given = section(file=path.name, names=("a", "b"))
    frame, split = read_split(path, given)
    assert frame.columns == ["time", "a", "b"]
    assert split.series.target[[0, 99]].tolist() == [[0.0, -200.5], [99.0, -101.5]]
    with pytest.raises(DataError, match=r"has 2 columns; expected the 3 of the recipe, a, b, c"):
        read_split(path, section(names=("a", "b", "c")))
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(DataError, match=r"numbers\.txt\.gz holds something else than numbers"):
        read_split(path, given)


def test_short_or_broken_tables_are_refused(folder: Path) -> None:
    table(90).write_csv(folder / "table.csv")
    with pytest.raises(DataError, match=r"table.csv has 90 rows, 0 values missing; expected 100"):
        read_split(folder / "table.csv", section())
    table().with_columns(a=pl.when(pl.arange(120) != 5).then(pl.col("a"))).write_csv(
        folder / "table.csv"
    )
    with pytest.raises(DataError, match="1 values missing"):
        read_split(folder / "table.csv", section())


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_official_split(name: str) -> None:
    recipe = find_recipe(name)
    checked = LongHorizonSection(**recipe.section)
    assert checked.splits == tuple(n * (4 if "ettm" in name else 1) for n in (8640, 11520, 14400))
    assert checked.horizons == (96, 192, 336, 720)
    (entry,) = checked.entries
    look_back = max(member["context"] for member in entry.settings["ensemble"])
    assert (look_back, checked.linear) == ((96, (96,)) if "-96" in name else (720, (720,)))
    assert entry.name == f"look-back {look_back}"


def test_naive_forecasts_have_the_published_scores() -> None:
    place = find("ett")
    if place is None:
        pytest.skip("the data set ett is not on this machine; set RECURRA_DATA")
    checked = LongHorizonSection(**find_recipe("etth1").section)
    _, split = read_split(place.folder / checked.file, checked)
    made = score(split, repeated(split, 1, 96), (96,))
    # Zeng et al. 2023, table 2, "Repeat": 1.295 and 0.713.
    assert (made["mse_96"], made["mae_96"]) == pytest.approx((1.295, 0.713), abs=1e-3)
