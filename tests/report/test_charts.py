"""Charts: the drawn lines carry the numbers."""

from __future__ import annotations

import numpy as np
from tests.report.drawn import LEVELS, lines

from recurra.report.charts import calibration, error_by_horizon, loss_curves
from recurra.report.drawing import to_svg


def test_loss_curves_draw_what_was_logged() -> None:
    history = [
        {"step": 20, "loss": 4.0, "learning_rate": 0.001},
        {"step": 40, "loss": float("nan"), "learning_rate": 0.002, "validation": 3.0},
        {"step": 60, "loss": 2.0, "learning_rate": 0.001, "validation": None},
    ]
    figure = loss_curves(history)
    drawn = lines(figure)
    assert drawn["training"][::2] == [4.0, 2.0]
    assert drawn["validation"] == [3.0]
    assert [0.001, 0.002, 0.001] in drawn.values()
    assert figure.axes[0].get_yscale() == "linear"
    steep = loss_curves([{"step": s, "loss": 10.0**-s, "learning_rate": 1} for s in range(3)])
    assert steep.axes[0].get_yscale() == "log"
    to_svg(loss_curves([]))


def test_error_by_horizon_has_a_line_for_each_model() -> None:
    drawn = lines(error_by_horizon({"recurra": np.array([1.0, 2]), "naive": np.array([2.0, 4])}))
    assert drawn == {"recurra": [1, 2], "naive": [2, 4]}


def test_calibration_is_drawn_against_the_ideal() -> None:
    assert lines(calibration(LEVELS, [0.2, 0.3, 0.5, 0.7, 0.8])) == {
        "ideal": [0, 1],
        "measured": [0.2, 0.3, 0.5, 0.7, 0.8],
    }
