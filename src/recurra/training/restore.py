"""A trained network out of a run folder: nothing is believed before it is checked.

Shapes are compared before memory is taken, so that a config that was edited cannot ask for more
memory than the weights beside it have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from recurra.errors import ConfigError, RunError
from recurra.runs import RunFolder

Config = TypeVar("Config", bound=BaseModel)
Network = TypeVar("Network", bound=nn.Module)
_ADVICE = "Restore all files from the same run."


@contextlib.contextmanager
def config_explained(run: RunFolder) -> Iterator[None]:
    """Turn what is wrong with settings out of config.json into a RunError that names the file."""
    try:
        yield
    except (ValidationError, ConfigError) as error:
        raise RunError(
            f"{run.config_path} is damaged or was edited: {_first_line(error)} Restore it from a "
            "copy or train again."
        ) from error


def read_config(run: RunFolder, kind: type[Config]) -> Config:
    """What config.json holds under `config`, and the checksums of all files compared.

    Raises: RunError when a file is missing or damaged, or the config is not of that kind.
    """
    sealed = run.read_config()
    run.check_files(sealed)
    with config_explained(run):
        return kind.model_validate(sealed["config"])


def restore_network(
    run: RunFolder,
    make: Callable[[], Network],
    weights: Mapping[str, Tensor],
    *,
    layers: int,
    fits: str = "",
) -> Network:
    """The network that `make` makes, with these weights, in evaluation mode.

    layers   that the config speaks of; each has several tensors
    fits     what shapes depend on beside the config: " and a vocabulary of 90 tokens"

    Raises: RunError naming the first tensor that does not fit, or is not finite.
    """
    if layers > len(weights):  # never build a billion
        raise RunError(
            f"{run.model_path} does not fit {run.config_path}: {layers} layers out of "
            f"{len(weights)} tensors. {_ADVICE}"
        )
    try:
        with torch.device("meta"):
            mould = make()
    except (RuntimeError, ConfigError) as error:  # sizes whose product is no integer
        raise RunError(
            f"{run.config_path} describes no network: {_first_line(error)} {_ADVICE}"
        ) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in mould.state_dict().items()}
    check_tensors(run, run.model_path, weights, shapes, fits=fits)
    network = make()
    network.load_state_dict(weights)
    return network.eval()


def check_tensors(
    run: RunFolder,
    path: Path,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    fits: str = "",
) -> None:
    """Check that a file of the run has exactly the tensors of these names and shapes, all finite.

    Raises: RunError naming the first one that has not.
    """
    for name in sorted(tensors.keys() | shapes.keys()):
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shapes.get(name):
            raise RunError(
                f"{path} does not fit {run.config_path}{fits}: {name!r} has the shape {found}, "
                f"expected {shapes.get(name)}. {_ADVICE}"
            )
        if not torch.isfinite(tensors[name]).all():
            raise RunError(f"{path} cannot be used: {name!r} has NaN or infinite numbers.")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
