"""The picture of rooms: imports point down only, and neighbours do not know each other.

Every import statement counts, also those inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

# From top to bottom. A room may import any room that is lower, and none beside it.
FLOORS = (
    ("cli",),
    ("tasks", "bench"),
    ("training", "streaming", "decoding", "data", "report"),
    ("nn",),
    ("kernels",),
    ("cells", "_core"),
    ("runs", "checked"),
    ("errors",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


@dataclass(frozen=True)
class Module:
    """One Python file: its dotted name, and whether it is a package's __init__."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        return self.path.name in ("__init__.py", "__init__.pyi")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @property
    def is_door(self) -> bool:
        """The top __init__: the lazy table of public names, which may name anything."""
        return self.name == "recurra"


def read_modules(source: Path = SOURCE) -> dict[str, Module]:
    modules = {}
    for path in sorted([*source.rglob("*.py"), *source.rglob("*.pyi")]):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path)
    return modules


def room_of(name: str) -> str:
    """The room of a module, "" for the top package itself; tasks are rooms of their own."""
    parts = name.split(".")
    if parts[1:2] == ["tasks"]:
        return ".".join(parts[1:3])
    return parts[1] if len(parts) > 1 else ""


def floor_of(room: str) -> int:
    return FLOOR[room.split(".")[0]]


def imported(module: Module, modules: dict[str, Module]) -> Iterator[tuple[int, str, str | None]]:
    """(line, module, name or None) of each import of ours; a submodule counts as the module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "recurra":
                    yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.name.split(".")
                parents = parents[: len(parents) - node.level + module.is_package]
                base = ".".join([*parents, *([base] if base else [])])
            if base.split(".")[0] != "recurra":
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in modules:
                    yield node.lineno, inner, None
                else:
                    yield node.lineno, base, alias.name


def defined_in(module: Module) -> set[str]:
    """Names that a file itself assigns or defines at its top level."""
    names: set[str] = set()
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def faults(modules: dict[str, Module]) -> list[str]:
    """Every import that is not allowed, one line each."""
    found = []
    for module in modules.values():
        if module.is_door:
            continue
        room = room_of(module.name)
        for line, target, name in imported(module, modules):
            where = f"{module.name}:{line} imports {target}{f' ({name})' if name else ''}"
            if target not in modules:
                found.append(f"{where}, which does not exist")
                continue
            is_own = name is not None and name in defined_in(modules[target])
            if modules[target].is_package and not is_own:
                found.append(f"{where}: a package's __init__ instead of the defining module")
            if target == "recurra":
                continue
            other = room_of(target)
            if other == room:
                continue
            if floor_of(other) <= floor_of(room):
                how = "beside" if floor_of(other) == floor_of(room) else "above"
                found.append(f"{where}: {other} is {how} {room}")
    return found


def test_every_module_belongs_to_a_known_room() -> None:
    unknown = [name for name in read_modules() if room_of(name).split(".")[0] not in {*FLOOR, ""}]
    assert not unknown, f"not in the picture of rooms (tests/test_imports.py): {unknown}"


def test_imports_point_down() -> None:
    modules = read_modules()
    assert len(modules) > 10
    assert faults(modules) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("cells/gru.py", "from recurra.nn import recurrent", "nn is above cells"),
        ("cells/gru.py", "def f():\n    import recurra.cli.main", "cli is above cells"),
        (
            "data/tables.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            "    from recurra.report.page import Page",
            "report is beside data",
        ),
        (
            "tasks/speech/model.py",
            "from recurra.tasks.forecasting.model import Net",
            "tasks.forecasting is beside tasks.speech",
        ),
        ("tasks/speech/model.py", "from ..forecasting import model", "tasks.forecasting is beside"),
        ("cli/main.py", "from recurra.nn import GRU", "a package's __init__"),
        ("cli/main.py", "from recurra import nn", "a package's __init__"),
        ("errors.py", "from recurra.runs import write_json", "runs is above errors"),
        ("cli/main.py", "from recurra.cells.gruu import GRU", "does not exist"),
    ],
)
def test_the_rule_sees_a_wrong_import(tmp_path: Path, file: str, text: str, fault: str) -> None:
    files = {
        "__init__.py": "",
        "errors.py": "",
        "runs.py": "",
        "cells/__init__.py": "",
        "cells/gru.py": "",
        "cli/__init__.py": "",
        "cli/main.py": "",
        "data/__init__.py": "",
        "data/tables.py": "",
        "nn/__init__.py": "from recurra.nn.recurrent import GRU",
        "nn/recurrent.py": "from recurra.cells.gru import step",
        "report/__init__.py": "",
        "report/page.py": "",
        "tasks/__init__.py": "",
        "tasks/forecasting/__init__.py": "",
        "tasks/forecasting/model.py": "",
        "tasks/speech/__init__.py": "",
        "tasks/speech/model.py": "",
    }
    for name, content in files.items():
        path = tmp_path / "recurra" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert faults(read_modules(tmp_path)) == []
    (tmp_path / "recurra" / file).write_text(text)
    assert fault in " ".join(faults(read_modules(tmp_path)))
