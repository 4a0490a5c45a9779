"""Settings out of the arguments of a call, and written as such."""

from __future__ import annotations

import pytest

from recurra.checked import CheckedSettings
from recurra.errors import ConfigError


class Settings(CheckedSettings):
    about = "toy"
    cell: str = "gru"
    steps: int | None = None


def test_arguments_that_are_no_settings_stay_aside() -> None:
    assert Settings.out_of({"self": None, "steps": 5, "cell": "rnn"}) == Settings(
        cell="rnn", steps=5
    )


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(ConfigError, match="toy setting steps='many': expected a valid integer"):
        Settings.out_of({"steps": "many", "cell": "gru"})


def test_what_has_its_default_is_not_written() -> None:
    assert Settings(cell="rnn", steps=5).written() == "cell='rnn', steps=5"
    assert Settings(cell="gru").written() == ""
