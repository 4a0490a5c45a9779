"""States of many streams side by side: arrays whose first axis is the lane.

A lane is one channel of one series. Every part of the detector keeps its memory in such arrays and
computes lanes apart: the numbers of a lane are the same, bit for bit, whoever is beside it. So a
table, a single stream and a batch of ten thousand keys give the same scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
State = dict[str, npt.NDArray[Any]]

PIECE = 64
"""Rows that are looked at together, at most; what they are answered does not depend on it."""


class Answer(NamedTuple):
    """What a head says of T rows, each (T, L): expected and interval are known before the row.

    detail is what the head wants to be told again when it looks at all channels of a series.
    """

    surprise: Array
    expected: Array
    lower: Array
    upper: Array
    detail: Array
    drifted: Flags


def first_lanes(state: Mapping[str, npt.NDArray[Any]], count: int) -> State:
    """Views of the first lanes: what is written to them is written to `state`."""
    return {name: values[:count] for name, values in state.items()}


def take_lanes(state: Mapping[str, npt.NDArray[Any]], lanes: Whole) -> State:
    """Copies of some lanes, in the order of `lanes`."""
    return {name: values[lanes] for name, values in state.items()}


def put_lanes(state: State, lanes: Whole | slice, values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write lanes back to where they were taken from."""
    for name, array in state.items():
        array[lanes] = values[name]


def join_lanes(states: list[State]) -> State:
    """One state out of several, their lanes one after another."""
    return {name: np.concatenate([one[name] for one in states]) for name in states[0]}


def join_rarest(surprise: Array) -> Array:
    """The largest of the channels (..., C), less log10 of their number; NaN without any."""
    if surprise.shape[-1] == 1:
        return np.asarray(surprise[..., 0])
    known = np.isfinite(surprise)
    largest = np.max(np.where(known, surprise, -np.inf), axis=-1)
    joined = np.maximum(largest - np.log10(np.maximum(known.sum(axis=-1), 1)), 0.0)
    return np.where(known.any(axis=-1), joined, np.nan)
