"""Reading a time column: datetimes, dates, text in many forms, whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import DAY, EARLIEST, LATEST, Indices, TimeValues
from recurra.data.frequency import Frequency
from recurra.data.timetext import ORDERS, by_pattern, read_plain, recognise
from recurra.errors import DataError

if TYPE_CHECKING:
    import narwhals as nw
    import polars as pl

Where = Callable[[int], str]  # names a row in a message: "series 'a', row 3"


@dataclass(frozen=True)
class Times:
    """A time column as numbers.

    values (n,) datetime64[ns] or int64; 0 where `missing` (n,) is True. `time_format` is what was
    given, or 'dmy' or 'mdy' when only all rows together showed the order of day and month. is_utc
    says of times with a zone whether they were converted; None without a zone.
    """

    values: TimeValues
    missing: npt.NDArray[np.bool_]
    notes: tuple[str, ...] = ()
    time_format: str | None = None
    is_utc: bool | None = None


@dataclass(frozen=True)
class _Instants:
    """Clock readings as written, and the same moments in UTC where a zone was given."""

    local: Indices
    utc: Indices | None
    missing: npt.NDArray[np.bool_]
    zone: str = "an offset from UTC"
    time_format: str | None = None


def read_times(
    column: nw.Series[Any],
    *,
    frequency: Frequency | None = None,
    time_format: str | None = None,
    is_utc: bool | None = None,
    where: Where = "row {}".format,
) -> Times:
    """Times of a column of datetimes, dates, text or whole numbers.

    Text is recognised in ISO form ('2020-01-31', '2020-01-31 06:30:00+02:00', '1949-01', '1956Q1')
    and in the forms 'Jan 31 2020', '31 Jan 2020', '31.1.2020', '1/31/2020' (when some row shows the
    order of day and month). `time_format` is 'dmy', 'mdy', or a pattern such as '%d/%m/%y %H:%M'.
    Whole numbers are an integer index, but 20200131 is a date, unless `frequency` says otherwise.
    Times with a zone become UTC; if all have the same local time of day they are calendar days and
    stay local. `is_utc` says which of the two, as another table's times were read.

    Raises: DataError naming the row for a time that cannot be read or is out of range.
    """
    import narwhals as nw

    dtype = column.dtype
    if dtype == nw.Date or isinstance(dtype, nw.Datetime) or dtype == nw.Datetime:
        return _on_one_clock(_from_datetimes(column, where), frequency, is_utc)
    if dtype.is_numeric():
        numbers = _from_numbers(column, where)
        if time_format is None and not _are_dates(numbers, frequency):
            return numbers
        text = _as_text(numbers)
    else:
        text = text_of(column)
    text = text.str.strip_chars()
    text = text.set(text.is_in(["", "NA", "NaN", "NaT", "nan", "null"]), None)
    if time_format is None and bool(text.str.contains(r"^[+-]?\d{1,7}$|^[+-]?\d{9,18}$").all()):
        import polars as pl

        return Times(text.cast(pl.Int64).fill_null(0).to_numpy(), text.is_null().to_numpy())
    return _on_one_clock(_from_text(text, time_format, where), frequency, is_utc)


def text_of(column: nw.Series[Any] | pl.Series) -> pl.Series:
    """A column's values as polars text, missing where they are; 3.0 is written 3."""
    import polars as pl

    native = column if isinstance(column, pl.Series) else column.to_native()
    if isinstance(native, pl.Series) and native.dtype == pl.String:
        return native
    return pl.Series([_text(value) for value in column.to_list()], dtype=pl.String)


def _text(value: Any) -> str | None:
    if value is None or value != value:  # NaN and NaT differ from themselves
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return None if text in ("<NA>", "NaT") else text


def _from_datetimes(column: nw.Series[Any], where: Where) -> _Instants:
    import narwhals as nw

    zone = getattr(column.dtype, "time_zone", None)
    missing = column.is_null().to_numpy()
    if zone is None:
        return _Instants(_nanoseconds(column.to_numpy(), missing, where), None, missing)
    # A clock reading that repeats in autumn is kept as it is: only its moment in UTC is unique.
    utc = (
        column.cast(nw.Datetime("us", zone)) if column.dtype != nw.Datetime("ns", zone) else column
    )
    moments = utc.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy()
    local = utc.dt.replace_time_zone(None).to_numpy()
    return _Instants(
        _nanoseconds(local, missing, where), _nanoseconds(moments, missing, where), missing, zone
    )


def _nanoseconds(values: TimeValues, missing: npt.NDArray[np.bool_], where: Where) -> Indices:
    values = np.where(missing, np.zeros(1, values.dtype), values)
    outside = np.flatnonzero((values < EARLIEST) | (values >= LATEST))
    if outside.size:
        row = int(outside[0])
        raise DataError(
            f"{where(row + 1)}: time {values[row]} is out of range; expected the years 1678 to "
            "2261. Correct it, or for older years use the year as a whole number."
        )
    return values.astype("datetime64[ns]").view(np.int64)


