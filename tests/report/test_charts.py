"""Charts: the drawn lines carry the numbers, the files are the same to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from recurra.errors import ConfigError, DataError, MissingExtraError, RunError
from recurra.report.charts import (
    Alignment,
    Fan,
    HeatMap,
    alignment_chart,
    calibration,
    error_by_horizon,
    fan_charts,
    heat_maps,
    loss_curves,
    save,
    to_svg,
)

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


def test_heat_maps_of_little_are_drawn_and_of_nothing_refused() -> None:
    for value in (0.0, 5.0, np.nan):
        to_svg(heat_maps([HeatMap("a", np.array([3]), np.array([7]), np.full((1, 1), value))], ""))
    with pytest.raises(DataError, match="no heat map to draw"):
        heat_maps([], "")
    with pytest.raises(ValueError, match=r"'a': values has shape \(1, 2\); expected \(2, 1\)"):
        HeatMap("a", np.arange(2), np.arange(1), np.zeros((1, 2)))


def test_error_by_horizon_has_a_line_for_each_model() -> None:
    drawn = lines(error_by_horizon({"recurra": np.array([1.0, 2]), "naive": np.array([2.0, 4])}))
    assert drawn == {"recurra": [1, 2], "naive": [2, 4]}


def test_calibration_is_drawn_against_the_ideal() -> None:
    assert lines(calibration(LEVELS, [0.2, 0.3, 0.5, 0.7, 0.8])) == {
        "ideal": [0, 1],
        "measured": [0.2, 0.3, 0.5, 0.7, 0.8],
    }


def test_pictures_are_the_same_to_the_byte_and_ignore_the_users_style(tmp_path: Path) -> None:
    first = to_svg(fan_charts([fan()]))
    with matplotlib.rc_context(
        {"lines.linewidth": 9, "axes.facecolor": "red", "svg.hashsalt": "x"}
    ):
        assert to_svg(fan_charts([fan()])) == first
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert "<dc:date>" not in first
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        pair = tmp_path / f"a{suffix}", tmp_path / f"b{suffix.upper()}"
        for path in pair:
            save(fan_charts([fan(times=np.arange(15))]), path)
        assert pair[0].read_bytes() == pair[1].read_bytes()
        assert pair[0].read_bytes().startswith(start)


def test_other_formats_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown picture format '.pgn'; did you mean '.png'"):
        save(fan_charts([fan()]), tmp_path / "a.pgn")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"a\.png"):
        save(fan_charts([fan()]), tmp_path / "file" / "a.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"recurra\[forecasting\]"):
        loss_curves([])
