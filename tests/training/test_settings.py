from __future__ import annotations

import pytest

from recurra.errors import ConfigError
from recurra.training.settings import TrainingSettings, common_values


def test_defaults_are_valid_and_frozen():
    settings = TrainingSettings(steps=10)
    assert settings.betas == (0.9, 0.98)
    with pytest.raises(ValueError, match="frozen"):
        settings.steps = 20  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"learning_rat": 1e-3},
            "unknown training setting 'learning_rat'; did you mean 'learning_rate'",
        ),
        ({"steps": 0}, r"steps=0: expected greater than or equal to 1"),
        ({"learning_rate": float("nan")}, r"learning_rate=nan: expected a finite number"),
        ({"schedule": "cosin"}, r"schedule='cosin': expected 'cooldown', 'cosine' or 'one_cycle'"),
        ({"steps": 5, "minutes": 2}, "steps=5 and minutes=2 are both given"),
        (
            {"minutes": 2, "schedule": "cosine"},
            "schedule='cosine' needs to know the number of steps",
        ),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) must both lie in \[0, 1\)"),
        ({"clip": "zscor"}, "clip='zscor': expected 'norm', 'value', 'adaptive' or 'zscore'"),
        ({"clip_limit": 0}, "clip_limit=0: expected greater than 0"),
        ({"clip": None, "clip_limit": 2.0}, "clip_limit=2 has nothing to limit"),
        ({"clip_skip": ["head"]}, r"clip_skip=\('head',\) works with clip='adaptive' only"),
        ({"ema_decay": 1}, "ema_decay=1: expected less than 1"),
    ],
)
def test_wrong_setting_is_named_with_its_value_and_what_was_expected(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainingSettings(**values)


def test_a_late_mean_stands_in_for_the_moving_average():
    settings = TrainingSettings(steps=1, average_after=5)
    assert settings.ema_decay is None
    assert TrainingSettings(**settings.model_dump()) == settings
    with pytest.raises(ConfigError, match=r"average_after=5 and ema_decay=0.9 are two ways"):
        TrainingSettings(steps=1, average_after=5, ema_decay=0.9)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError, match=r"seed=-1.*log_every=0"):
        TrainingSettings(seed=-1, log_every=0)


def test_settings_without_an_end_are_refused_when_training_asks():
    with pytest.raises(ConfigError, match="neither steps nor minutes"):
        TrainingSettings().require_budget()
    TrainingSettings(minutes=1).require_budget()


@pytest.mark.parametrize(
    ("minutes", "steps", "length"),
    [(None, None, (10.0, None)), (3.0, None, (3.0, None)), (None, 7, (None, 7))],
)
def test_a_task_that_is_not_told_how_long_trains_ten_minutes(minutes, steps, length):
    given = TrainingSettings(minutes=minutes, steps=steps, seed=4, patience=6)
    made = TrainingSettings(**common_values(given))
    assert (made.minutes, made.steps) == length
    assert (made.seed, made.patience, made.device) == (4, 6, "auto")
