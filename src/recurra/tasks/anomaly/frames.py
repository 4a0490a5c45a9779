"""Answers as tables, in the kind of frame that the user brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recurra.tasks.anomaly.table import WatchedSet
from recurra.tasks.anomaly.watch import STATUS, Rows

PARTS = ("expected", "lower", "upper")


def answer_frame(table: WatchedSet, answers: Sequence[Rows]) -> Any:
    """One row for each row of the table, in its order.

    Columns: the time and series columns, score, surprise, alarm, expected, lower, upper, status;
    with several channels expected_NAME, lower_NAME, upper_NAME and share_NAME of each.
    """
    import narwhals as nw

    columns, series, where = table.columns, table.series, table.order

    def whole(parts: Sequence[Any]) -> Any:
        return np.concatenate(parts)[where]

    made: dict[str, Any] = {columns.time: whole([one.times for one in series])}
    if columns.series is not None:
        names = [np.repeat(np.array([one.name], object), len(one)) for one in series]
        made[columns.series] = whole(names).tolist()
    made["score"] = whole([rows.score for rows in answers])
    made["surprise"] = whole([rows.surprise for rows in answers])
    made["alarm"] = whole([rows.alarm for rows in answers])
    several = len(columns.value) > 1
    for k, channel in enumerate(columns.value):
        for part in (*PARTS, *(("share",) if several else ())):
            name = f"{part}_{channel}" if several else part
            made[name] = whole([getattr(rows, part)[:, k] for rows in answers])
    made["status"] = np.array(STATUS)[whole([rows.status for rows in answers])].tolist()
    return nw.from_dict(made, backend=table.backend).to_native()
