"""Small texts, and a model that was trained on one for a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recurra import LanguageModel

TEXT = "the cat sat on the mat\nthe dog saw the cat run\n\n" * 30
OTHER = "the dog sat on the cat\nand saw é\n" * 9
TINY: dict[str, Any] = {"steps": 12, "hidden_size": 12, "batch_size": 3, "k1": 8, "progress": False}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def tiny(**settings: Any) -> LanguageModel:
    return LanguageModel(**{**TINY, **settings}).fit_text(TEXT)
