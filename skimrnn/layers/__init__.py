"""Recurrent layers with `torch.nn.LSTM`'s interface."""

from skimrnn.layers.skim_lstm import Decisions, SkimLSTM

__all__ = ["Decisions", "SkimLSTM"]
