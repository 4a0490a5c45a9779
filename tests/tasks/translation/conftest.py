from __future__ import annotations

import pytest
from tests.tasks.translation.phrases import TINY, phrases

from recurra import Translator


@pytest.fixture(scope="session")
def model() -> Translator:
    """A translator of toy phrases that has learned them. Not to be changed."""
    return Translator(**TINY, steps=150, progress=False).fit(*phrases(150))
