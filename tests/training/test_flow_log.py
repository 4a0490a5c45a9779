"""Measuring the gradient's flow while training: the file, the warnings, and the run untouched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.toy import WaveModel, WaveTask, same_bits, timeless, weights

from recurra import nn
from recurra.errors import ConfigError
from recurra.training.flow import gradient_flow
from recurra.training.flow_log import FlowLog
from recurra.training.flow_values import GradientFlow
from recurra.training.log import read_log
from recurra.training.loop import train
from recurra.training.settings import TrainingSettings

SETTINGS: dict[str, Any] = {
    "steps": 30,
    "validate_every": 7,
    "checkpoint_every_s": 0,
    "device": "cpu",
}


class RecurraModel(WaveModel):
    """The same model with a layer of ours, which draws masks of its own."""

    def __init__(self) -> None:
        super().__init__()
        theirs = self.gru
        self.gru = nn.GRU(2, 6, zoneout=0.1, recurrent_dropout=0.2)
        self.gru.load_state_dict(theirs.state_dict())


def wave_task(stop: int | None = None, call: int = 1) -> WaveTask:
    """A task that stops when the batch of that step is asked for the `call`-th time."""
    asked: list[int] = []

    def before(step: int) -> None:
        asked.append(step)
        if step == stop and asked.count(step) == call:
            raise KeyError(step)

    task = WaveTask(before=before)
    task.model = RecurraModel()
    return task


def run(task: WaveTask, folder: Path | None = None, resume: bool = False, **values: Any) -> Any:
    settings = TrainingSettings(**(SETTINGS | values))
    return train(task, settings, folder=folder, resume=resume, progress=False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_measuring_changes_no_bit_of_the_run(precision: str) -> None:
    plain, measured = wave_task(), wave_task()
    first = run(plain, precision=precision)
    second = run(measured, precision=precision, gradient_flow_every=1)
    assert same_bits(weights(plain.model), weights(measured.model))
    assert timeless(first.history) == timeless(second.history)


def test_every_so_many_steps_have_a_line(tmp_path: Path) -> None:
    run(wave_task(), tmp_path, gradient_flow_every=7)
    entries = read_log(tmp_path / "gradients.jsonl")
    assert [entry["step"] for entry in entries] == [0, 7, 14, 21, 28]
    flows = [GradientFlow.from_json(entry) for entry in entries]
    assert [layer.title for layer in flows[0].layers] == ["gru, layer 0"]
    assert flows[0].layers[0].steps == tuple(range(8))
    assert flows[0] != flows[1]


def test_what_is_measured_is_the_step_that_follows(tmp_path: Path) -> None:
    result = run(wave_task(), tmp_path, gradient_flow_every=7, log_every=1)
    losses = {entry["step"] - 1: entry["loss"] for entry in result.history}
    for entry in read_log(tmp_path / "gradients.jsonl"):
        assert entry["loss"] == pytest.approx(losses[entry["step"]], rel=1e-5)


def test_a_resumed_run_leaves_the_same_file(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(wave_task(), whole, gradient_flow_every=5)
    for stop, call in ((3, 1), (10, 1), (15, 2), (24, 1)):  # (15, 2): measured, and not updated
        with pytest.raises(KeyError):
            run(wave_task(stop, call), cut, resume=True, gradient_flow_every=5)
    run(wave_task(), cut, resume=True, gradient_flow_every=5)
    texts = [(folder / "gradients.jsonl").read_text() for folder in (whole, cut)]
    assert texts[0] == texts[1]


def test_a_resumed_run_may_begin_to_measure(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        run(wave_task(12), tmp_path, resume=True)
    assert not (tmp_path / "gradients.jsonl").exists()
    run(wave_task(), tmp_path, resume=True, gradient_flow_every=10)
    assert [entry["step"] for entry in read_log(tmp_path / "gradients.jsonl")] == [20]


def test_a_model_without_our_layers_is_refused_before_the_first_update() -> None:
    task = WaveTask()
    before = weights(task.model)
    with pytest.raises(ConfigError, match=r"no layer of recurra.nn ran.*recurra.accelerate"):
        run(task, gradient_flow_every=100)
    assert same_bits(before, weights(task.model))
    with pytest.raises(ConfigError, match="gradient_flow_every=0"):
        TrainingSettings(gradient_flow_every=0)


def test_each_kind_of_warning_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rnn = nn.RNN(3, 4, num_layers=2, batch_first=True)
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(0.1)
        rnn.weight_hh_l1.mul_(0.1)
    x = torch.randn(2, 30, 3)
    flow = gradient_flow(rnn, x, lambda m, b: m(b)[0][:, -1].sum())
    log = FlowLog(tmp_path / "gradients.jsonl")
    log.open(0)
    for step in (0, 10):
        log.add(step, flow)
    log.close()
    printed = capsys.readouterr().err
    assert printed.startswith("warning: step 0: vanishing gradient in RNN, layer 0: ")
    assert printed.count("\n") == 1
    lines = [json.loads(line) for line in (tmp_path / "gradients.jsonl").read_text().splitlines()]
    assert [GradientFlow.from_json(line) for line in lines] == [flow, flow]
