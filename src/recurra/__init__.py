"""recurra: recurrent neural networks that train fast and then run forever on a stream.

Public names are imported on first use, so that `import recurra` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recurra import nn as nn
    from recurra.nn.accelerate import accelerate as accelerate
    from recurra.nn.explain import explain as explain
    from recurra.tasks.anomaly.detector import AnomalyDetector as AnomalyDetector
    from recurra.tasks.forecasting.forecaster import Forecaster as Forecaster
    from recurra.tasks.language.model import LanguageModel as LanguageModel
    from recurra.tasks.sentiment.model import SentimentClassifier as SentimentClassifier
    from recurra.tasks.speech.model import Transcriber as Transcriber
    from recurra.tasks.translation.model import Translator as Translator

__version__ = "0.1.0"

_PUBLIC = {
    "AnomalyDetector": ("recurra.tasks.anomaly.detector", "AnomalyDetector"),
    "Forecaster": ("recurra.tasks.forecasting.forecaster", "Forecaster"),
    "LanguageModel": ("recurra.tasks.language.model", "LanguageModel"),
    "SentimentClassifier": ("recurra.tasks.sentiment.model", "SentimentClassifier"),
    "Transcriber": ("recurra.tasks.speech.model", "Transcriber"),
    "Translator": ("recurra.tasks.translation.model", "Translator"),
    "accelerate": ("recurra.nn.accelerate", "accelerate"),
    "explain": ("recurra.nn.explain", "explain"),
    "nn": ("recurra.nn", None),
}

__all__ = [
    "AnomalyDetector",
    "Forecaster",
    "LanguageModel",
    "SentimentClassifier",
    "Transcriber",
    "Translator",
    "__version__",
    "accelerate",
    "explain",
    "nn",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'recurra' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
