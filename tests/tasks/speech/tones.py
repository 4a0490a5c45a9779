"""A language of tones: each word is a melody, so that a tiny network can learn to hear it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recurra import Transcriber

RATE = 16_000
TONES = {"A": 300.0, "B": 900.0, "C": 2700.0}
TEXTS = ("AB", "C A", "BC", "A B", "CAB", "B A C", "AC", "B")
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_layers": 1,
    "dropout": 0.0,
    "batch_size": 4,
    "speeds": (1.0,),
    "time_masks": 0,
    "progress": False,
}


def say(text: str, seed: int = 0) -> npt.NDArray[np.float32]:
    """A tone of 0.2 s for each letter, quiet for a blank and around it."""
    rng = np.random.default_rng(seed)
    quiet = np.zeros(RATE // 10)
    parts = [quiet]
    for letter in text:
        time = np.arange(RATE // 5) / RATE
        tone = 0.3 * np.sin(2 * np.pi * TONES[letter] * time) if letter in TONES else 0 * time
        parts += [tone, quiet]
    sound = np.concatenate(parts)
    return (sound + rng.normal(0, 1e-3, len(sound))).astype(np.float32)


def pairs(count: int, seed: int = 0) -> list[tuple[npt.NDArray[np.float32], str]]:
    """Recordings and what is said in them."""
    texts = [TEXTS[k % len(TEXTS)] for k in range(count)]
    return [(say(text, seed + k), text) for k, text in enumerate(texts)]


def tiny(**settings: Any) -> Transcriber:
    """A model that has not been trained."""
    training = {"learning_rate": 1e-2, "warmup_steps": 5, "ema_decay": 0.9}
    training |= settings.pop("training", {})
    return Transcriber(**{**TINY, **settings, "training": training})


def write_table(folder: Path, name: str, rows: Any) -> Path:
    """A .tsv and its WAV files."""
    import soundfile

    lines = ["audio\ttext"]
    for number, (samples, text) in enumerate(rows):
        soundfile.write(folder / f"{name}-{number}.wav", samples, RATE, subtype="PCM_16")
        lines.append(f"{name}-{number}.wav\t{text}")
    path = folder / f"{name}.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path
