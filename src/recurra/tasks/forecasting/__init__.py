"""Forecasting time series with recurrent networks."""

from recurra.tasks.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]
