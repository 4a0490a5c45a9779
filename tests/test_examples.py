"""The examples run, in a small size: the same numbers before and after, and training goes on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SWAPPED = {
    "forecaster": {"rnn"},
    "seq2seq_attention": {"encoder.rnn", "cell"},
    "speech_ctc": {"recurrent.0.rnn", "recurrent.1.rnn"},
}
SMALL = ["--small", "--repetitions", "1", "--steps", "3"]


@pytest.fixture
def compare(monkeypatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module("compare")
    sys.modules.pop("compare")


def test_a_difference_is_relative_to_its_own_tensor(compare) -> None:
    large, small = torch.tensor([1000.0, -2000.0]), torch.tensor([0.5, 0.25])
    assert compare._difference([large, small], [large, small]) == 0.0
    assert compare._difference([large, small], [large, small - 0.125]) == 0.25
    assert compare._difference([large, small], [large + 500, small]) == 0.25
    assert compare._difference([0 * small], [small]) == 0.5


def test_both_models_are_timed_in_turns(compare) -> None:
    first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    log: list[int] = []

    def evaluate(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        log.append([first, second].index(model))
        output = model(torch.ones(1))
        return output, output.sum()

    training_s, inference_s = compare._times([first, second], evaluate, 2)
    assert log == [1, 0, 0, 1, 1, 0] * 2
    assert min(*training_s, *inference_s) > 0


def test_every_example_is_run_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"compare", "gradient_flow", *SWAPPED}


def test_gradient_flow_shows_what_it_says(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("gradient_flow")
    threads = torch.get_num_threads()
    try:
        out = tmp_path / "flow.png"
        elman, lstm = example.main(["--steps", "6", "--every", "3", "--out", str(out)])
    finally:
        sys.modules.pop("gradient_flow")
        torch.set_num_threads(threads)
    assert (elman.values.shape, lstm.steps.tolist()) == ((2, example.TIME), [0, 3])
    assert (elman.values[:, 0] < 1e-8 * elman.values[:, -1]).all()
    assert (lstm.values[:, 0] > 1e-2 * lstm.values[:, -1]).all()
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "wrote " in capsys.readouterr().out


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
