"""The examples run, in a small size: the same numbers before and after, and training goes on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SWAPPED = {
    "forecaster": {"rnn"},
    "seq2seq_attention": {"encoder.rnn", "cell"},
    "speech_ctc": {"recurrent.0.rnn", "recurrent.1.rnn"},
}
SMALL = ["--small", "--repetitions", "1", "--steps", "3"]


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"compare", *SWAPPED}


@pytest.mark.parametrize("name", SWAPPED)
def test_example(name: str, monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "compare", raising=False)
    example = importlib.import_module(name)
    try:
        # `compare` asserts that outputs and gradients are the same and that the loss falls.
        comparison = example.main([*SMALL, "--backend", "reference"])
    finally:
        sys.modules.pop(name)
        sys.modules.pop("compare")
    assert set(comparison.report.swapped) == SWAPPED[name]
    assert comparison.report.left == {}
    assert len(comparison.losses) == 3
    printed = capsys.readouterr().out
    assert "swapped, runs on reference" in printed
    assert "forward and backward: torch" in printed
