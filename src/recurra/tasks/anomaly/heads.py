"""Which head a detector's settings ask for."""

from __future__ import annotations

from recurra.tasks.anomaly.alarm import AlarmHead
from recurra.tasks.anomaly.segment import SegmentHead
from recurra.tasks.anomaly.settings import AnomalySettings
from recurra.tasks.anomaly.watch import Head


def make_head(settings: AnomalySettings) -> Head:
    """The head of these settings."""
    return SegmentHead() if settings.head == "segment" else AlarmHead()
