"""A pytest plugin for `make sanitize`: recurra._core is the one in the folder RECURRA_SANITIZED.

An editable install would hand out its own core, whatever the path says; so this one is loaded
before anybody asks, right after torch, whose OpenMP runtime it shares.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import torch  # noqa: F401

import recurra

folder = Path(os.environ["RECURRA_SANITIZED"])
(library,) = folder.glob("_core*.so")
assert b"__asan_init" in library.read_bytes(), f"{library} was built without sanitizers"
spec = importlib.util.spec_from_file_location("recurra._core", library)
assert spec is not None
assert spec.loader is not None
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
sys.modules["recurra._core"] = core
recurra._core = core
