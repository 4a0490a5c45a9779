"""`recurra demo`: real data, a verdict for each target, one page that needs no network."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Recurra, leave
from tests.cli.test_report import URL

from recurra.tasks.forecasting import baselines, demo

needs_data = pytest.mark.skipif(
    importlib.util.find_spec("vega_datasets") is None,
    reason="vega_datasets, the demo's data, is not installed: pip install 'recurra[demo]'",
)
TARGETS = ["temp_max", "temp_min", "precipitation", "wind", "price"]


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps, and no AutoETS, so that what is tested takes seconds."""
    short = tuple(replace(example, steps=3) for example in demo.EXAMPLES)
    monkeypatch.setattr(demo, "EXAMPLES", short)
    monkeypatch.setattr(baselines, "why_no_ets", lambda *_: "not now")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, stdout) of one demonstration."""
    folder, out = tmp_path_factory.mktemp("demo"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        shorten(patch)
        assert leave("demo", "--out", folder) == 0
    return folder, out.getvalue()


def check_page(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert not URL.search(page), URL.search(page)
    assert page.count("<figure") >= 21  # 9 fans, 5 errors by step, 5 calibrations, 2 losses
    assert all(name in page for name in TARGETS)
    assert "seasonal_naive" in page


@needs_data
def test_the_demo_prints_a_verdict_for_each_target_and_writes_its_page(
    recurra: Recurra, made: tuple[Path, str]
) -> None:
    folder, out = made
    verdicts = re.findall(r"^(\w+): (beats|does not beat|no claim to beat) (.*)$", out, re.M)
    assert [target for target, _, _ in verdicts] == TARGETS
    assert all(re.search(r"MASE \d+\.\d{3}; .*naive \d", rest) for _, _, rest in verdicts)
    assert verdicts[-1][1] == "no claim to beat"
    assert {word for _, word, _ in verdicts[:-1]} <= {"beats", "does not beat"}
    heads = [line.split()[0] for line in out.splitlines() if " mase " in line]
    assert heads == ["temp_max", "temp_min", "precipitation", "wind", "model"]
    assert out.splitlines()[-1] == f"report: {folder / 'report.html'}"
    for page in (folder, folder / "weather", folder / "stocks"):
        assert not URL.search((page / "report.html").read_text(encoding="utf-8"))
    check_page(folder / "report.html")
    # Both runs can be used further.
    for name in ("weather", "stocks"):
        assert recurra("forecast", "predict", folder / name).status == 0


@needs_data
def test_the_demo_replaces_itself_and_speaks_json(
    recurra: Recurra, made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made
    shorten(monkeypatch)
    monkeypatch.setattr(demo, "EXAMPLES", demo.EXAMPLES[1:])
    before = (folder / "report.html").read_bytes()
    done = recurra("demo", "--out", folder, "--json")
    assert (done.status, done.out.count("\n")) == (0, 1)
    told = json.loads(done.out)
    assert told["report"] == str(folder / "report.html")
    outcomes: list[dict[str, Any]] = told["demo"]
    assert [outcome["data"].split(",")[0] for outcome in outcomes] == ["stocks"]
    assert outcomes[0]["verdicts"][0].startswith("price: no claim to beat")
    assert [row["model"] for row in outcomes[0]["results"]][:2] == ["recurra", "naive"]
    assert (folder / "report.html").read_bytes() != before


@pytest.mark.parametrize("name", ["report.html", "weather", "stocks"])
def test_what_is_not_the_demos_is_kept(recurra: Recurra, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name != "report.html":
        path.mkdir()
        path /= "model.safetensors"
    path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    done = recurra("demo", "--out", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert "Choose another --out" in done.err
    assert path.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_without_its_data_the_demo_names_the_extra(
    recurra: Recurra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    done = recurra("demo", "--out", tmp_path / "out")
    assert (done.status, done.out) == (1, "")
    assert "pip install 'recurra[demo]'" in done.err
    assert not (tmp_path / "out").exists()


RESULTS = [
    {"model": "recurra", "metrics": {"mase": 0.8}},
    {"model": "naive", "metrics": {"mase": 1.0}},
    {"model": "seasonal_naive", "metrics": {"mase": 1.6}},
]


@pytest.mark.parametrize(
    ("ours", "claim", "words"),
    [
        (0.8, True, "x: beats seasonal naive and naive. MASE 0.800; seasonal naive 1.600, naive"),
        (0.8, True, "(-20 %)."),
        (1.2, True, "x: does not beat naive. MASE 1.200; "),
        (1.2, True, "(+20 %)."),
        (1.0, True, "x: does not beat naive."),
        (0.8, False, "x: no claim to beat the naive forecast"),
    ],
)
def test_a_verdict_is_the_better_naive_forecast(ours: float, claim: bool, words: str) -> None:
    results = [{"model": "recurra", "metrics": {"mase": ours}}, *RESULTS[1:]]
    assert words in demo.verdict("x", results, claim)
