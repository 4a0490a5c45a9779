"""Reading a time column: many ways to write a time, one time."""

from __future__ import annotations

import datetime as dt
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data.calendar import format_time
from recurra.data.frequency import parse
from recurra.data.times import Times, read_time, read_times
from recurra.errors import DataError


def read(values: Any, **options: Any) -> Times:
    native = values if isinstance(values, (pd.Series, pl.Series)) else pl.Series(values)
    return read_times(nw.from_native(native, series_only=True), **options)


def shown(times: Times) -> list[str]:
    return [format_time(value) for value in times.values]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2020-01-31", "2020-01-31"),
        ("2020-1-3", "2020-01-03"),
        ("2020/01/31", "2020-01-31"),
        ("20200131", "2020-01-31"),
        ("31.1.2020", "2020-01-31"),
        ("31/1/2020", "2020-01-31"),
        ("1/31/2020", "2020-01-31"),
        ("1-31-2020 06:30", "2020-01-31 06:30:00"),
        ("Jan 31 2020", "2020-01-31"),
        ("january 31, 2020", "2020-01-31"),
        ("31 Jan 2020", "2020-01-31"),
        ("31-Sept-2020 1:02", None),
        ("30-Sept-2020 1:02", "2020-09-30 01:02:00"),
        ("Jan 2020", "2020-01-01"),
        ("1949-01", "1949-01-01"),
        ("1956Q2", "1956-04-01"),
        ("1956-Q4", "1956-10-01"),
        ("2020-01-31 06:30", "2020-01-31 06:30:00"),
        ("2020-01-31T06:30:05.25", "2020-01-31 06:30:05.250000"),
        ("2020-01-31 06:30:00.123456789012", "2020-01-31 06:30:00.123456789"),
        ("1969-12-31 23:59:59.999999999", "1969-12-31 23:59:59.999999999"),
        ("2020-02-30", None),
        ("2020-13-01", None),
        ("2020-01-31 24:00", None),
        ("1600-01-01", None),
        ("0001-01-01", None),
        ("yesterday", None),
        ("32.1.2020", None),
        ("1956Q5", None),
    ],
)
def test_text_is_read_in_the_form_it_has(text: str, time: str | None) -> None:
    if time is not None:
        assert shown(read([f" {text} "])) == [time]
        return
    with pytest.raises(DataError) as error:
        read(["2020-01-01", text] if text[0] == "2" else [text])
    assert repr(text) in str(error.value)
    assert ("row 2" if text[0] == "2" else "row 1") in str(error.value)
    assert "time_format" in str(error.value)


@given(st.lists(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)), min_size=1))
def test_every_source_gives_the_same_times(moments: list[dt.datetime]) -> None:
    wanted = np.array(moments, "datetime64[us]").astype("datetime64[ns]")
    sources: list[Any] = [
        pl.Series(moments),
        pl.Series(moments).cast(pl.Datetime("ns")),
        pd.Series(wanted),
        pd.Series(moments, dtype=object),
        [moment.isoformat() for moment in moments],
        [str(moment) for moment in moments],
        pd.Series([f"{moment:%d.%m.}{moment.year} {moment:%H:%M:%S.%f}" for moment in moments]),
    ]
    for source in sources:
        times = read(source)
        assert times.values.dtype == "datetime64[ns]"
        assert not times.missing.any()
        np.testing.assert_array_equal(times.values, wanted)


@given(st.lists(st.integers(-(10**7) + 1, 10**7 - 1) | st.none(), min_size=1).filter(any))
def test_whole_numbers_are_an_index(values: list[int | None]) -> None:
    text = [None if value is None else str(value) for value in values]
    for source in (values, text, pd.Series(values, dtype="Int64"), pd.Series(values, dtype=float)):
        times = read(source)
        assert times.values.dtype == np.int64
        assert times.missing.tolist() == [value is None for value in values]
        assert times.values.tolist() == [value or 0 for value in values]


def test_eight_digits_are_a_date_unless_the_frequency_counts_integers() -> None:
    assert shown(read([20200131, 20200201])) == ["2020-01-31", "2020-02-01"]
    assert read([20200131], frequency=parse("i")).values.tolist() == [20200131]
    assert read([20200131, 20200132]).values.tolist() == [20200131, 20200132]
    assert shown(read([20200131], frequency=parse("d"))) == ["2020-01-31"]


def test_fractions_and_other_types_are_no_times() -> None:
    with pytest.raises(DataError, match=r"row 2: time 2000\.5 is not a whole number"):
        read([2000.0, 2000.5])
    with pytest.raises(DataError, match="cannot read the time 'True'"):
        read([True])


