"""Anomaly detection: watching streams of numbers for what they have not shown before."""

from recurra.tasks.anomaly.detector import AnomalyDetector as AnomalyDetector

__all__ = ["AnomalyDetector"]
