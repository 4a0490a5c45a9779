"""What is drawn in the tests of charts, and how it is read back."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from recurra.report.series_charts import Fan

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
TIMES = np.datetime64("2024-01-01", "ns") + np.arange(15) * np.timedelta64(1, "D")


def fan(steps: int = 5, times: Any = TIMES, **options: Any) -> Fan:
    quantiles = np.arange(steps)[:, None] + 10.0 * np.array(LEVELS)
    options = {"title": "sales", **options}
    return Fan(
        times=times[: 10 + steps],
        history=np.arange(10.0),
        levels=LEVELS,
        quantiles=quantiles,
        **options,
    )


def lines(figure: Figure) -> dict[str, list[float]]:
    """The y values of each line with a label, over all axes."""
    return {
        str(line.get_label()): [float(value) for value in np.asarray(line.get_ydata())]
        for axes in figure.axes
        for line in axes.get_lines()
    }
