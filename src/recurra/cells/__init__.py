"""What a recurrence is: one file each, pure torch, no loop over time."""

from __future__ import annotations

from recurra.cells.cell import Cell as Cell
from recurra.cells.cell import Masks as Masks
from recurra.cells.elman import Elman as Elman
from recurra.cells.elman import ElmanState as ElmanState
from recurra.cells.gru import GRU as GRU
from recurra.cells.gru import GRUState as GRUState
from recurra.cells.lstm import LSTM as LSTM
from recurra.cells.lstm import LSTMState as LSTMState

__all__ = ["GRU", "LSTM", "Cell", "Elman", "ElmanState", "GRUState", "LSTMState", "Masks"]
