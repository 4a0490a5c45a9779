"""Measured gradients as heat maps: layers, parts and lengths that differ from step to step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from recurra.errors import RunError
from recurra.report.page import Page
from recurra.tasks.forecasting.gradients import add_gradients, gradient_maps, read_gradients
from recurra.training.flow_values import GateFlow, GradientFlow, LayerFlow


def measured(
    step: int, layers: dict[str, dict[int, tuple[float, ...]]]
) -> tuple[int, GradientFlow]:
    flows = tuple(
        LayerFlow(
            name,
            0,
            False,
            "LSTM",
            tuple(norms),
            dict(zip("hc", zip(*norms.values(), strict=True), strict=False)),
            {"h": 3, "c": None},
            {"i": 0.5},
            {"i": GateFlow(0.25, 0.125, 0.0)},
            (-0.5, -0.75),
        )
        for name, norms in layers.items()
    )
    return step, GradientFlow(1.0, flows)


def test_each_layer_has_a_map_with_its_parts_together() -> None:
    maps = gradient_maps(
        [
            measured(0, {"a": {0: (3.0, 4.0), 1: (6.0, 8.0)}, "b": {5: (1.0,)}}),
            measured(10, {"a": {0: (0.0, 1.0), 1: (0.0, math.nan)}}),
        ]
    )
    assert [each.title for each in maps] == ["a, layer 0", "b, layer 0"]
    assert maps[0].steps.tolist() == [0, 10]
    assert maps[0].times.tolist() == [0, 1]
    np.testing.assert_array_equal(maps[0].values, [[5.0, 10.0], [1.0, np.nan]])
    np.testing.assert_array_equal(maps[1].values, [[1.0], [np.nan]])


def test_shorter_measurements_leave_a_gap_at_the_end() -> None:
    long = measured(0, {"a": {1: (1.0,), 3: (2.0,), 5: (3.0,)}})
    short = measured(10, {"a": {0: (7.0,), 2: (8.0,), 3: (9.0,)}})
    (only,) = gradient_maps([short, long])
    assert only.times.tolist() == [1, 3, 5]
    np.testing.assert_array_equal(only.values, [[8.0, 9.0, np.nan], [1.0, 2.0, 3.0]])


def test_the_page_has_warnings_numbers_and_gates() -> None:
    page = Page("x")
    norms = {0: (1e-9, 1e-9), 1: (0.1, 1e-9), 4: (1.0, 1e-9)}
    add_gradients(page, [measured(7, {"a": norms})])
    html = page.html()
    assert "At step 7: vanishing gradient in a, layer 0" in html
    for cell in ("h at most 3, c over 4", "-0.5000", "i 0.5", "0.2500", "0.1250"):
        assert f">{cell}<" in html, cell


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gradients.jsonl"
    with pytest.raises(RunError, match=r"gradients.jsonl is missing or empty.*flow_every=100"):
        read_gradients(path)
    path.write_text('{"step": 1, "loss": 1.0, "layers": [{"name": "a"}]}')
    with pytest.raises(RunError, match="damaged: a line is not a measurement"):
        read_gradients(path)
