"""`recurra doctor`: what is installed here, what is missing, and what that costs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

from recurra.cli.parameters import Json

REQUIRED = ("torch", "numpy", "safetensors", "pydantic", "typer", "rich")
EXTRAS = {
    "forecasting": ("narwhals", "polars", "matplotlib"),
    "baselines": ("statsforecast",),
    "search": ("optuna",),
    "demo": ("vega_datasets",),
    "digits": ("scikit-learn",),
    "language": ("tokenizers",),
    "sentiment": ("narwhals", "polars", "matplotlib", "scikit-learn"),
    "speech": ("soundfile", "soxr", "kaldi-native-fbank", "jiwer"),
    "mqtt": ("paho-mqtt",),
    "microphone": ("sounddevice",),
    "translation": ("tokenizers", "sacrebleu", "sacremoses"),
}
NO_CORE = (
    "missing: recurrences run on the reference backend, which gives the same numbers but is slower "
    "on a CPU. Install a C++20 compiler and reinstall recurra to have it."
)

OPENMP = {
    "shared": "one OpenMP pool, shared with torch",
    "separate": "a second OpenMP pool beside torch's, and both are slow: reinstall recurra from "
    "source with GCC, whose libgomp is torch's",
    "none": "built without OpenMP, so always 1: reinstall recurra with a compiler that has it",
    "unknown": "this system does not say whether OpenMP is shared with torch",
}


def command(
    as_json: Json = False,
) -> None:
    """Say what is installed here, what is missing and what that costs.

    \b
    Example:
      recurra doctor
    """
    from recurra.cli.output import print_json, print_table

    found = examine()
    if as_json:
        print_json(found)
        return
    print_table(["what", "found"], describe(found))


def examine() -> dict[str, Any]:
    """Everything that doctor knows about this machine, as JSON values."""
    import torch

    from recurra import __version__
    from recurra.report.results import allowed_cpus

    return {
        "recurra": __version__,
        "installed_in": str(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in REQUIRED},
        "extras": {
            extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()
        },
        "compiled_core": _examine_core(),
        "threads": {
            "torch": torch.get_num_threads(),
            "allowed": allowed_cpus(),
            "machine": os.cpu_count(),
        },
        "memory_gib": _memory(),
        "cuda": _examine_cuda(),
        "RECURRA_DATA": _examine_data(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _examine_core() -> dict[str, Any]:
    """Whether the compiled core can be imported, and if not, why."""
    if importlib.util.find_spec("recurra._core") is None:
        return {"present": False, "why": NO_CORE}
    try:
        from recurra import _core
    except ImportError as error:
        return {"present": False, "why": f"it cannot be loaded ({error}); reinstall recurra."}
    import torch

    # Widest first; the first one is used.
    levels = {name: _core.vector_bits(name) for name in _core.levels()}
    usable = _core.threads_usable()
    return {
        "present": True,
        "levels": levels,
        "level": next(iter(levels)),
        "vector_bits": next(iter(levels.values())),
        "threads": min(torch.get_num_threads(), usable),
        "threads_allowed": _core.threads_allowed(),
        "openmp": "none" if usable < _core.threads_allowed() else _examine_openmp(_mapped()),
    }


def _mapped() -> list[str] | None:
    """Files that are mapped into this process, or None where the system does not say."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return [line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) > 5]


def _examine_openmp(mapped: list[str] | None) -> str:
    """Whether the core's threads are torch's: "shared", "separate" or "unknown"."""
    if mapped is None:
        return "unknown"
    runtimes = {path for path in mapped if Path(path).name.startswith(("libgomp", "libomp"))}
    return "shared" if len(runtimes) == 1 else "separate" if runtimes else "unknown"


def _memory() -> float | None:
    """Memory of the machine in GiB, where the system says it."""
    if sys.platform == "win32":
        return None
    names = os.sysconf_names
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _examine_cuda() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"no GPU found by torch (built for CUDA {built})" if built else "torch is a CPU build"
        return {"present": False, "why": why}
    devices = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return {
        "present": True,
        "devices": devices,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _examine_data() -> dict[str, Any]:
    folder = os.environ.get("RECURRA_DATA")
    if not folder:
        return {"folder": None, "sets": 0}
    from recurra.data.catalogue import find
    from recurra.data.datasets import DATASETS

    found = [place for name in DATASETS if (place := find(name)) is not None]
    return {
        "folder": folder,
        "exists": Path(folder).is_dir(),
        "sets": sum(place.source == "RECURRA_DATA" for place in found),
    }


def describe(found: dict[str, Any]) -> list[list[str]]:
    """The rows that people read."""
    rows = [
        ["recurra", f"{found['recurra']} in {found['installed_in']}"],
        ["python", f"{found['python']} on {found['system']}"],
    ]
    rows += [[name, version or "missing"] for name, version in found["packages"].items()]
    core = found["compiled_core"]
    rows.append(["compiled core", _describe_core(core)])
    if core["present"]:
        rows.append(["core's threads", f"{core['threads']}; {OPENMP[core['openmp']]}"])
    threads = found["threads"]
    cpus = f"{threads['allowed']} of {threads['machine']} CPUs allowed"
    rows.append(["threads", f"torch uses {threads['torch']}; {cpus}"])
    rows.append(["memory", f"{found['memory_gib']} GiB" if found["memory_gib"] else "unknown"])
    cuda = found["cuda"]
    rows.append(["cuda", ", ".join(cuda["devices"]) if cuda["present"] else cuda["why"]])
    for extra, packages in found["extras"].items():
        rows.append([f"extra {extra}", _describe_extra(extra, packages)])
    data = found["RECURRA_DATA"]
    if data["folder"] is None:
        rows.append(["RECURRA_DATA", "not set: data sets come from `recurra data get`"])
    elif not data["exists"]:
        rows.append(["RECURRA_DATA", f"{data['folder']} is not a folder"])
    else:
        rows.append(["RECURRA_DATA", f"{data['folder']}, {data['sets']} data sets"])
    return rows


def _describe_core(core: dict[str, Any]) -> str:
    if not core["present"]:
        return str(core["why"])
    narrower = [name for name in core["levels"] if name != core["level"]]
    able = f" (able to run: {', '.join(narrower)})" if narrower else ""
    return f"present, runs at {core['level']}, {core['vector_bits']}-bit vectors{able}"


def _describe_extra(extra: str, packages: dict[str, str | None]) -> str:
    missing = [name for name, version in packages.items() if version is None]
    if missing:
        return f"missing {', '.join(missing)}: pip install 'recurra[{extra}]'"
    return ", ".join(f"{name} {version}" for name, version in packages.items())
