"""Competitions: the official forecasts have the published scores, and odd tables are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recurra.data.catalogue import find
from recurra.data.recipe import find_recipe
from recurra.errors import DataError
from recurra.tasks.forecasting.competition import (
    Entry,
    Group,
    competition_results,
    long_frame,
    read_group,
    read_period,
    read_wide,
    score_point,
    with_owa,
)
from recurra.tasks.forecasting.reproduce import reproduce

OFFICIAL = {
    ("m4-hourly", "Naive2"): (18.383, 2.395, 1.0),
    ("m4-hourly", "sNaive"): (13.912, 1.193, 0.627),
    ("m4-hourly", "SES"): (18.094, 2.385, 0.990),
    ("m4-weekly", "Naive2"): (9.161, 2.777, 1.0),
    ("m4-weekly", "sNaive"): (9.161, 2.777, 1.0),
    ("m4-weekly", "SES"): (9.012, 2.685, 0.975),
}
SHAPE = {"m4-hourly": ("Hourly", 24, 48), "m4-weekly": ("Weekly", 1, 13)}


def found(name: str) -> Path:
    place = find(name)
    if place is None:
        pytest.skip(f"the data set {name} is not on this machine; set RECURRA_DATA")
    return place.folder


@pytest.mark.parametrize(("name", "method"), OFFICIAL)
def test_official_forecasts_have_the_published_scores(name: str, method: str) -> None:
    kind, season, horizon = SHAPE[name]
    folder, submissions = found(name), found("m4-submissions")
    files = (folder / f"{kind}-{part}.csv.xz" for part in ("train", "test"))
    group = read_group(*files, season, horizon)
    made = {}
    for wanted in ("Naive2", method):
        path = submissions / f"submission-{wanted}-hourly-weekly.csv.xz"
        rows = read_wide(path, horizon)
        scores = score_point(group, np.stack([rows[k] for k in group.test]))
        made[wanted] = {metric: round(value, 3) for metric, value in scores.items()}
    # The published OWA was made of the rounded figures: 0.62745 for hourly sNaive, and not 0.62751.
    scores = with_owa(made[method], made["Naive2"])
    assert tuple(round(scores[k], 3) for k in ("smape", "mase", "owa")) == OFFICIAL[name, method]


def test_our_seasonal_naive_is_the_official_one() -> None:
    folder, submissions = found("m4-hourly"), found("m4-submissions")
    group = read_group(folder / "Hourly-train.csv.xz", folder / "Hourly-test.csv.xz", 24, 48)
    rows = read_wide(submissions / "submission-sNaive-hourly-weekly.csv.xz", 48)
    assert np.array_equal(group.seasonal_naive(24), np.stack([rows[k] for k in group.test]))


def small() -> Group:
    train = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([10.0, 10.0, 10.0, 30.0])}
    return Group(1, 2, train, {"a": np.array([6.0, 2.0]), "b": np.array([30.0, 10.0])})


def test_scores_of_two_series_by_hand() -> None:
    # Scales 1.5 and 20/3; errors 2, 2 and 0, 20.
    scores = score_point(small(), small().seasonal_naive(1))
    assert scores["mase"] == pytest.approx(((4 / 2) / 1.5 + (20 / 2) / (20 / 3)) / 2)
    assert scores["smape"] == pytest.approx(200 * (2 / 10 + 2 / 6 + 0 + 20 / 40) / 4)
    assert with_owa(scores, {"smape": scores["smape"], "mase": 2 * scores["mase"]})[
        "owa"
    ] == pytest.approx(0.75)


def test_long_frame_counts_the_values_of_each_series() -> None:
    frame = long_frame(small().train)
    assert frame["series"].to_list() == ["a"] * 3 + ["b"] * 4
    assert frame["time"].to_list() == [0, 1, 2, 0, 1, 2, 3]
    assert frame["target"].to_list() == [1.0, 2.0, 4.0, 10.0, 10.0, 10.0, 30.0]


def test_wide_table_ends_where_a_series_ends(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('"V1","V2","V3"\n"a","1","2.5"\n"b","3",NA\n"c","4",""\n')
    read = read_wide(path)
    assert {name: values.tolist() for name, values in read.items()} == {
        "a": [1.0, 2.5],
        "b": [3.0],
        "c": [4.0],
    }
    assert read_wide(path, 1)["a"].tolist() == [1.0]


def test_wrong_tables_are_refused_by_name(tmp_path: Path) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("V1,V2,V3\na,1,2\nb,1,2\n")
    test.write_text("V1,V2,V3\na,1,2\nc,1,2\n")
    with pytest.raises(DataError, match=r"'c' is not in both train.csv and test.csv"):
        read_group(train, test, 1, 2)
    with pytest.raises(DataError, match=r"test.csv: the series 'a' has 2 values; expected the 3"):
        read_group(train, test, 1, 3, ["a"])
    train.write_text("V1,V2,V3\na,,2\n")
    with pytest.raises(DataError, match=r"train.csv: the row 'a' holds something else"):
        read_wide(train)


TINY = {"steps": 2, "hidden_size": 4, "batch_size": 4, "ensemble": 2, "progress": False}


def test_reproduce_scores_ours_next_to_the_official_forecasts() -> None:
    found("m4-weekly")
    found("m4-submissions")
    recipe = find_recipe("m4-weekly")
    groups = [{**one, "settings": {**TINY, "context": 8}} for one in recipe.section["groups"]]
    tiny = recipe.model_copy(update={"section": {**recipe.section, "groups": groups}})
    outcome = reproduce(tiny, 1)
    rows = {row["model"]: row["metrics"] for row in outcome["results"]}
    assert list(rows) == ["recurra", "naive", "naive2", "ses"]
    assert rows["naive2"] == pytest.approx({"smape": 9.161, "mase": 2.777, "owa": 1}, abs=5e-4)
    assert rows["naive"]["owa"] == pytest.approx(1.0, abs=1e-4)
    # Barely trained, ours is about the last value that it starts as.
    assert 0.9 < rows["recurra"]["owa"] < 1.2
    assert 0.0 < rows["recurra"]["coverage_80"] < 1.0
    assert outcome["data"] == "m4-weekly: 359 weekly series, 13 steps"
    assert [one["steps"] for one in outcome["training"]["weekly"]] == [2, 2]


def test_groups_with_and_without_a_season_share_the_baselines_rows() -> None:
    found("m3")
    recipe = find_recipe("m3")
    groups = [
        {**one, "settings": {**TINY, "ensemble": 1}}
        for one in recipe.section["groups"]
        if one["name"] in ("quarterly", "other")
    ]
    tiny = recipe.model_copy(update={"section": {**recipe.section, "groups": groups}})
    outcome = reproduce(tiny, 1)
    rows = {row["model"]: row["metrics"] for row in outcome["results"]}
    assert list(rows) == ["recurra", "naive", "seasonal_naive"]
    # Makridakis and Hibon 2000: Naive2 of series without a season; the last season of quarters.
    assert rows["naive"]["smape_other"] == pytest.approx(6.30, abs=5e-3)
    assert rows["seasonal_naive"]["smape_other"] == rows["naive"]["smape_other"]
    assert rows["seasonal_naive"]["smape_quarterly"] == pytest.approx(11.07, abs=5e-3)
    assert "owa" not in rows["recurra"]
    assert outcome["data"] == "m3: 756 quarterly series, 8 steps; 174 other series, 8 steps"


def test_groups_count_by_their_values_and_series() -> None:
    first = small()
    second = Group(1, 1, {"c": np.array([1.0, 3.0])}, {"c": np.array([1.0])})
    entries = {
        name: Entry(group, {"recurra": group.seasonal_naive(1)}, None, {})
        for name, group in (("first", first), ("second", second))
    }
    (row,) = competition_results(entries)
    one, other = (score_point(entry.group, entry.points["recurra"]) for entry in entries.values())
    assert row["metrics"] == pytest.approx(
        {
            "smape": (4 * one["smape"] + other["smape"]) / 5,
            "mase": (2 * one["mase"] + other["mase"]) / 3,
            "smape_first": one["smape"],
            "smape_second": other["smape"],
        }
    )


def test_series_of_one_period(tmp_path: Path) -> None:
    info = tmp_path / "info.csv"
    info.write_text("id,period\na,MONTHLY\nb,YEARLY\nc,MONTHLY\n")
    assert read_period(info, "MONTHLY") == ["a", "c"]
    with pytest.raises(DataError, match=r"info.csv has no series with period 'DAILY'"):
        read_period(info, "DAILY")
