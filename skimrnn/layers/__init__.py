"""Recurrent layers with the interface of `torch.nn.LSTM` and `torch.nn.GRU`."""

from skimrnn.layers.skim_gru import SkimGRU
from skimrnn.layers.skim_lstm import SkimLSTM
from skimrnn.layers.skimming import Decisions

__all__ = ["Decisions", "SkimGRU", "SkimLSTM"]