def _from_numbers(column: nw.Series[Any], where: Where) -> Times:
    import narwhals as nw

    missing = column.is_null().to_numpy()
    if column.dtype.is_integer() and not missing.any():
        values = column.to_numpy()
        large = np.flatnonzero(values > 2**62) if values.dtype.kind == "u" else missing.nonzero()[0]
        if not large.size:
            return Times(values.astype(np.int64), missing)
    values = column.cast(nw.Float64).to_numpy()
    missing = missing | np.isnan(values)
    values = np.where(missing, 0.0, values)
    odd = np.flatnonzero((values != np.floor(values)) | (np.abs(values) > 2.0**53))
    if odd.size:
        row = int(odd[0])
        raise DataError(
            f"{where(row + 1)}: time {values[row]} is not a whole number; expected dates, text "
            "such as 2020-01-31, or whole numbers. Convert the column to dates."
        )
    return Times(values.astype(np.int64), missing)


def _are_dates(numbers: Times, frequency: Frequency | None) -> bool:
    """Whether whole numbers are dates such as 20200131 and not an integer index."""
    if frequency is not None:
        return frequency.kind != "integer"
    values = numbers.values[~numbers.missing]
    month, day = values // 100 % 100, values % 100
    return bool(
        len(values)
        and ((values >= 17000101) & (values < 22620101)).all()
        and ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all()
    )


def _as_text(numbers: Times) -> pl.Series:
    import polars as pl

    text = pl.Series(numbers.values).cast(pl.String)
    return text.set(pl.Series(numbers.missing), None)


def _from_text(text: pl.Series, time_format: str | None, where: Where) -> _Instants:
    """Read each distinct text once; many series share their times."""
    import polars as pl

    distinct = text.drop_nulls().unique(maintain_order=True)
    if time_format is None or time_format in ORDERS:
        local, offset, good, order = recognise(distinct, time_format)
    else:
        local, offset, good = by_pattern(distinct, time_format)
        order = time_format
    bad = np.flatnonzero(~good)
    if bad.size:
        value = distinct[int(bad[0])]
        row = int((text == value).arg_max() or 0)
        wanted = (
            "expected a date such as 2020-01-31, 2020-01-31 06:30, 1949-01, 1956Q1 or Jan 31 2020. "
            "Correct it, or describe the column: time_format='%d/%m/%y' (--time-format)."
            if time_format is None
            else f"expected the form {time_format!r}. Correct it, or give another time_format."
        )
        raise DataError(f"{where(row + 1)}: cannot read the time {value!r}; {wanted}")
    codes = text.cast(pl.Enum(distinct)).to_physical().fill_null(0).to_numpy()
    missing = text.is_null().to_numpy()
    if not len(distinct):
        return _Instants(np.zeros(len(text), np.int64), None, missing, time_format=order)
    zoned = ~np.isnan(offset)
    utc = None
    if zoned.any():
        if not zoned.all():
            value = distinct[int(np.flatnonzero(~zoned)[0])]
            row = int((text == value).arg_max() or 0)
            raise DataError(
                f"{where(row + 1)}: the time {value!r} has no zone, but other rows have one. "
                "Give all times a zone, or none."
            )
        utc = (local - offset.astype(np.int64))[codes]
    return _Instants(local[codes], utc, missing, time_format=order)


def read_time(
    value: str | int, *, time_format: str | None = None, is_utc: bool | None = None
) -> Times:
    """One time of a stream, as `read_times` reads it in a table; plain forms are read at once.

    Raises: DataError as `read_times`, of "the event".
    """
    plain = None
    if isinstance(value, str) and (time_format is None or time_format in ORDERS):
        plain = read_plain(value)
    if plain is not None:
        return Times(np.array([plain]).view("datetime64[ns]"), np.zeros(1, bool))
    if isinstance(value, int) and time_format is None and not 17000101 <= value < 22620101:
        return Times(np.array([value], np.int64), np.zeros(1, bool))
    import narwhals as nw
    import polars as pl

    column = nw.from_native(pl.Series([value]), series_only=True)
    return read_times(column, time_format=time_format, is_utc=is_utc, where=lambda row: "the event")


def _on_one_clock(
    instants: _Instants, frequency: Frequency | None, is_utc: bool | None = None
) -> Times:
    """Local days or UTC moments, whichever the data (or the known frequency) is made of."""
    values, notes = instants.local, []
    if instants.utc is None:
        is_utc = None
    else:
        if is_utc is not None:
            civil = not is_utc
        elif frequency is not None and frequency.kind != "integer":
            civil = frequency.is_civil
        else:
            clocks = np.unique(instants.local[~instants.missing] % DAY)
            civil = len(clocks) == 1
        values = instants.local if civil else instants.utc
        is_utc = not civil
        kept = "kept as local calendar days" if civil else "converted to UTC"
        notes.append(f"times have a zone ({instants.zone}); they were {kept}")
    values = np.where(instants.missing, 0, values).view("datetime64[ns]")
    return Times(values, instants.missing, tuple(notes), instants.time_format, is_utc)
