"""Threads, processes and the compiled file itself: one pool, never more threads than allowed."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from recurra import nn
from recurra.kernels import core

if core.module is None:
    pytest.skip("the compiled core is not built here", allow_module_level=True)
from recurra import _core

PROJECT = Path(__file__).resolve().parents[2]
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")

# Work enough for two threads, in both passes.
BUSY = """
import os, sys, torch
from recurra import nn
from recurra.kernels import cpu
from recurra import _core

torch.set_num_threads(2)
torch.manual_seed(0)
layer, x = nn.GRU(16, 32, bidirectional=True), torch.randn(30, 16, 16)

def work():
    layer.zero_grad()
    output, _ = layer(x)
    output.square().sum().backward()
    return output.detach(), layer.weight_ih_l0.grad.clone()

def tasks():
    return len(os.listdir("/proc/self/task"))
"""


def run(code: str, **environment: str) -> list[str]:
    """Lines that the code prints in a process of its own, which must not hang."""
    done = subprocess.run(
        [sys.executable, "-c", BUSY + code],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@ON_LINUX
def test_the_threads_are_those_that_torch_has() -> None:
    code = """
torch.ones(10**6).mul(2).sum()
before = tasks()
work()
maps = open("/proc/self/maps").read().split()
print(before, tasks(), len({path for path in maps if "libgomp" in path}))
"""
    torchs, ours, runtimes = map(int, run(code))
    assert ours == max(torchs, min(2, _core.threads_allowed()))
    assert runtimes == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_processes_work_after_threads_were_used() -> None:
    code = """
import multiprocessing
from torch.utils.data import DataLoader, Dataset

expected = work()
child = os.fork()
if child == 0:
    same = all(torch.allclose(a, b) for a, b in zip(work(), expected))
    bits = torch.equal(work()[0], expected[0])
    os._exit(0 if same and bits and _core.threads_usable() == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

class Rows(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, n):
        with torch.no_grad():
            return layer(x[:, n])[0]

rows = torch.stack(list(DataLoader(
    Rows(), batch_size=None, num_workers=2, multiprocessing_context="fork")), 1)
print(torch.equal(rows, expected[0][:, :4]))
def bits(_):
    return work()[0].numpy().tobytes()

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(set(pool.map(bits, range(3))) == {expected[0].numpy().tobytes()})
print(torch.equal(work()[0], expected[0]), _core.threads_usable() == _core.threads_allowed())
"""
    assert run(code) == ["0", "True", "True", "True", "True"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_never_more_threads_than_cpus_allowed() -> None:
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
expected = work()
print(_core.threads_usable(), tasks())
torch.set_num_threads(8)
cpu.choice = cpu.Choice(threads=8)
print(torch.equal(work()[0], expected[0]), tasks())
"""
    usable, tasks, same, later = run(code)
    assert (usable, same) == ("1", "True")
    assert tasks == later


@ON_LINUX
def test_a_runtime_that_gives_fewer_threads_is_worked_with() -> None:
    code = """
expected = work()
cpu.choice = cpu.Choice(threads=2, slices=2, team=3)
print(torch.equal(work()[0], expected[0]))
"""
    assert run(code, OMP_THREAD_LIMIT="1") == ["True"]


def test_the_number_of_threads_is_torchs_and_fits_the_work(monkeypatch) -> None:
    asked = []

    def outline(x: torch.Tensor, threads: int, hidden: int = 16) -> tuple[int, int, int]:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        nn.GRU(8, hidden)(x)
        return _core.outline(*asked[-1])

    monkeypatch.setattr(core, "module", Recording(asked))
    assert outline(torch.zeros(400, 16, 8), 1) == (1, 1, 1)
    assert outline(torch.zeros(1, 16, 8), 2) == (1, 1, 1)
    if _core.threads_allowed() > 1:
        assert outline(torch.zeros(400, 16, 8), 2) == (2, 2, 1)
        # Weights of 2 MB are shared by a team; slices would each read all of them.
        assert outline(torch.zeros(3, 16, 8), 2, hidden=400) == (2, 2, 1)
        assert outline(torch.zeros(3, 16, 8), 2, hidden=420) == (2, 1, 2)


class Recording:
    """The core, noting what forward is called with."""

    def __init__(self, asked: list) -> None:
        self.asked = asked

    def __getattr__(self, name: str):
        return getattr(_core, name)

    def forward(self, *call) -> None:
        self.asked.append(call)
        _core.forward(*call)


def test_many_callers_at_once_get_the_bits_they_get_alone() -> None:
    torch.manual_seed(0)
    layers = [nn.LSTM(5, 7), nn.GRU(40, 19), nn.RNN(3, 33, bidirectional=True)]
    jobs = list(itertools.product(layers, range(1, 9)))
    inputs = [torch.randn(11, batch, layer.input_size) for layer, batch in jobs]

    def work(n: int) -> list[torch.Tensor]:
        # What torch.set_num_threads says holds for one thread of Python.
        torch.set_num_threads(1)
        x = inputs[n].clone().requires_grad_()
        output, _ = jobs[n][0](x)
        return [output.detach(), *torch.autograd.grad(output.square().sum(), x)]

    alone = [work(n) for n in range(len(jobs))]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, list(range(len(jobs))) * 4))
    for n, results in enumerate(found):
        for a, b in zip(results, alone[n % len(jobs)], strict=True):
            assert torch.equal(a, b)


def test_wider_levels_share_no_code_with_narrower_ones() -> None:
    """A function outside a level's namespace is kept once for all levels, by whoever comes first.

    Compiled for a wider level it could stop a narrower machine; see csrc/simd.h.
    """
    folders = sorted((PROJECT / "build").glob("*/CMakeFiles/kernels_*.dir/csrc"))
    nm = shutil.which("nm")
    if not folders or nm is None:
        pytest.skip("no object files of the core in build/, or no nm to read them")
    for folder in folders:
        level = folder.parent.name.removeprefix("kernels_").removesuffix(".dir")
        for file in folder.glob("*.o*"):
            listed = subprocess.run(
                [nm, "-C", "--defined-only", str(file)], check=True, capture_output=True, text=True
            )
            shared = [
                line for line in listed.stdout.splitlines() if re.match(r"[0-9a-f]+ [WVu] ", line)
            ]
            others = [line for line in shared if f"recurra::{level}::" not in line]
            assert not others, f"{level}: {others[:3]}"
