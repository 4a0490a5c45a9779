"""Colours over time: the drawn cells carry the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from recurra.errors import DataError
from recurra.report.drawing import to_svg
from recurra.report.maps import Alignment, HeatMap, alignment_chart, heat_maps


def test_heat_maps_draw_logarithms_over_training_and_time() -> None:
    values = np.array([[1.0, 100.0], [0.0, np.nan], [1e-30, 1e3]])
    each = HeatMap("gru", np.array([0, 10, 40]), np.array([1, 3]), values)
    figure = heat_maps([each, each], "log10 norm")
    panels = [axes for axes in figure.axes if axes.get_title(loc="left") == "gru"]
    assert len(panels) == 2
    mesh = panels[0].collections[0]
    drawn = mesh.get_array()  # (T, N), at most 12 decades
    assert drawn.filled(np.nan).tolist() == pytest.approx(
        np.array([[0, -9, -9], [2, np.nan, 3]]), nan_ok=True
    )
    assert mesh.get_clim() == (-9, 3)
    corners = mesh.get_coordinates()  # type: ignore[attr-defined]
    assert corners[0, :, 0].tolist() == [-5, 5, 25, 55]
    assert corners[:, 0, 1].tolist() == [0, 2, 4]
    assert panels[1].get_xlabel() == "training step"
    assert to_svg(figure) == to_svg(heat_maps([each, each], "log10 norm"))


def test_heat_maps_of_little_are_drawn_and_of_nothing_refused() -> None:
    for value in (0.0, 5.0, np.nan):
        to_svg(heat_maps([HeatMap("a", np.array([3]), np.array([7]), np.full((1, 1), value))], ""))
    with pytest.raises(DataError, match="no heat map to draw"):
        heat_maps([], "")
    with pytest.raises(ValueError, match=r"'a': values has shape \(1, 2\); expected \(2, 1\)"):
        HeatMap("a", np.arange(2), np.arange(1), np.zeros((1, 2)))


def test_an_alignment_names_each_character_at_its_peak() -> None:
    probabilities = np.array([[0.0, 0], [0.9, 0], [0.4, 0], [0, 0.1], [0, 0.7], [0.6, 0]])
    features = np.arange(18.0 * 4).reshape(18, 4)
    figure = alignment_chart(
        Alignment("a.wav", features, 0.03, ["A", " "], probabilities, 1 - probabilities.sum(1))
    )
    upper, lower = figure.axes
    assert upper.get_title(loc="left") == "a.wav"
    assert np.array_equal(np.asarray(upper.images[0].get_array()), features.T)
    peaks = [(text.get_text(), *map(float, text.xy)) for text in lower.texts]  # type: ignore[attr-defined]
    assert [(letter, round(time, 3), p) for letter, time, p in peaks] == [
        ("A", 0.045, 0.9),
        ("A", 0.165, 0.6),
        ("␣", 0.135, 0.7),
    ]
    assert to_svg(figure).startswith("<?xml")
