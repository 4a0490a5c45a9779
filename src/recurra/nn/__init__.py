"""Recurrent layers that people compose, with torch.nn's arguments, returns and weights."""

from __future__ import annotations

from recurra.nn.cell_layers import GRUCell as GRUCell
from recurra.nn.cell_layers import LSTMCell as LSTMCell
from recurra.nn.cell_layers import RNNCell as RNNCell
from recurra.nn.gru import GRU as GRU
from recurra.nn.ind_rnn import IndRNN as IndRNN
from recurra.nn.lem import LEM as LEM
from recurra.nn.linear import Linear as Linear
from recurra.nn.lru import LRU as LRU
from recurra.nn.lstm import LSTM as LSTM
from recurra.nn.min_gru import MinGRU as MinGRU
from recurra.nn.min_lstm import MinLSTM as MinLSTM
from recurra.nn.mlstm import MLSTM as MLSTM
from recurra.nn.rg_lru import RGLRU as RGLRU
from recurra.nn.rnn import RNN as RNN
from recurra.nn.slstm import SLSTM as SLSTM
from recurra.nn.stack import Stack as Stack
from recurra.nn.stack import StackStream as StackStream
from recurra.nn.stream import Stream as Stream

__all__ = [
    "GRU",
    "LEM",
    "LRU",
    "LSTM",
    "MLSTM",
    "RGLRU",
    "RNN",
    "SLSTM",
    "GRUCell",
    "IndRNN",
    "LSTMCell",
    "Linear",
    "MinGRU",
    "MinLSTM",
    "RNNCell",
    "Stack",
    "StackStream",
    "Stream",
]
