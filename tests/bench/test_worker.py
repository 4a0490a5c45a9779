"""Every participant computes what torch.nn does in float64, at tiny shapes of every mode."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recurra.bench.cases import CELLS, Case
from recurra.bench.inputs import largest_errors, make_arrays, read_case
from recurra.bench.participants import PARTICIPANTS, PRODUCT, TUNED_MALLOC, choose, version
from recurra.bench.process import WorkerProcess, make_environment
from recurra.bench.truth import write_case
from recurra.bench.worker import Server
from recurra.errors import ConfigError

SHAPES = {"step": (1, 4, 3, 5, 2)}
TINY = (2, 7, 3, 5, 2)
MODES = ("train", "infer", "step", "ragged-train", "ragged-infer")
TOGETHER = [
    (name, mode, cell)
    for (name, one), mode, cell in itertools.product(PARTICIPANTS.items(), MODES, CELLS)
    if mode in one.modes and not one.environment
]


@pytest.mark.parametrize(("name", "mode", "cell"), TOGETHER)
def test_numbers_are_those_of_float64(name: str, mode: str, cell: str, tmp_path: Path) -> None:
    for package in PARTICIPANTS[name].packages:
        if version(package) is None:
            pytest.skip(f"{package} is not installed: {PARTICIPANTS[name].install}")
    case = Case(mode, cell, SHAPES.get(mode, TINY), 1)
    server = Server(name)
    reply = server.prepare(asdict(case), str(write_case(case, tmp_path)))
    assert set(reply["errors"]) == ({"output", "gradient"} if case.trains else {"output"})
    assert reply["errors"]["output"] < 1e-6
    assert reply["errors"].get("gradient", 0) < 1e-5
    visited = server.visit(0.0, 1)
    assert set(visited) == ({"ragged", "padded"} if case.is_ragged else {"run"})
    assert all(times["calls"] == 1 and times["low"] > 0 for times in visited.values())
    again = server.job
    assert again is not None
    with again.within():  # gradients must not have piled up from call to call
        errors = largest_errors(again.results(), read_case(write_case(case, tmp_path))[1])
    assert errors == pytest.approx(reply["errors"], abs=1e-6)


def test_recurra_says_what_runs_it(tmp_path: Path) -> None:
    case = Case("infer", "gru", TINY, 1)
    reply = Server("recurra").prepare(asdict(case), str(write_case(case, tmp_path)))
    assert reply["runs_on"] in ("reference", "cpu")


def test_the_product_takes_part_in_every_timed_case(tmp_path: Path) -> None:
    case = Case("train", "gru", TINY, 1)
    server = Server(PRODUCT.name)
    file = str(write_case(case, tmp_path))
    assert server.prepare(asdict(case), file) == {"errors": {}, "runs_on": ""}
    assert server.visit(0.0, 1)["run"]["calls"] == 1


def test_the_product_multiplies_random_numbers(tmp_path: Path) -> None:
    case = Case("train", "gru", TINY, 1)
    server = Server(PRODUCT.name)
    server.prepare(asdict(case), str(write_case(case, tmp_path)))
    assert server.job is not None
    with server.job.within():
        c: Any = server.job.calls["run"]()
    assert c.shape == (1024, 1024)
    assert 31 < float(c.std()) < 33  # of 1024 products of two standard normals; of ones it is 0


def test_every_other_visit_times_the_padded_batch_first(tmp_path: Path) -> None:
    case = Case("ragged-infer", "gru", TINY, 1)
    server = Server("torch")
    server.prepare(asdict(case), str(write_case(case, tmp_path)))
    assert server.job is not None
    log: list[str] = []
    for name in server.job.calls:
        server.job.calls[name] = lambda name=name: log.append(name)  # type: ignore[misc]
    for backwards in (False, True):
        assert list(server.visit(0.0, 1, backwards)) == ["ragged", "padded"]
    assert log[::2] == ["ragged", "padded", "padded", "ragged"]  # each warms up once


def test_a_worker_that_hangs_is_killed_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(
        "recurra.bench.process.make_environment",
        lambda *_: {"PATH": "", "PYTHONPATH": str(tmp_path)},
    )
    worker = WorkerProcess(PARTICIPANTS["torch"], 1, patience_s=0.2)
    try:
        for _ in range(2):
            why = worker.ask(do="visit")["failed"]
            assert why == "its process ended: killed after 0.2 s without an answer"
    finally:
        worker.close()


def test_wrong_numbers_are_a_failure_and_no_time(tmp_path: Path) -> None:
    case = Case("infer", "gru", TINY, 1)
    path = write_case(case, tmp_path)
    arrays, truth = read_case(path)
    from safetensors.numpy import save_file

    for wrong, said in ((truth["output"] + 0.5, "off by 0.5"), (truth["output"] * np.nan, "nan")):
        save_file({**arrays, "true.output": wrong}, path)
        with pytest.raises(ArithmeticError, match=f"its output is.*{said}"):
            Server("torch").prepare(asdict(case), str(path))


def test_gradient_errors_are_relative_to_the_largest_entry() -> None:
    truth = {"output": np.zeros(2), "grad.a": np.array([1.0, -4.0]), "grad.b": np.ones(1)}
    found = {
        "output": np.array([0.0, -0.25]),
        "grad.a": np.array([2.0, -4.0]),
        "grad.b": np.ones(1),
    }
    assert largest_errors(found, truth) == {"output": 0.25, "gradient": 0.25}


def test_inputs_depend_on_the_case_alone_and_lengths_are_in_range() -> None:
    one, two = (make_arrays(Case(mode, "gru", (50, 9, 3, 5, 1), 1)) for mode in MODES[:2])
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert (one["lengths"].min(), one["lengths"].max()) == (1, 9)
    other = make_arrays(Case("train", "gru", (50, 9, 3, 6, 1), 1))
    assert not np.array_equal(one["x"], other["x"])


def test_truth_of_a_ragged_case_ends_with_each_row(tmp_path: Path) -> None:
    case = Case("ragged-train", "gru", TINY, 1)
    arrays, truth = read_case(write_case(case, tmp_path))
    for row, length in enumerate(arrays["lengths"]):
        assert np.abs(truth["output"][:length, row]).min() > 0
        assert not truth["output"][length:, row].any()


def test_a_training_case_after_a_memory_case_of_its_shape_has_its_truth(tmp_path: Path) -> None:
    write_case(Case("memory", "gru", TINY, 1), tmp_path)
    _, truth = read_case(write_case(Case("train", "gru", TINY, 1), tmp_path))
    assert "grad.weight_hh_l1" in truth


@pytest.fixture
def process() -> Iterator[WorkerProcess]:
    worker = WorkerProcess(PARTICIPANTS["torch"], 1)
    yield worker
    worker.close()


def test_a_process_answers_on_a_pipe_and_survives_what_fails(
    process: WorkerProcess, tmp_path: Path
) -> None:
    case = Case("train", "rnn", TINY, 1)
    failed = process.ask(do="prepare", case=asdict(case), file=str(tmp_path / "absent"))["failed"]
    assert "FileNotFoundError" in failed
    file = str(write_case(case, tmp_path))
    assert process.ask(do="prepare", case=asdict(case), file=file)["errors"]["gradient"] < 1e-5
    assert process.ask(do="visit", seconds=0.0, warmups=1)["run"]["calls"] == 1
    grown = process.ask(do="memory", case={**asdict(case), "mode": "memory"}, file=file)["bytes"]
    assert 0 <= grown < 2**26
    process._process.kill()
    assert "its process ended: exit status -9" in process.ask(do="visit")["failed"]


def test_every_library_is_told_the_number_of_threads() -> None:
    told = make_environment(PARTICIPANTS["torch-tuned"], 2)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    assert {told[name] for name in names} == {"2"}
    assert TUNED_MALLOC.items() <= told.items()
    assert not TUNED_MALLOC.keys() & make_environment(PARTICIPANTS["torch"], 2).keys()


def test_absent_rivals_come_with_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "recurra.bench.participants.version", lambda name: None if name == "onnx" else "1"
    )
    present, absent = choose(None)
    assert absent == {
        "onnxruntime": "pip install onnx onnxruntime",
        "openvino": "pip install onnx openvino",
    }
    names = [one.name for one in present]
    assert names == [
        *("recurra", "recurra-out", "torch", "torch-tuned", "torch-cell", "jax", "numpy"),
    ]


def test_recurra_and_torch_cannot_be_left_out() -> None:
    present, _ = choose(["numpy"])
    assert [one.name for one in present] == ["recurra", "torch", "torch-cell", "numpy"]
    with pytest.raises(ConfigError, match="unknown rival 'touch'; did you mean 'torch'"):
        choose(["touch"])


def test_a_step_uses_the_stream_of_a_layer_that_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recurra.nn.gru import GRU

    pushed: list[tuple[int, ...]] = []

    class Stream:
        def __init__(self, layer: Any, batch_size: int) -> None:
            self.layer, self.state = layer, None
            assert batch_size == 1

        def push(self, x_t: torch.Tensor) -> torch.Tensor:
            pushed.append(tuple(x_t.shape))
            output, self.state = self.layer(x_t[None], self.state)
            return output[0]

    monkeypatch.setattr(
        GRU, "stream", lambda layer, batch_size: Stream(layer, batch_size), raising=False
    )
    case = Case("step", "gru", SHAPES["step"], 1)
    server = Server("recurra")
    reply = server.prepare(asdict(case), str(write_case(case, tmp_path)))
    assert reply["errors"]["output"] < 1e-6
    server.visit(0.0, 1)
    assert pushed == [(1, 3)] * (4 + 2)


def test_steps_are_timed_with_out_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recurra.nn.stream import Stream

    filled: list[torch.Tensor | None] = []
    push = Stream.push

    def spy(self: Stream, x_t: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        filled.append(out)
        return push(self, x_t, out)

    monkeypatch.setattr(Stream, "push", spy)
    case = Case("step", "gru", SHAPES["step"], 1)
    for name, shape in (("recurra", None), ("recurra-out", (1, 5))):
        server = Server(name)
        server.prepare(asdict(case), str(write_case(case, tmp_path)))
        server.visit(0.0, 1)
        assert {None if out is None else tuple(out.shape) for out in filled} == {shape}
        filled.clear()
