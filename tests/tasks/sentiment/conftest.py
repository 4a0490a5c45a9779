from __future__ import annotations

import pytest
from tests.tasks.sentiment.reviews import reviews

from recurra import SentimentClassifier

TINY = {"hidden_size": 12, "embedding_size": 12, "buckets": 256, "batch_size": 16}


@pytest.fixture(scope="session")
def model() -> SentimentClassifier:
    """A classifier that reads texts in several chunks and pools in every way. Not to be changed."""
    return SentimentClassifier(
        **TINY,
        steps=40,
        chunk=4,
        pooling=("max", "mean", "last", "attention"),
        progress=False,
    ).fit(reviews(160))
