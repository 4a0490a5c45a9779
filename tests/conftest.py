"""What every test gets: one thread, poisoned fresh memory, and the real data where it is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

collect_ignore = ["sanitized.py"]  # a plugin of `make sanitize`, not a test

# On two cores, two test processes with threads of their own only wait for each other.
torch.set_num_threads(1)

# A loaded machine must not fail a test by its speed, and CI must find the same examples twice.
hypothesis.settings.register_profile(
    "recurra", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True
)
hypothesis.settings.load_profile("recurra")


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """Fill `torch.empty` with NaN (integers: the largest), so that an unwritten output is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    # On CUDA the same switch also forbids cuDNN's recurrent kernels.
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets that RECURRA_DATA names; the test is skipped without one."""
    folder = os.environ.get("RECURRA_DATA")
    if not folder:
        pytest.skip("RECURRA_DATA is not set: set it to the folder of data sets to run this test")
    path = Path(folder).resolve()
    if not path.is_dir():
        pytest.skip(f"RECURRA_DATA={folder} is not a folder")
    return path


@pytest.fixture
def data_file(data_folder: Path) -> Callable[[str], Path]:
    """A function that finds a file of the data folder; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = data_folder / name
        if not path.exists():
            pytest.skip(f"{name} is not in RECURRA_DATA={data_folder}")
        return path

    return find
