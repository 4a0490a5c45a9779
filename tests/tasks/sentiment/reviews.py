"""Toy reviews: their label hangs on one word, in a random place among words that say nothing."""

from __future__ import annotations

import random

from recurra.tasks.sentiment.examples import Examples

WORDS = ["the", "a", "film", "it", "was", "so", "very", "actors", "plot", "end"]
TELLING = {"pos": ["good", "great", "fine"], "neg": ["bad", "poor", "dull"]}


def reviews(count: int, seed: int = 0, words: int = 12) -> Examples:
    rng = random.Random(seed)
    texts, labels = [], []
    for k in range(count):
        label = ("neg", "pos")[k % 2]
        text = [rng.choice(WORDS) for _ in range(rng.randint(2, words))]
        text.insert(rng.randrange(len(text)), rng.choice(TELLING[label]))
        texts.append(" ".join(text))
        labels.append(label)
    return Examples(tuple(texts), tuple(labels), "reviews")