def test_missing_times_are_marked() -> None:
    for values in (
        ["2020-01-01", None, "NaN", ""],
        pd.Series(["2020-01-01", None, float("nan"), pd.NaT], dtype=object),
        pd.Series(pd.to_datetime(["2020-01-01", None, None, None])),
        pd.Series([20200101, None, None, None], dtype="Int64"),
        pd.Series([20200101.0, None, None, None]),
    ):
        times = read(values)
        assert times.missing.tolist() == [False, True, True, True]
        assert shown(times)[0] == "2020-01-01"


def test_day_and_month_are_told_apart_by_any_row() -> None:
    times = read(["1/2/2020", "2/2/2020", "13/2/2020"])
    assert shown(times) == ["2020-02-01", "2020-02-02", "2020-02-13"]
    assert times.time_format == "dmy"
    assert shown(read(["1/2/2020"], time_format="dmy")) == ["2020-02-01"]
    assert shown(read(["1/2/2020"], time_format="mdy")) == ["2020-01-02"]
    for values in (["1/2/2020", "3/4/2020"], ["13/2/2020", "2/13/2020"]):
        with pytest.raises(DataError, match=rf"{values[0]}.*time_format='dmy' or 'mdy'"):
            read(values)


def test_a_pattern_reads_any_form() -> None:
    assert shown(read(["31/01/20", "01/02/20"], time_format="%d/%m/%y"))[1] == "2020-02-01"
    assert shown(read(["31/01/20 05:06"], time_format="%d/%m/%y %H:%M")) == ["2020-01-31 05:06:00"]
    assert shown(read(["01/49"], time_format="%m/%y"))[0].endswith("-01-01")
    assert shown(read([202001], time_format="%Y%m")) == ["2020-01-01"]
    with pytest.raises(DataError, match=r"row 2: cannot read the time '2020-01-32'.*%Y-%m-%d"):
        read(["2020-01-31", "2020-01-32"], time_format="%Y-%m-%d")


def test_zoned_times_become_utc_and_zoned_days_stay_local() -> None:
    hours = pd.date_range("2021-03-27 22:00", periods=6, freq="h", tz="Europe/Berlin")
    days = pd.date_range("2021-03-26", periods=5, freq="D", tz="Europe/Berlin")
    for source, wanted in (
        (hours, hours.tz_convert("UTC").tz_localize(None)),
        (days, days.tz_localize(None)),
    ):
        for values in (
            pd.Series(source),
            pl.Series(list(source.tz_convert("UTC").tz_localize(None)))
            .dt.replace_time_zone("UTC")
            .dt.convert_time_zone("Europe/Berlin"),
            [time.isoformat() for time in source],
        ):
            times = read(values)
            np.testing.assert_array_equal(times.values, wanted.to_numpy().astype("datetime64[ns]"))
            assert "zone" in times.notes[0]
    assert shown(read(["2021-01-01T00:00+01:00"], frequency=parse("h"))) == ["2020-12-31 23:00:00"]
    assert shown(read(["2021-01-01T00:00+0130"], frequency=parse("d"))) == ["2021-01-01"]
    assert shown(read(["2021-01-01T05:00-0130"], frequency=parse("h"))) == ["2021-01-01 06:30:00"]


def test_zones_on_some_rows_only_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 2: the time '2020-01-01 01:00' has no zone"):
        read(["2020-01-01 00:00Z", "2020-01-01 01:00"])


def test_datetimes_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 2: time 1500-01-01.*1678 to 2261"):
        read([dt.date(2000, 1, 1), dt.date(1500, 1, 1)])


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-31",
        "2020-02-29T23:59:59.000000001",
        "1969-07-20 20:17",
        "2020-01-01 00:00:01,5",
        "2021-02-29",
        "1500-01-01",
        "2020-01-01 24:00",
        "2020-1-5",
        "2020-01-01 00:00:00Z",
        "20200131",
        20200131,
        5,
        -(2**40),
    ],
)
def test_one_time_is_read_as_in_a_table(text: str | int) -> None:
    def outcome(reader: Any) -> Any:
        try:
            times = reader()
            return times.values.dtype, times.values.tolist(), times.missing.tolist(), times.is_utc
        except DataError as error:
            return str(error)

    column = nw.from_native(pl.Series([text]), series_only=True)
    wanted = outcome(lambda: read_times(column, where=lambda row: "the event"))
    assert outcome(lambda: read_time(text)) == wanted


def test_times_with_a_zone_can_be_read_as_another_table_s_were() -> None:
    texts = ["2020-06-01T10:00+02:00", "2020-06-01T11:00+02:00"]
    table = read_times(nw.from_native(pl.Series(texts), series_only=True))
    assert table.is_utc is True
    alone = read_time(texts[1], is_utc=table.is_utc)
    assert alone.values.tolist() == table.values[1:].tolist()
    assert read_time(texts[1]).is_utc is False  # of one row nothing says that clocks differ
