"""A cell or backend that the battery does not know turns the suite red."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import pytest
import torch
from tests.laws import cases

import recurra.cells
from recurra.cells.cell import Cell
from recurra.kernels import dispatch


def test_every_cell_is_in_the_battery() -> None:
    found = set()
    for info in pkgutil.iter_modules(recurra.cells.__path__):
        module = importlib.import_module(f"recurra.cells.{info.name}")
        for _, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, Cell) and not inspect.isabstract(value):
                found.add(value)
    assert found, "no cell was found: has recurra.cells moved?"
    assert found == {type(make(2, 3)) for make in cases.CELLS.values()}


def test_every_option_of_a_cell_is_in_the_battery_with_two_values() -> None:
    listed = [make(2, 3) for make in cases.CELLS.values()]
    for kind in {type(cell) for cell in listed}:
        options = {field.name for field in dataclasses.fields(kind)}
        for option in options - {"input_size", "hidden_size"}:
            values = {getattr(cell, option) for cell in listed if type(cell) is kind}
            assert len(values) > 1, f"{kind.__name__}.{option} is always {values} in the battery"


def test_every_backend_is_in_the_battery() -> None:
    assert set(dispatch.BACKENDS) == {runner.backend for runner in cases.RUNNERS}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: laws ran on CPU only")
def test_every_backend_is_in_the_battery_on_cuda() -> None:
    on_cuda = {runner.backend for runner in cases.RUNNERS if runner.device == "cuda"}
    assert on_cuda == set(dispatch.BACKENDS)


def test_every_backend_runs_some_cell_and_the_reference_all() -> None:
    labels = [param.id for param in cases.pairs()]
    for backend in dispatch.BACKENDS:
        assert any(f"/{backend}-" in label for label in labels)
    assert {label.split("/")[0] for label in labels if "/reference-cpu" in label} == set(
        cases.CELLS
    )
