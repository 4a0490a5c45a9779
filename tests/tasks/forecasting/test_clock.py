"""Single times are read as tables read theirs."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.data import frequency as freq
from recurra.errors import DataError
from recurra.tasks.forecasting.clock import _read_any, _read_plain, index_of

HOURLY, DAILY, NUMBERS = freq.parse("1h"), freq.parse("1d"), freq.parse("1i")


@given(st.datetimes(datetime(1700, 1, 1), datetime(2199, 12, 31)), st.sampled_from(" T"))
def test_quick_reading_of_iso_text_is_that_of_tables(moment: datetime, between: str) -> None:
    for text in (
        moment.isoformat(sep=between),
        moment.strftime(f"%Y-%m-%d{between}%H:%M").zfill(16),
        moment.date().isoformat(),
    ):
        quick = _read_plain(text, HOURLY, None)
        assert quick is not None, text
        assert quick == _read_any(text, HOURLY, None), text


@given(st.text("0123456789-: T.Z+", max_size=30))
def test_what_is_not_read_quickly_is_left_to_tables(text: str) -> None:
    quick = _read_plain(text, HOURLY, None)
    if quick is not None:
        assert quick == _read_any(text, HOURLY, None)


@pytest.mark.parametrize(
    "time", ["2024-03-05 07:00", "2024-03-05T07:00:00", "5 Mar 2024 07:00", datetime(2024, 3, 5, 7)]
)
def test_one_moment_in_many_forms(time: object) -> None:
    wanted = HOURLY.index(np.array(["2024-03-05T07"], "datetime64[ns]"))[0]
    assert index_of(time, HOURLY, None) == wanted


def test_numbers_and_dates() -> None:
    assert index_of(17, NUMBERS, None) == 17
    assert index_of(date(1970, 1, 11), DAILY, None) == index_of("1970-01-11", DAILY, None) == 10


@pytest.mark.parametrize("time", ["2024-02-31", "2024-13-01", "soon", 10**30, None, True, "", 2.5])
def test_what_is_no_time_is_refused(time: object) -> None:
    with pytest.raises(DataError, match="time"):
        index_of(time, DAILY, None)


def test_between_two_rows_only_with_floor() -> None:
    with pytest.raises(
        DataError, match="not on the grid of 1 day; expected 2024-03-05 or 2024-03-06"
    ):
        index_of("2024-03-05 12:00", DAILY, None)
    assert index_of("2024-03-05 12:00", DAILY, None, floor=True) == index_of(
        "2024-03-05", DAILY, None
    )
