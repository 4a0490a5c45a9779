"""The examples run, in a small size: the same numbers before and after, and training goes on."""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
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
    assert names == {"compare", "gradient_flow", "tour", *SWAPPED}


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


@pytest.fixture
def tour(monkeypatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(EXAMPLES)
    threads = torch.get_num_threads()
    yield importlib.import_module("tour")
    sys.modules.pop("tour")
    torch.set_num_threads(threads)


def test_tour_draws_what_its_page_says(tour, tmp_path, capsys) -> None:
    drawn = tour.main(["--out", str(tmp_path)])
    for u, response in drawn.responses.items():
        h, expected = 0.0, []
        for t in range(len(response)):
            h = math.tanh((t == 0) + u * h)
            expected.append(h)
        np.testing.assert_allclose(response, expected, rtol=1e-4)
    *elman, lstm = drawn.norms.values()
    for radius, norms in zip(tour.RADII, elman, strict=True):
        expected = float(radius) ** np.arange(tour.TIME)[::-1]
        np.testing.assert_allclose(norms, expected, rtol=1e-3)
    assert 0.01 < lstm[0] < 1
    memory = drawn.memory
    assert np.abs(memory.output - memory.target).max() < 0.2
    write, read = memory.inputs[:, 1] > 0, memory.inputs[:, 2] > 0
    assert memory.gates["i"][write].min() > 0.5 > 0.1 > memory.gates["i"][~write].max()
    assert memory.gates["f"][write].max() < 0.2 < 0.9 < memory.gates["f"][~write].min()
    assert memory.gates["o"][read].min() > 0.5 > 0.1 > memory.gates["o"][~read].max()
    assert capsys.readouterr().out.count("wrote ") == 3


def test_tour_memory_problem_asks_for_the_last_value_written(tour) -> None:
    x, target = tour.memory_problem(torch.Generator().manual_seed(0), 5)
    for row, answers in zip(x.tolist(), target.tolist(), strict=True):
        held = math.nan  # before the first write there is nothing to ask for
        for (value, write, read), answer in zip(row, answers, strict=True):
            held = value if write else held
            assert answer == (held if read else 0.0)


def test_pictures_of_the_tour_are_small_and_in_its_page(tour, tmp_path) -> None:
    tour.main(["--steps", "1", "--out", str(tmp_path)])
    drawn = {path.name for path in tmp_path.iterdir()}
    page = (EXAMPLES.parent / "docs" / "tour.md").read_text()
    assert drawn == set(re.findall(r"\(pictures/(.+?)\)", page))
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 60_000
        assert (tour.PICTURES / path.name).exists()


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
