"""What a recurrence is: one file each, pure torch, no loop over time."""

from __future__ import annotations

from recurra.cells.cell import Cell as Cell
from recurra.cells.cell import Masks as Masks
from recurra.cells.elman import Elman as Elman
from recurra.cells.elman import ElmanState as ElmanState
from recurra.cells.gru import GRU as GRU
from recurra.cells.gru import GRUState as GRUState
from recurra.cells.ind_rnn import IndRNN as IndRNN
from recurra.cells.ind_rnn import IndRNNState as IndRNNState
from recurra.cells.lem import LEM as LEM
from recurra.cells.lem import LEMState as LEMState
from recurra.cells.linear import LinearCell as LinearCell
from recurra.cells.linear import LinearState as LinearState
from recurra.cells.lru import LRU as LRU
from recurra.cells.lstm import LSTM as LSTM
from recurra.cells.lstm import LSTMState as LSTMState
from recurra.cells.min_gru import MinGRU as MinGRU
from recurra.cells.min_lstm import MinLSTM as MinLSTM
from recurra.cells.mlstm import MLSTM as MLSTM
from recurra.cells.mlstm import MLSTMState as MLSTMState
from recurra.cells.rg_lru import RGLRU as RGLRU
from recurra.cells.slstm import SLSTM as SLSTM
from recurra.cells.slstm import SLSTMState as SLSTMState

__all__ = [
    "GRU",
    "LEM",
    "LRU",
    "LSTM",
    "MLSTM",
    "RGLRU",
    "SLSTM",
    "Cell",
    "Elman",
    "ElmanState",
    "GRUState",
    "IndRNN",
    "IndRNNState",
    "LEMState",
    "LSTMState",
    "LinearCell",
    "LinearState",
    "MLSTMState",
    "Masks",
    "MinGRU",
    "MinLSTM",
    "SLSTMState",
]
