"""A toy language: words one for one, the colour moved behind the animal."""

from __future__ import annotations

import itertools
import random

COUNTS = {"one": "eins", "two": "zwei", "many": "viele"}
COLOURS = {"red": "rot", "green": "gruen", "blue": "blau", "black": "schwarz"}
ANIMALS = {"cat": "katze", "dog": "hund", "bird": "vogel", "fish": "fisch", "cow": "kuh"}
VERBS = {"runs": "rennt", "sleeps": "schlaeft", "sings": "singt"}

TINY = {
    "tokens": "word",
    "embedding_size": 24,
    "hidden_size": 24,
    "batch_tokens": 200,
    "subword_dropout": 0.0,
    "word_dropout": 0.0,
    "input_dropout": 0.0,
    "hidden_dropout": 0.1,
    "output_dropout": 0.0,
    "training": {"learning_rate": 0.02, "warmup_steps": 10, "ema_decay": 0.95},
}


def phrases(count: int = 180, seed: int = 0) -> tuple[list[str], list[str]]:
    """(sources, targets), all different, in an order drawn by the seed."""
    every = list(itertools.product(COUNTS, COLOURS, ANIMALS, VERBS))
    random.Random(seed).shuffle(every)
    chosen = every[:count]
    targets = [
        f"{COUNTS[n]} {ANIMALS[animal]} {COLOURS[colour]} {VERBS[verb]} ."
        for n, colour, animal, verb in chosen
    ]
    return [f"{' '.join(words)} ." for words in chosen], targets
