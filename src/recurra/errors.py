"""Every error that recurra raises on purpose.

    RecurraError
    ├── ShapeError (ValueError)            a tensor of the wrong shape, dtype or device
    ├── ArgumentError (TypeError)          an object of the wrong kind, or a keyword there is not
    ├── ConfigError (ValueError)           a setting that is unknown, out of range or contradictory
    ├── DataError (ValueError)             a table, file or row that cannot be used
    ├── NotFittedError (RuntimeError)      predict, evaluate or save before fit
    ├── BackendError (RuntimeError)        a backend asked for by name that cannot run the call
    ├── DivergenceError (ArithmeticError)  training met a loss that is NaN or infinite
    ├── RunError (OSError)                 a run folder that is damaged, unwritable or already there
    ├── StoreError (OSError)               states kept: damaged, foreign, or of another model
    ├── BrokerError (OSError)              a message broker that cannot be reached, or refuses
    └── MissingExtraError (ImportError)    an optional package that is not installed

A message says what was wrong, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LISTED = 20
"""Valid names that a message lists; more are counted."""


class RecurraError(Exception):
    """Base of all errors raised on purpose; the command line prints it and exits with 1."""


class ShapeError(RecurraError, ValueError):
    """A tensor has the wrong shape, dtype or device."""


class ArgumentError(RecurraError, TypeError):
    """An object is of another kind than the call takes, or a keyword does not exist."""


class ConfigError(RecurraError, ValueError):
    """A setting is unknown, out of range or contradicts another; the command line exits with 2."""


class DataError(RecurraError, ValueError):
    """A table, file or row cannot be used as it is."""


class NotFittedError(RecurraError, RuntimeError):
    """A method that needs a trained model was called before `fit` or `load`."""


class BackendError(RecurraError, RuntimeError):
    """A backend was asked for by name and cannot run this call."""


class DivergenceError(RecurraError, ArithmeticError):
    """The training loss became NaN or infinite."""


class RunError(RecurraError, OSError):
    """A run folder is damaged, unwritable, or holds something that would be overwritten."""


class StoreError(RecurraError, OSError):
    """A store or snapshot of stream states is damaged, foreign, in use or of another model."""


class BrokerError(RecurraError, OSError):
    """A message broker cannot be reached, or refuses the user or the topic."""


class MissingExtraError(RecurraError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'recurra[{extra}]'"
        )


def unknown(kind: str, name: object, valid: Iterable[str], listed: int | None = LISTED) -> str:
    """Message for a name that is not in a list: the name, the nearest one, `listed` valid ones.

    >>> unknown("cell", "grru", ["rnn", "lstm", "gru"])
    "unknown cell 'grru'; did you mean 'gru'? Valid: 'gru', 'lstm', 'rnn'."
    """
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    shown = names[:listed]
    text = ", ".join(map(repr, shown)) or "none"
    if len(names) > len(shown):
        text += f" and {len(names) - len(shown)} more"
    return f"unknown {kind} {name!r}{hint} Valid: {text}."


def not_fitted(model: object, fit: str) -> NotFittedError:
    """The error of a model that was asked for something before `fit`, a call of which is shown."""
    name = type(model).__name__
    return NotFittedError(
        f"this {name} has not been trained; call {fit} first, or {name}.load(folder)."
    )


def invalid_settings(kind: str, problems: Iterable[Any], valid: Iterable[str]) -> ConfigError:
    """One ConfigError out of the problems that pydantic lists, each with value and expectation."""
    names, parts = list(valid), []
    for problem in problems:
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            parts.append(unknown(f"{kind} setting", name, names))
            continue
        message = problem["msg"].removeprefix("Value error, ")
        if not name or isinstance(problem.get("ctx", {}).get("error"), RecurraError):
            parts.append(message.rstrip(".") + ".")  # a whole sentence, which names the value
        else:
            wanted = message.removeprefix("Input should be ")
            parts.append(f"{kind} setting {name}={problem['input']!r}: expected {wanted}.")
    return ConfigError(" ".join(parts))
