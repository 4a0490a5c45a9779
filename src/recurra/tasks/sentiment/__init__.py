"""Sentiment analysis: from a table of texts and labels to a calibrated, explained classifier."""

from recurra.tasks.sentiment.model import SentimentClassifier as SentimentClassifier

__all__ = ["SentimentClassifier"]
