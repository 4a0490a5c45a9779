"""Recording: layers run in pieces of time, so that the states between pieces can be looked at.

A fused backend computes all steps of a call at once and shows no state but the last one. While
`recording()` is active, every recurrent layer runs each call in up to PIECES pieces, one after
another: the state that one hands to the next is a tensor of the graph, whose gradient can be asked
for. The first piece is one step, because the gradient of any later loss comes back to the state
after it; so are the last ones, where a gradient that vanishes does so. Outputs and gradients of
weights are those of the plain call up to rounding, for every cell and backend, at about its cost.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recurra.cells.cell import State
from recurra.kernels import dispatch
from recurra.kernels.sequence import Sequence, cut_time, piece_of

PIECES = 64
# Steps at the end of a longer call that are pieces of their own: a gradient vanishes there first.
LAST_STEPS = 8


@dataclass(frozen=True, eq=False)
class Piece:
    """Steps begin to end of a call: the state before them, their outputs, the state after them.

    output is in the layout of the call's x. No entry shares a node of the graph with another one,
    so the gradient of `final` is what comes from later pieces alone.
    """

    begin: int
    end: int
    start: State
    output: Tensor
    final: State

    def last(self, reverse: bool) -> int:
        """The step that is processed last, which `final` is the state after."""
        return self.begin if reverse else self.end - 1

    def first(self, reverse: bool) -> int:
        """The step that is processed first, which `start` is the state before."""
        return self.end - 1 if reverse else self.begin


@dataclass(frozen=True, eq=False)
class Call:
    """One direction of one layer of `module`, run once; pieces are in the order of processing."""

    module: nn.Module
    layer: int
    sequence: Sequence
    pieces: tuple[Piece, ...]


class Recorder:
    """Runs the calls of layers in pieces, and keeps them in `calls`, in order."""

    def __init__(self, weights: bool = True, pieces: int = PIECES) -> None:
        self.calls: list[Call] = []
        self._weights = weights
        self._pieces = pieces

    def run(
        self, module: nn.Module, layer: int, calls: SequenceOf[Sequence], backend: str
    ) -> tuple[Tensor, list[State]]:
        """As `dispatch.run_together`: the directions of one layer over the same x."""
        if calls[0].time == 0:
            return dispatch.run_together(calls, backend)
        outputs, finals = [], []
        for sequence in calls if self._weights else map(_without_weights, calls):
            pieces = _run_pieces(sequence, backend, self._pieces)
            self.calls.append(Call(module, layer, sequence, tuple(pieces)))
            finals.append(pieces[-1].final)
            over_time = sorted(pieces, key=lambda piece: piece.begin)
            outputs.append(torch.cat([piece.output for piece in over_time], sequence.time_axis))
        return torch.cat(outputs, -1), finals


_ACTIVE: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recording(weights: bool = True, pieces: int = PIECES) -> Iterator[Recorder]:
    """Context in which recurrent layers run in pieces and leave them with the recorder.

    weights=False leaves the layers' weights out of the graph, where states are all that is asked
    for: the way back is cheaper then. A call is cut into `pieces` at most; fewer cost less.

    The way back belongs inside as well, where a model recomputes parts of itself on it. Compiled
    models are not seen: they run what was compiled.

    >>> from recurra import nn
    >>> from recurra.kernels.recording import recording
    >>> layer = nn.GRU(3, 5)
    >>> with recording() as recorder:
    ...     output, h_n = layer(torch.randn(7, 2, 3))
    >>> [(piece.begin, piece.end) for piece in recorder.calls[0].pieces][:3]
    [(0, 1), (1, 2), (2, 3)]
    """
    recorder = Recorder(weights, pieces)
    token = _ACTIVE.set(recorder)
    try:
        yield recorder
    finally:
        _ACTIVE.reset(token)


def active() -> Recorder | None:
    """The recorder of the innermost `recording()`; None outside, and where a graph is compiled."""
    return None if torch.compiler.is_compiling() else _ACTIVE.get()


def _without_weights(sequence: Sequence) -> Sequence:
    params = {name: value.detach() for name, value in sequence.params.items()}
    return sequence._replace(params=params)


def _run_pieces(sequence: Sequence, backend: str, most: int) -> list[Piece]:
    state = sequence.state
    if state is None:
        state = sequence.cell.initial_state(sequence.batch, sequence.params)
    make_state = sequence.cell.make_state
    if torch.is_grad_enabled():
        # Gradients of states exist then, also where neither x nor the weights want any.
        state = make_state(*(p if p.requires_grad else p.detach().requires_grad_() for p in state))
    pieces = []
    for begin, end in _bounds(sequence.time, sequence.reverse, most):
        output, final = dispatch.run(piece_of(sequence, begin, end, state), backend)
        # Views are nodes of their own: some backends hand out h as the last output as well.
        final = make_state(*(part.view_as(part) for part in final))
        pieces.append(Piece(begin, end, state, output, final))
        state = final
    return pieces


def _bounds(time: int, reverse: bool, most: int = PIECES) -> list[tuple[int, int]]:
    """(begin, end) of each piece, in the order of processing; the first and the last are one step.

    >>> _bounds(129, False)[:3], _bounds(129, True)[:3]
    ([(0, 1), (1, 3), (3, 5)], [(128, 129), (126, 128), (124, 126)])
    >>> _bounds(129, False)[-9:-6]
    [(118, 121), (121, 122), (122, 123)]
    """
    if time <= most:
        return cut_time(time, time, reverse)
    between = time - 1 - LAST_STEPS
    middle = cut_time(between, most - 1 - LAST_STEPS, False)
    ends = [1, *(1 + end for _, end in middle), *range(time - LAST_STEPS + 1, time + 1)]
    found = list(itertools.pairwise([0, *ends]))
    return [(time - end, time - begin) for begin, end in found] if reverse else found
