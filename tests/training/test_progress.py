from __future__ import annotations

import io
import sys

from tests.training.toy import PointTask

from recurra.training import progress
from recurra.training.loop import train
from recurra.training.progress import ProgressDisplay
from recurra.training.settings import TrainingSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_names_step_loss_clipping_speed_and_time_left(capsys):
    display = ProgressDisplay(True)
    display.start()
    display.show(1200, 4000, 0.12345, 0.126, 212.4, 0.3, 75.0)
    display.show(7, None, 2.5, None, 3.0, 0.1, None)
    display.stop()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: step 1200/4000  loss 0.1235  clipped 13%  212 steps/s  1:15 left"
    assert lines[1] == "training: step 7  loss 2.5  3 steps/s"


def test_lines_come_now_and_then(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    display = ProgressDisplay(True)
    assert not display.due()  # a run of seconds prints nothing
    now += 6.0
    assert display.due()
    display.show(1, 2, 0.0, None, 1.0, 0.5, 1.0)
    assert not display.due()
    now += 16.0
    assert display.due()


def test_nothing_is_ever_due_when_switched_off(capsys):
    display = ProgressDisplay(False)
    display.start()
    assert not display.due()
    display.stop()
    assert capsys.readouterr().err == ""


def test_terminal_gets_a_bar_with_the_same_text(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    display = ProgressDisplay(True)
    display.start()
    assert display.due()
    display.show(30, 40, 0.5, 1.0, 10.0, 0.75, 1.0)
    assert not display.due()
    assert display.due(ending=True)
    display.stop()
    assert "step 30/40  loss 0.5  clipped 100%  10 steps/s  0:01 left" in terminal.getvalue()
    assert "━" in terminal.getvalue()


def test_loop_shows_a_bar_to_its_end(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    train(PointTask(), TrainingSettings(steps=12, clip_limit=0.01))
    assert "step 12/12" in terminal.getvalue()
    assert "clipped 100%" in terminal.getvalue()
