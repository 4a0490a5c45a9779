from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from recurra.training.interrupt import InterruptWatch


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_first_interrupt_is_noted_and_the_second_raises(capfd):
    with InterruptWatch() as watch:
        signal.raise_signal(signal.SIGINT)
        assert watch.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "press Ctrl-C again" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handler_of_an_application_is_left_alone():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with InterruptWatch() as watch:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
        assert not watch.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
