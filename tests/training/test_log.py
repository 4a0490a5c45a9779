from __future__ import annotations

import json
import math

from recurra.training.log import TrainingLog


def write_entries(log: TrainingLog, steps: range) -> None:
    for step in steps:
        log.add(float(step), 1.0, False)
        log.write(step, 1e-3, 100.0, None)


def test_entry_holds_means_since_the_entry_before(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl")
    log.open(0)
    log.add(1.0, 4.0, True)
    assert log.clipped_share() == 1.0
    log.add(2.0, math.inf, False)  # a float16 step that was left out
    log.write(2, 1e-3, 12.3456, None)
    assert log.clipped_share() == 0.5
    log.add(5.0, 7.0, False)
    log.write(3, 2e-3, 10.0, 0.25)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == log.history
    assert lines == [
        {
            "step": 2,
            "loss": 1.5,
            "learning_rate": 1e-3,
            "gradient_norm": 4.0,
            "clipped": 0.5,
            "steps_per_s": 12.35,
        },
        {
            "step": 3,
            "loss": 5.0,
            "learning_rate": 2e-3,
            "gradient_norm": 7.0,
            "clipped": 0.0,
            "steps_per_s": 10.0,
            "validation": 0.25,
        },
    ]


def test_entries_after_the_checkpoint_and_torn_lines_are_cut_off(tmp_path):
    path = tmp_path / "log.jsonl"
    log = TrainingLog(path)
    log.open(0)
    write_entries(log, range(1, 8))
    log.close()
    with path.open("a") as file:
        file.write('{"step": 3, "lo')

    log = TrainingLog(path)
    log.open(4, {"loss": 10.0, "losses": 1.0, "clipped": 1.0})
    log.add(20.0, 1.0, False)
    log.write(5, 1e-3, 100.0, None)
    log.close()
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == [entry["step"] for entry in log.history] == [1, 2, 3, 4, 5]
    assert (log.history[-1]["loss"], log.history[-1]["clipped"]) == (15.0, 0.5)


def test_number_that_json_cannot_hold_becomes_null(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl")
    log.open(0)
    log.add(1.0, math.inf, False)
    log.write(1, 1e-3, 1.0, math.inf)
    log.close()
    entry = json.loads((tmp_path / "log.jsonl").read_text())
    assert entry["gradient_norm"] is None
    assert entry["validation"] is None


def test_without_a_path_the_history_stays_in_memory():
    log = TrainingLog(None)
    log.open(0)
    write_entries(log, range(1, 3))
    log.sync()
    log.close()
    assert [entry["loss"] for entry in log.history] == [1.0, 2.0]
