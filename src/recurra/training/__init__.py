"""Training: one loop for all tasks, with truncated BPTT, checkpoints and a time budget."""

from recurra.training.bptt import StreamBatch, StreamBatches, detach_state, run_window
from recurra.training.loop import TrainingInterrupted, TrainingResult, train
from recurra.training.settings import TrainingSettings
from recurra.training.task import TrainingTask

__all__ = [
    "StreamBatch",
    "StreamBatches",
    "TrainingInterrupted",
    "TrainingResult",
    "TrainingSettings",
    "TrainingTask",
    "detach_state",
    "run_window",
    "train",
]
