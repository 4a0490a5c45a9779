"""The compiled core: there whenever it can be, and right when it is there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
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


@pytest.mark.skipif(not has_core(), reason="the compiled core is not built here")
def test_levels_are_those_of_the_processor_widest_first() -> None:
    from recurra import _core

    levels = _core.levels()
    bits = [_core.vector_bits(level) for level in levels]
    assert levels[-1] == "scalar"
    assert bits == sorted(bits, reverse=True)
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not cpuinfo.is_file():
        pytest.skip("the flags of the processor are read on Linux on x86 only")
    flags = set(cpuinfo.read_text().partition("flags")[2].partition("\n")[0].split())
    needed = {"avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "avx2": {"avx2", "fma"}}
    assert levels[:-1] == [level for level, names in needed.items() if names <= flags]
    assert [{"avx512": 512, "avx2": 256, "scalar": 128}[level] for level in levels] == bits


@pytest.mark.skipif(not has_core(), reason="the compiled core is not built here")
def test_a_level_that_is_not_there_is_an_error_with_its_name() -> None:
    from recurra import _core

    with pytest.raises(ValueError, match="no level of instructions called 'avx1024'"):
        _core.vector_bits("avx1024")
    with pytest.raises(ValueError, match="no level of instructions called 'avx1024'"):
        _core.outline(("avx1024", 1, 0, 0), (0,) * 14, ((0,) * 25,))


@pytest.mark.skipif(not has_core(), reason="the compiled core is not built here")
def test_threads_usable_is_never_more_than_allowed() -> None:
    from recurra import _core

    assert 1 <= _core.threads_usable() <= _core.threads_allowed()
