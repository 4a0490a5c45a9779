"""Times written as text: recognising their form, and reading them by a given pattern."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recurra.data.calendar import DAY, EARLIEST, LATEST, SECOND, Indices
from recurra.errors import DataError

if TYPE_CHECKING:
    import polars as pl

# local time in ns, offset from UTC in ns (NaN: none was written), whether it could be read
Reading = tuple[Indices, npt.NDArray[np.float64], npt.NDArray[np.bool_]]

_CLOCK = (
    r"(?:[T ]\s*(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})"
    r"(?:[.,](?P<fraction>\d{1,9})\d*)?)?\s*(?P<zone>Z|UTC|[+-]\d{2}(?::?\d{2})?)?)?"
)
_DATES = (
    r"(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})",
    r"(?P<y>\d{4})/(?P<m>\d{1,2})/(?P<d>\d{1,2})",
    r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})",
    r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})",
    r"(?P<name>[A-Za-z]{3})[a-z]*\.?[ -](?P<d>\d{1,2}),?[ -](?P<y>\d{4})",
    r"(?P<d>\d{1,2})\.?[ -](?P<name>[A-Za-z]{3})[a-z]*\.?[ -](?P<y>\d{4})",
    r"(?P<name>[A-Za-z]{3})[a-z]*\.?[ -](?P<y>\d{4})",
    r"(?P<y>\d{4})[-/](?P<m>\d{1,2})",
    r"(?P<y>\d{4})[- ]?Q(?P<quarter>[1-4])",
    r"(?P<first>\d{1,2})[/-](?P<second_>\d{1,2})[/-](?P<y>\d{4})",
)
ORDERS = ("dmy", "mdy")
_PLAIN = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?", re.ASCII
)
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def read_plain(text: str) -> int | None:
    """Nanoseconds since 1970 of one text such as '2020-01-31 06:30:00', without a zone.

    The same number that `recognise` gives, a thousand times as fast; None for any other form, and
    for what is no date.

    >>> read_plain("1970-01-01 00:00:01"), read_plain("1970-01-01 00:00:01Z")
    (1000000000, None)
    """
    found = _PLAIN.fullmatch(text)
    if found is None:
        return None
    year, month, day, h, m, s, fraction = found.groups(default="0")
    try:
        days = datetime.date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:
        return None
    hour, minute, second = int(h), int(m), int(s)
    in_range = int(EARLIEST.astype(np.int64)) <= days < int(LATEST.astype(np.int64))
    if not in_range or hour > 23 or minute > 59 or second > 59:
        return None
    clock = (hour * 3600 + minute * 60 + second) * SECOND + int(fraction.ljust(9, "0"))
    return days * DAY + clock


def by_pattern(text: pl.Series, pattern: str) -> Reading:
    """Read distinct, present texts by a strptime pattern; without a day it is the month's first.

    Raises: DataError when the pattern itself cannot be used.
    """
    import polars as pl

    if not any(code in pattern for code in ("%d", "%e", "%j", "%D", "%F", "%x", "%c", "%s")):
        text, pattern = text + " 1", pattern + " %d"
    try:
        parsed = text.str.to_datetime(pattern, strict=False, time_unit="ns")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"time_format {pattern!r} cannot be used: {error}. Give 'dmy', 'mdy', or a pattern "
            "such as '%d/%m/%Y %H:%M'."
        ) from error
    offset = np.full(len(text), 0.0 if parsed.dtype == pl.Datetime("ns", "UTC") else np.nan)
    return parsed.to_physical().fill_null(0).to_numpy(), offset, parsed.is_not_null().to_numpy()


def recognise(text: pl.Series, order: str | None) -> tuple[*Reading, str | None]:
    """(local ns, offset ns or NaN, readable, day-month order) in the shape that most rows have."""
    import polars as pl

    shapes = [f"^{date}{_CLOCK}$" for date in _DATES]
    counts = [int(text.str.contains(shape).sum()) for shape in shapes]
    groups = text.str.extract_groups(shapes[int(np.argmax(counts))]).struct.unnest()
    if "first" in groups.columns:
        order = order or _day_month_order(groups["first"], groups["second_"], text)
        groups = groups.rename(dict(zip(("first", "second_"), order, strict=False)))
    if "name" in groups.columns:
        names = {name: str(number) for number, name in enumerate(_MONTHS, 1)}
        short = groups["name"].str.to_lowercase()
        groups = groups.with_columns(short.replace_strict(names, default=None).alias("m"))
    if "quarter" in groups.columns:
        first_month = groups["quarter"].cast(pl.Int64) * 3 - 2
        groups = groups.with_columns(first_month.cast(pl.String).alias("m"))
    day = groups["d"] if "d" in groups.columns else "1"
    days = (groups["y"] + "-" + groups["m"] + "-" + day).str.to_date("%Y-%m-%d", strict=False)
    number = days.cast(pl.Int64).to_numpy()
    h, m, s = (
        groups[part].cast(pl.Int64).fill_null(0).to_numpy() for part in ("hour", "minute", "second")
    )
    fraction = groups["fraction"].str.pad_end(9, "0").cast(pl.Int64).fill_null(0).to_numpy()
    good = days.is_not_null().to_numpy() & (h < 24) & (m < 60) & (s < 60)
    good &= (number >= EARLIEST.astype(np.int64)) & (number < LATEST.astype(np.int64))
    clock = (h * 3600 + m * 60 + s) * SECOND + fraction
    local = np.where(good, number, 0).astype(np.int64) * DAY + clock
    return local, _offset(groups["zone"]), good, order


def _day_month_order(first: pl.Series, second: pl.Series, text: pl.Series) -> str:
    import polars as pl

    a, b = (int(part.cast(pl.Int64).max() or 0) for part in (first, second))  # type: ignore[arg-type]
    if a > 12 >= b:
        return "dmy"
    if b > 12 >= a:
        return "mdy"
    raise DataError(
        f"the times look like {text[0]!r}, and no row shows whether the day or the month comes "
        "first. Say so: time_format='dmy' or 'mdy' (--time-format)."
    )


def _offset(zone: pl.Series) -> npt.NDArray[np.float64]:
    """Offset from UTC in nanoseconds, NaN where none was written."""
    import polars as pl

    digits = zone.str.replace_all(r"[^\d+-]", "").str.replace(r"^([+-]\d\d)$", "${1}00")
    number = digits.str.replace("^$", "0").cast(pl.Int64)
    sign, size = number.sign(), number.abs()
    seconds = sign * ((size // 100) * 3600 + (size % 100) * 60)
    return seconds.cast(pl.Float64).to_numpy() * SECOND
