"""A network comes out of a run folder only if every tensor fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from recurra.errors import ConfigError, RunError
from recurra.runs import RunFolder, write_tensors
from recurra.training.restore import check_tensors, config_explained, read_config, restore_network


class Config(BaseModel):
    width: int = Field(ge=1)


def make() -> nn.Linear:
    return nn.Linear(3, 2)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return {"weight": torch.full((2, 3), 0.5), "bias": torch.tensor([1.0, 2.0])}


@pytest.fixture
def run(tmp_path: Path, weights: dict[str, Tensor]) -> RunFolder:
    made = RunFolder.create(tmp_path / "run")
    write_tensors(made.model_path, weights)
    made.write_config("toy", {"width": 3}, (made.model_path,))
    return made


def test_a_config_is_read_after_the_files_that_it_seals(run: RunFolder) -> None:
    assert read_config(run, Config).width == 3
    write_tensors(run.model_path, {"weight": torch.zeros(1)})
    with pytest.raises(RunError, match=r"model\.safetensors is damaged or belongs to another run"):
        read_config(run, Config)


def test_a_config_of_another_kind_is_named_with_what_to_do(run: RunFolder) -> None:
    run.write_config("toy", {"width": 0}, (run.model_path,))
    with pytest.raises(RunError, match=r"config\.json is damaged or was edited: 1 valid.*Restore"):
        read_config(run, Config)
    message = r"edited: width=0 is too narrow\. Restore it from a copy"
    with pytest.raises(RunError, match=message), config_explained(run):
        raise ConfigError("width=0 is too narrow.")


def test_weights_come_back_ready_to_be_used(run: RunFolder, weights: dict[str, Tensor]) -> None:
    network = restore_network(run, make, weights, layers=1)
    assert not network.training
    assert torch.equal(network(torch.ones(3)), torch.tensor([2.5, 3.5]))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("bias", torch.zeros(7), r"and 9 tokens: 'bias' has the shape \(7,\), expected \(2,\)"),
        ("more", torch.zeros(7), r"'more' has the shape \(7,\), expected None\. Restore all"),
        ("bias", torch.tensor([1.0, torch.nan]), "'bias' has NaN or infinite numbers"),
    ],
)
def test_the_tensor_that_does_not_fit_is_named(
    run: RunFolder, weights: dict[str, Tensor], name: str, tensor: Tensor, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        restore_network(run, make, {**weights, name: tensor}, layers=1, fits=" and 9 tokens")


def test_a_missing_tensor_is_named(run: RunFolder, weights: dict[str, Tensor]) -> None:
    with pytest.raises(RunError, match=r"'seen' has the shape None, expected \(4,\)"):
        check_tensors(run, run.state_path, {}, {"seen": (4,)})


def test_more_layers_than_tensors_are_never_built(
    run: RunFolder, weights: dict[str, Tensor]
) -> None:
    def never() -> nn.Linear:
        raise AssertionError

    with pytest.raises(RunError, match=r"does not fit .*: 1000000000 layers out of 2 tensors"):
        restore_network(run, never, weights, layers=10**9)


def test_sizes_that_no_memory_has_are_refused_before_any_is_taken(
    run: RunFolder, weights: dict[str, Tensor]
) -> None:
    with pytest.raises(RunError, match=r"'bias' has the shape \(2,\), expected \(1000000000"):
        restore_network(run, lambda: nn.Linear(3, 10**9), weights, layers=1)
    with pytest.raises(RunError, match=r"config\.json describes no network: .* Restore all files"):
        restore_network(run, lambda: nn.Linear(2**40, 2**40), weights, layers=1)
