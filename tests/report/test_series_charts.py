"""Series over time: the drawn lines and bands carry the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from tests.report.drawn import TIMES, fan, lines

from recurra.errors import DataError
from recurra.report.series_charts import fan_charts


def test_fan_chart_draws_history_median_bands_and_what_happened() -> None:
    figure = fan_charts([fan(actual=np.arange(5.0, 10.0), title="cost $a$ in $", unit="$")])
    drawn = lines(figure)
    assert drawn["observed"] == list(range(10))
    assert drawn["median"] == [5, 6, 7, 8, 9]
    assert drawn["what happened"] == [5, 6, 7, 8, 9]
    outer, inner = figure.axes[0].collections
    assert (outer.get_label(), inner.get_label()) == ("80 % interval", "50 % interval")
    heights = outer.get_paths()[0].vertices[:, 1]  # type: ignore[index]
    assert (heights.min(), heights.max()) == (1.0, 13.0)
    assert figure.axes[0].get_title(loc="left") == "cost $a$ in $"


def test_fan_chart_of_one_step_is_visible() -> None:
    figure = fan_charts([fan(steps=1)])
    assert [round(c.get_linewidth()[0]) for c in figure.axes[0].collections] == [9, 9]  # type: ignore[index]
    assert figure.axes[0].get_lines()[-1].get_marker() == "o"


def test_each_fan_has_a_panel() -> None:
    figure = fan_charts([fan(title="a"), fan(steps=1, title="b", times=np.arange(15))])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    with pytest.raises(DataError, match="no forecast to draw"):
        fan_charts([])


def test_a_fan_refuses_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="'sales': times has 14 entries, history 10"):
        fan(times=TIMES[:14])
