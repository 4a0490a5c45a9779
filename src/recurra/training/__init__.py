"""Training: one loop for all tasks, with truncated BPTT, checkpoints and a time budget."""

from recurra.training.bptt import StreamBatch, StreamBatches, detach_state, run_window
from recurra.training.clipping import (
    AdaptiveClipper,
    Clipper,
    ClipReport,
    NormClipper,
    ValueClipper,
    ZScoreClipper,
    make_clipper,
)
from recurra.training.flow import gradient_flow
from recurra.training.flow_values import GateFlow, GradientFlow, LayerFlow
from recurra.training.flow_warnings import FlowWarning, flow_warnings
from recurra.training.loop import TrainingInterrupted, TrainingResult, train
from recurra.training.rtrl import RTRL
from recurra.training.settings import TrainingSettings
from recurra.training.task import TrainingTask

__all__ = [
    "RTRL",
    "AdaptiveClipper",
    "ClipReport",
    "Clipper",
    "FlowWarning",
    "GateFlow",
    "GradientFlow",
    "LayerFlow",
    "NormClipper",
    "StreamBatch",
    "StreamBatches",
    "TrainingInterrupted",
    "TrainingResult",
    "TrainingSettings",
    "TrainingTask",
    "ValueClipper",
    "ZScoreClipper",
    "detach_state",
    "flow_warnings",
    "gradient_flow",
    "make_clipper",
    "run_window",
    "train",
]
