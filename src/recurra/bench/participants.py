"""Who takes part: recurra, torch.nn and the rivals, each optional one with how to install it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass, field

from recurra.errors import ConfigError, unknown

TUNED_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
"""glibc keeps large buffers instead of handing them back and faulting them in again each step."""

SEQUENCES = ("train", "infer")
RAGGED = ("ragged-train", "ragged-infer")
ALL_MODES = (*SEQUENCES, "step", *RAGGED, "memory")


@dataclass(frozen=True)
class Participant:
    """One framework in one setting: its worker's module, what it needs, what it can do."""

    name: str
    module: str  # in recurra.bench.rivals
    about: str
    modes: tuple[str, ...]
    packages: tuple[str, ...] = ("torch",)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def install(self) -> str:
        return f"pip install {' '.join(self.packages)}"


PRODUCT = Participant("product", "product", "the matrix product 1024³ by torch.mm", ALL_MODES[:-1])
"""Takes part in every round: the other times are held against it."""

PARTICIPANTS = {
    one.name: one
    for one in (
        Participant("recurra", "torch_layer", "recurra.nn", ALL_MODES),
        Participant(
            "recurra-tuned",
            "torch_layer",
            "recurra.nn with the malloc setting",
            (*SEQUENCES, *RAGGED),
            environment=TUNED_MALLOC,
        ),
        Participant("recurra-out", "torch_layer", "recurra.nn, stream.push with out=", ("step",)),
        Participant("torch", "torch_layer", "torch.nn", ALL_MODES),
        Participant(
            "torch-tuned",
            "torch_layer",
            "torch.nn with the malloc setting",
            (*SEQUENCES, *RAGGED, "memory"),
            environment=TUNED_MALLOC,
        ),
        Participant("torch-cell", "torch_cell", "torch.nn's cells", ("step",)),
        Participant(
            "onnxruntime",
            "onnx_runtime",
            "ONNX Runtime",
            ("infer", "step"),
            ("onnx", "onnxruntime"),
        ),
        Participant("openvino", "open_vino", "OpenVINO", ("infer",), ("onnx", "openvino")),
        Participant("jax", "jax_scan", "jax.lax.scan, compiled", SEQUENCES, ("jax",)),
        Participant("numpy", "numpy_step", "NumPy", ("step",), ("numpy",)),
    )
}

ALWAYS = ("recurra", "torch", "torch-cell")
"""Cannot be left out: recurra, and what ratios are taken to."""
USUAL = tuple(name for name in PARTICIPANTS if name != "recurra-tuned")


def reference(mode: str) -> str:
    """The participant that ratios are taken to: torch.nn; its cells for single steps."""
    return "torch-cell" if mode == "step" else "torch"


def choose(rivals: Iterable[str] | None) -> tuple[list[Participant], dict[str, str]]:
    """(who takes part, {who cannot: the command that installs it}), in the order of PARTICIPANTS.

    None means all but recurra-tuned.
    Raises: ConfigError for an unknown rival.
    """
    asked = list(USUAL if rivals is None else rivals)
    for name in asked:
        if name not in PARTICIPANTS:
            raise ConfigError(unknown("rival", name, PARTICIPANTS))
    wanted = [one for one in PARTICIPANTS.values() if one.name in (*asked, *ALWAYS)]
    present = [one for one in wanted if all(version(package) for package in one.packages)]
    return present, {one.name: one.install for one in wanted if one not in present}


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
