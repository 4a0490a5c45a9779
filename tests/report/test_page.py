"""The report's page: complete in itself, escaped, and safe to open."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurra.errors import RunError
from recurra.report.page import Page, format_cell

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


class Parsed(HTMLParser):
    """Tags that were opened, their attributes, and all text."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(page.html())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def full(text: str) -> Page:
    page = Page(text).heading(text).heading(text, level=3).text(text).warning(text)
    return page.table([text, "n"], [[text, 1.5], [None, float("nan")]], text).figure(SVG, text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00")))
def test_text_is_escaped_everywhere(text: str) -> None:
    page = full(text + "<script>&\"'</style><img src=x onerror=y>")
    parsed = Parsed(page)
    assert parsed.tags == Parsed(full("plain")).tags
    assert "script" not in parsed.tags
    whole = text + "<script>&\"'</style><img src=x onerror=y>"
    assert "".join(parsed.text).count(whole) == 10
    assert ("alt", whole) in parsed.attributes


def test_nothing_points_outside_and_nothing_runs() -> None:
    parsed = Parsed(full("Sales"))
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        assert name not in ("style", "href")
        if name == "src":
            assert value is not None
            assert value.startswith("data:image/svg+xml;base64,")
    assert not re.search(r"https?:|@import|url\(", full("Sales").html())
    image = next(value for name, value in parsed.attributes if name == "src")
    assert image is not None
    assert base64.b64decode(image.partition(",")[2]).decode() == SVG


def test_the_policy_admits_exactly_the_style_sheet_that_is_there() -> None:
    html = full("Sales").html()
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert style is not None
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data:"
    assert "prefers-color-scheme: dark" in style[1]
    assert "@media print" in style[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.87312, "0.8731"),
        (12.3456, "12.35"),
        (12345.678, "12346"),
        (0.00012346, "0.0001235"),
        (1e-9, "1.000e-09"),
        (-3.0, "-3.000"),
        (0.0, "0.000"),
        (123456, "123456"),
        (np.int64(7), "7"),
        (np.float64(0.5), "0.5000"),
        (np.float32("nan"), "–"),
        (float("inf"), "–"),
        (None, "–"),
        (True, "True"),
        ("naive", "naive"),
    ],
)
def test_cells_have_four_digits_and_no_nan(value: Any, text: str) -> None:
    assert format_cell(value) == text


def test_numbers_are_aligned_right_and_words_are_not() -> None:
    html = Page("t").table(["model", "mase"], [["naive", 1.0], ["ours", None]]).html()
    assert "<td>naive</td>" in html
    assert '<td class="number">1.000</td>' in html
    assert '<td class="number">–</td>' in html


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="row 2 has 1 cells, but there are 2 headers"):
        Page("t").table(["a", "b"], [[1, 2], [3]])


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    Page("old").write(path)
    Page("Größe").write(path)
    assert "<h1>Größe</h1>" in path.read_text(encoding="utf-8")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        Page("x").write(tmp_path / "file" / "report.html")
