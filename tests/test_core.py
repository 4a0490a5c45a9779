"""The compiled core: there whenever it can be, and right when it is there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


def has_core() -> bool:
    return importlib.util.find_spec("recurra._core") is not None


def test_the_core_was_built_where_there_is_a_compiler() -> None:
    try:
        importlib.metadata.distribution("recurra")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("recurra is not installed here, only on the path")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which(os.environ.get("CXX", "c++")) is None or not headers.is_file():
        pytest.skip("no C++ compiler or no Python headers here: the core cannot be built")
    assert has_core(), "build it with RECURRA_REQUIRE_CORE=1 pip install -e . to see the error"


@pytest.mark.skipif(not has_core(), reason="the compiled core is not built here")
def test_threads_allowed_is_the_affinity_of_the_process() -> None:
    from recurra import _core

    if not hasattr(os, "sched_setaffinity"):
        assert _core.threads_allowed() >= 1
        return
    allowed = os.sched_getaffinity(0)
    assert _core.threads_allowed() == len(allowed)
    code = (
        f"import os; os.sched_setaffinity(0, {{{min(allowed)}}}); "
        "from recurra import _core; print(_core.threads_allowed())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1"
