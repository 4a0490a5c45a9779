"""Pictures are files that are the same to the byte."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from tests.report.drawn import fan

from recurra.errors import ConfigError, MissingExtraError, RunError
from recurra.report.charts import loss_curves
from recurra.report.drawing import save, to_svg
from recurra.report.series_charts import fan_charts


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
