"""Neural Speed Reading via Skim-RNN: layers, and the pipeline that reproduces the paper."""

from skimrnn.layers import Decisions, SkimGRU, SkimLSTM

__all__ = ["Decisions", "SkimGRU", "SkimLSTM"]
__version__ = "0.1.0"
