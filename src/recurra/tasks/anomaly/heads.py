"""Which head a detector's settings ask for."""

from __future__ import annotations

from collections.abc import Mapping

from recurra.tasks.anomaly.alarm import AlarmHead
from recurra.tasks.anomaly.forecast import ForecastHead
from recurra.tasks.anomaly.lanes import Array
from recurra.tasks.anomaly.segment import SegmentHead
from recurra.tasks.anomaly.settings import AnomalySettings
from recurra.tasks.anomaly.watch import Head, Watch


def make_head(settings: AnomalySettings, weights: Mapping[str, Array]) -> Head:
    """The head of these settings; weights of a forecaster."""
    if settings.model == "forecaster":
        return ForecastHead(weights)
    return SegmentHead() if settings.head == "segment" else AlarmHead()


def make_watch(
    settings: AnomalySettings, channels: int, weights: Mapping[str, Array] | None = None
) -> Watch:
    """The detector of these settings, for series of so many channels."""
    return Watch(make_head(settings, weights or {}), channels, settings)
