"""Series of a table: the value at each time survives, whatever the order, gaps and covariates."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.calendar import format_time
from recurra.data.frequency import Frequency, parse
from recurra.data.series import Columns, SeriesSet, read_series
from recurra.errors import ConfigError, DataError

ONE = Columns(time="t", target=("y",))
MANY = Columns(time="t", target=("y",), series="id")


def days(count: int, start: str = "2024-01-01") -> list[str]:
    return [str(np.datetime64(start) + day) for day in range(count)]


def frame(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns, strict=False)


def values(data: SeriesSet, number: int = 0) -> list[float | None]:
    column = data.series[number].target[:, 0]
    return [None if np.isnan(value) else value for value in column.tolist()]


def message(source: Any, columns: Columns, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read_series(source, columns, **options)
    return str(error.value)


@st.composite
def ramps(draw: st.DrawFn) -> tuple[Frequency, dict[str, dict[int, int]], list[tuple[str, int]]]:
    """A grid, for each series its ramp {index: value}, and the rows in any order."""
    text = draw(st.sampled_from(["15min", "1h", "1d", "1w", "1mo", "1q", "1y", "b", "1i", "7i"]))
    names = draw(st.lists(st.text("abc é,", min_size=1, max_size=3), min_size=1, unique=True))
    series = {}
    for number, name in enumerate(names):
        start = draw(st.integers(-50, 50))
        length = draw(st.integers(1, 40))
        absent = draw(st.sets(st.integers(0, length - 1), max_size=length - 1))
        series[name] = {start + step: 1000 * number + step for step in range(length)}
        for step in absent:
            del series[name][start + step]
    rows = draw(st.permutations([(name, index) for name in names for index in series[name]]))
    return parse(text), series, rows


@given(ramps(), st.booleans())
def test_every_value_is_found_at_its_time(case: Any, as_pandas: bool) -> None:
    frequency, ramp, rows = case
    times = frequency.times(np.array([index for _, index in rows]))
    table: Any = frame(
        id=[name for name, _ in rows],
        y=[ramp[name][index] for name, index in rows],
        t=[format_time(moment) for moment in times],
    )
    table = pd.DataFrame(table.to_dict(as_series=False)) if as_pandas else table
    data = read_series(table, MANY, frequency=frequency)
    assert [one.name for one in data.series] == list(dict.fromkeys(name for name, _ in rows))
    for one in data.series:
        found = {
            int(index): int(value)
            for index, value in zip(one.index, one.target[:, 0], strict=True)
            if not np.isnan(value)
        }
        assert found == ramp[one.name]
        assert one.start == min(found)
        assert len(one) == max(found) - min(found) + 1
    gaps = sum(len(one) for one in data.series) - len(rows)
    assert any(f"{gaps} absent row(s)" in note for note in data.notes) == bool(gaps)
    ordered = all(
        [index for other, index in rows if other == name] == sorted(ramp[name]) for name in ramp
    )
    assert any("sorted" in note for note in data.notes) == (not ordered)


def test_series_may_be_interleaved_and_only_their_own_order_counts() -> None:
    table = frame(id=["a", "b", "a", "b"], t=[0, 5, 1, 6], y=range(4))
    assert read_series(table, MANY).notes == ()
    swapped = frame(id=["a", "b", "a", "b"], t=[1, 5, 0, 6], y=range(4))
    assert read_series(swapped, MANY).notes == ("rows were not in order of time; they were sorted",)


def test_gaps_are_missing_rows_with_their_times() -> None:
    data = read_series(frame(t=["2024-01", "2024-02", "2024-05"], y=[0, 1, 4]), ONE)
    assert values(data) == [0, 1, None, None, 4]
    assert [format_time(moment) for moment in data.times(data.series[0])][2:4] == [
        "2024-03-01",
        "2024-04-01",
    ]


@pytest.mark.parametrize(
    ("duplicates", "wanted"), [("mean", [0, 2, 6]), ("first", [0, 1, 5]), ("last", [0, 3, 7])]
)
def test_repeated_times_are_merged_on_request(duplicates: str, wanted: list[float]) -> None:
    columns = Columns(time="t", target=("y",), past=("p", "w"))
    table = frame(
        t=[2, 0, 1, 1, 2], y=[5, 0, 1, 3, 7], p=[None, 0, 10, 20, 4], w=["a", "a", "b", "a", "a"]
    )
    data = read_series(table, columns, duplicates=duplicates)
    assert values(data) == wanted
    assert any(f"kept the {duplicates}" in note for note in data.notes)
    if duplicates == "mean":  # a missing value is no part of a mean, and words have none
        assert data.series[0].past.tolist() == [[0, 1, 0], [15, 0, 1], [4, 1, 0]]


def test_repeated_times_are_refused_with_both_rows() -> None:
    table = frame(id=["a", "b", "b", "b"], t=["2024-01-01", *days(2), "2024-01-02"], y=range(4))
    text = message(table, MANY)
    assert "series 'b', row 3 and row 4 have the same time 2024-01-02 (1 repeated" in text
    assert "duplicates='mean'" in text
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        read_series(table, MANY, duplicates="means")


def test_leading_rows_without_target_go_and_trailing_ones_stay() -> None:
    data = read_series(frame(t=days(5), y=[None, 1, None, 3, None]), ONE)
    assert values(data) == [1, None, 3, None]
    assert format_time(data.times(data.series[0])[0]) == "2024-01-02"
    assert "1 leading row(s)" in data.notes[-1]


def test_known_future_is_kept_after_the_last_target() -> None:
    columns = Columns(time="t", target=("y",), future=("f",), past=("p",), series="id")
    table = frame(
        id=["a"] * 6 + ["b"] * 3,
        t=days(7)[:4] + days(7)[5:] + days(3),
        y=[0, 1, None, None, None, None, 5, 6, 7],
        f=[10, 11, 12, 13, 15, None, 20, None, 22],
        p=[1, None, 3, 4, 5, 6, None, 8, 9],
    )
    data = read_series(table, columns)
    first, second = data.series
    assert values(data) == [0, 1]
    assert first.extra == 4
    assert first.future[:, 0].tolist() == [10, 11, 12, 13, 13, 15]
    assert first.past[:, 0].tolist() == [1, 1]
    assert (second.extra, second.future[:, 0].tolist()) == (0, [20, 20, 22])
    assert np.isnan(second.past[0, 0])
    assert second.past[1:, 0].tolist() == [8, 9]
    assert (
        "2 missing value(s) of 'p' count as the last known one, or as unknown before it"
        in data.notes
    )
    assert (
        "2 missing value(s) of 'f' count as the last known one, or as unknown before it"
        in data.notes
    )


def test_the_future_of_a_covariate_does_not_reach_the_past() -> None:
    columns = Columns(time="t", target=("y",), past=("p",))
    before = frame(t=days(6), y=range(6), p=[1.0, None, 3, None, None, 6])
    after = before.with_columns(p=pl.Series([1.0, None, 3, None, None, 99]))
    one, two = (read_series(table, columns).series[0].past for table in (before, after))
    assert one[:5].tolist() == two[:5].tolist() == [[1], [1], [3], [3], [3]]
    late = before.with_columns(p=pl.Series([None, None, 3.0, None, None, None]))
    filled = read_series(late, columns).series[0].past[:, 0]
    assert np.isnan(filled[:2]).all()
    assert filled[2:].tolist() == [3, 3, 3, 3]


def test_words_become_one_hot_columns_that_are_used_again() -> None:
    columns = Columns(
        time="t", target=("y",), series="id", future=("f",), past=("w",), static=("s", "n")
    )
    table = frame(
        id=["a", "a", "b", "b"],
        t=days(2) * 2,
        y=range(4),
        f=[True, False, True, True],
        w=["sun", None, "rain", "sun"],
        s=["north", None, "south", "south"],
        n=[1, 1, 2, None],
    )
    data = read_series(table, columns)
    assert data.categories == {"w": ["rain", "sun"], "s": ["north", "south"]}
    assert data.feature_names("past") == ("w=rain", "w=sun")
    assert data.feature_names("static") == ("s=north", "s=south", "n")
    assert data.series[0].past.tolist() == [[0, 1], [0, 1]]
    assert [one.static.tolist() for one in data.series] == [[1, 0, 1], [0, 1, 2]]
    assert data.series[0].future.tolist() == [[1], [0]]

    later = table.with_columns(
        w=pl.Series(["snow", "rain", "1", "2"]), s=pl.Series(["west"] * 2 + ["north"] * 2)
    )
    again = read_series(later, columns, categories=data.categories)
    assert again.series[0].past.tolist() == [[0, 0], [1, 0]]
    assert again.series[0].static.tolist() == [0, 0, 1]
    assert any("'w' has 3 value(s)" in note and "'snow'" in note for note in again.notes)
    numbers = table.with_columns(w=pl.Series([1, 2, 3, 4]))
    assert read_series(numbers, columns, categories=data.categories).series[0].past.shape == (2, 2)
    text = message(table.with_columns(n=pl.Series(["x"] * 4)), columns, categories=data.categories)
    assert "series 'a', row 1: 'n' is 'x'; expected a number" in text


def test_series_names_are_text_in_every_source(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,t,y\n1,0,1\n1,1,2\n2,0,3\nNA,0,4\n")
    assert [one.name for one in read_series(path, MANY).series] == ["1", "2", "NA"]
    for ids in ([1, 1, 2], [1.0, 1.0, 2.0], ["1", "1", "2"], pd.Categorical(["1", "1", "2"])):
        table = pd.DataFrame({"id": ids, "t": [0, 1, 0], "y": [1, 2, 3]})
        assert [one.name for one in read_series(table, MANY).series] == ["1", "2"]


def test_reading_does_not_change_the_frame() -> None:
    table = pd.DataFrame({"t": days(3)[::-1], "y": [3.0, None, 1.0]})
    before = table.copy(deep=True)
    data = read_series(table, ONE)
    data.series[0].target[:] = 7
    pd.testing.assert_frame_equal(table, before)


def test_frequency_given_as_text_starts_where_the_data_lie() -> None:
    weekly = frame(t=["2024-01-02", "2024-01-16"], y=[1, 3])
    assert values(read_series(weekly, ONE, frequency="1w")) == [1, None, 3]
    assert "2024-01-16 is not on the grid of 1 month" not in message(weekly, ONE, frequency="1i")
    single = read_series(frame(t=["2024-01-02"], y=[1]), ONE, frequency="1d")
    assert values(single) == [1]


def test_the_order_of_day_and_month_is_reported_for_further_tables() -> None:
    data = read_series(frame(t=["11/2/2024", "12/2/2024", "13/2/2024"], y=[1, 2, 3]), ONE)
    assert data.time_format == "dmy"
    more = read_series(
        frame(t=["1/3/2024"], y=[4]), ONE, frequency=data.frequency, time_format=data.time_format
    )
    assert more.series[0].start == data.series[0].start + 19


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": [1, "x", 3, 4]}, ["series 'a', row 2: 'y' is 'x'", "expected a number"]),
        ({"y": [1, 2, np.inf, 4]}, ["series 'b', row 3: 'y' is inf", "finite"]),
        ({"y": [1, 2, None, np.nan]}, ["series 'b' has no observed target in its 2 row(s)"]),
        ({"t": [*days(2), None, "2024-01-02"]}, ["series 'b', row 3: no time in the column 't'"]),
        ({"t": [*days(3), "soon"]}, ["series 'b', row 4: cannot read the time 'soon'"]),
        ({"id": ["a", "a", None, "b"]}, ["row 3: no value in the column 'id'"]),
        ({"p": [1, 2, -np.inf, 3]}, ["series 'b', row 3: 'p' is -inf"]),
        ({"p": [np.datetime64("2024-01-01", "ns")] * 4}, ["covariate 'p' holds dates"]),
        ({"s": [1, 1, 1, 2]}, ["series 'b'", "'s' is not the same in row 3 and row 4"]),
        ({"s": ["x", "y", "x", "x"]}, ["series 'a'", "'s' is not the same in row 1 and row 2"]),
        ({"s": [None, None, 1, 1]}, ["series 'a' has no value of the static covariate 's'"]),
    ],
)
def test_bad_rows_are_named(change: dict[str, Any], words: list[str]) -> None:
    columns = Columns(time="t", target=("y",), series="id", past=("p",), static=("s",))
    good = {
        "id": list("aabb"),
        "t": days(2) * 2,
        "y": [1, 2, 3, 4],
        "p": [1, 2, 3, 4],
        "s": [1] * 4,
    }
    assert len(read_series(frame(**good), columns)) == 2
    for table in (frame(**{**good, **change}), pd.DataFrame({**good, **change})):
        text = message(table, columns, frequency="1d")
        for word in words:
            assert word in text


def test_times_off_the_grid_name_series_row_and_neighbours() -> None:
    stamps = [f"{day} {hour:02}:00" for day in days(2) for hour in range(24)]
    stamps[30] = "2024-01-02 06:30"
    text = message(frame(t=stamps, y=range(48)), ONE)
    assert "row 31: time 2024-01-02 06:30:00 is not on the grid of 1 hour" in text
    assert "expected 2024-01-02 06:00:00 or 2024-01-02 07:00:00" in text
    assert "(1 such row(s) in all)" in text


def test_irregular_tables_say_what_to_do() -> None:
    rng = np.random.default_rng(1)
    text = message(frame(t=np.cumsum(rng.integers(1, 999, 40)), y=range(40)), ONE)
    assert "no regular grid" in text
    assert "--freq" in text


def test_a_mistyped_year_does_not_fill_the_memory() -> None:
    seconds = np.datetime64("2024-01-01", "ms") + 1000 * np.arange(500)
    stamps = np.append(seconds, np.datetime64("2204-01-01", "ms"))
    text = message(frame(t=stamps, y=range(501)), ONE)
    assert "rows are absent between 2024-01-01 00:08:19 and 2204-01-01" in text


def test_columns_are_checked() -> None:
    assert "unknown column 'z'" in message(frame(t=[1], y=[1]), Columns(time="t", target=("z",)))
    assert "no rows" in message(pl.DataFrame({"t": [], "y": []}), ONE)
    for wrong in (
        {"time": "t", "target": ()},
        {"time": "t", "target": ("t",)},
        {"time": "t", "target": ("y",), "past": ("p", "p")},
        {"time": "t", "target": "y"},
    ):
        with pytest.raises(ConfigError, match="Columns: "):
            Columns(**wrong)  # type: ignore[arg-type]
    names = frame(t=range(300), y=range(300), c=[f"n{i}" for i in range(300)])
    assert "'c' has 300 different values" in message(names, Columns("t", ("y",), past=("c",)))


def test_a_million_rows_are_quick() -> None:
    count, length = 1000, 1000
    moments = np.datetime64("2020-01-01", "ns") + np.arange(length) * np.timedelta64(1, "h")
    table = frame(
        id=np.repeat([f"s{number}" for number in range(count)], length),
        t=np.tile(moments, count),
        y=np.arange(count * length, dtype=float),
        p=np.arange(count * length) % 7,
    )
    begin = time.process_time()
    data = read_series(table, Columns("t", ("y",), series="id", past=("p",)))
    # A loop over rows takes more than ten times as long.
    assert time.process_time() - begin < 6
    assert data.series[999].target[-1, 0] == count * length - 1


@pytest.mark.parametrize(
    ("name", "columns", "step", "count", "length", "missing"),
    [
        ("weather/seattle-weather.csv", Columns("date", ("temp_max",)), "1 day", 1, 1461, 0),
        ("stocks/stocks.csv", Columns("date", ("price",), "symbol"), "1 month", 5, 123, 0),
        ("stocks/sp500-2000.csv", Columns("date", ("close",)), "1 business day", 1, 5295, 190),
        ("ett/ETTh1.csv.xz", Columns("date", ("OT",)), "1 hour", 1, 17420, 0),
        ("classic/AirPassengers.csv", Columns("Month", ("#Passengers",)), "1 month", 1, 144, 0),
        ("classic/ausbeer.csv", Columns("date", ("Y",)), "1 quarter", 1, 211, 0),
        ("classic/daily-min-temperatures.csv", Columns("Date", ("Temp",)), "1 day", 1, 3652, 2),
        ("illness/national_illness.csv", Columns("date", ("OT",)), "1 week", 1, 966, 0),
    ],
)
def test_real_tables(
    data_file: Callable[[str], Path],
    name: str,
    columns: Columns,
    step: str,
    count: int,
    length: int,
    missing: int,
) -> None:
    data = read_series(data_file(f"forecasting/{name}"), columns)
    assert data.frequency.name == step
    assert (len(data), len(data.series[0])) == (count, length)
    assert int(np.isnan(data.series[0].target).sum()) == missing


def test_real_electricity_has_a_repeated_hour_each_autumn(
    data_file: Callable[[str], Path],
) -> None:
    path = data_file("forecasting/electricity/pjm_est_hourly.csv.xz")
    columns = Columns("Datetime", ("AEP",))
    text = message(path, columns)
    assert "same time 2014-11-02 02:00:00 (4 repeated" in text
    data = read_series(path, columns, duplicates="mean")
    assert data.frequency.name == "1 hour"
    assert (len(data.series[0]), int(np.isnan(data.series[0].target).sum())) == (121296, 27)
