"""Options that the commands of every task share, and how they become settings."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recurra.errors import ConfigError
from recurra.runs import explained

TRAINING = "training"


def split_names(text: str | None) -> tuple[str, ...]:
    """Column names out of 'units,price'. Raises: ConfigError for an empty name."""
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ConfigError(f"{text!r} has an empty name; expected column names with commas between.")
    return names


def merge_settings(
    config: Path | None, explicit: Mapping[str, Any], assignments: Sequence[str]
) -> dict[str, Any]:
    """Settings from a file, over them the options given, over these `--set key=value`.

    `training.KEY` is a setting of the training loop, and `training` a table of them, over those
    from before. Options that are None were not given.
    Raises: ConfigError for a file or assignment that cannot be read.
    """
    settings = {} if config is None else read_config(config)
    settings |= {key: value for key, value in explicit.items() if value is not None}
    training = _table(settings.get(TRAINING, {}))
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r}; expected key=value, as in --set dropout=0.2.")
        section, dot, name = key.strip().partition(".")
        if section != TRAINING:
            settings[key.strip()] = _value(value)
        elif dot:
            training[name] = _value(value)
        else:
            training |= _table(_value(value))
    return {**settings, TRAINING: training} if training else settings


def _table(training: Any) -> dict[str, Any]:
    if not isinstance(training, Mapping):
        raise ConfigError(f"the setting 'training' is {training!r}; expected a table of settings.")
    return dict(training)


def read_config(path: Path) -> dict[str, Any]:
    """Settings from a .toml or .json file.

    Raises: ConfigError for another ending or content, RunError when it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".json"):
        raise ConfigError(f"--config {path}: expected a file ending in .toml or .json.")
    with explained(path, "read"):
        text = path.read_bytes()
    try:
        value = tomllib.loads(text.decode()) if suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--config {path} holds a {type(value).__name__}; expected a table.")
    return value


def _value(text: str) -> Any:
    """A JSON value where the text is one, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()
