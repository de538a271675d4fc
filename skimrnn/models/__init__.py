"""The models of the paper, built from layers."""

from skimrnn.models.bidaf import BiDAF
from skimrnn.models.classifier import Classification, Classifier
from skimrnn.models.cloze import ClozeReader
from skimrnn.models.lstm_att import LSTMAtt
from skimrnn.models.reader import Reader, SpanLogits

__all__ = ["BiDAF", "Classification", "Classifier", "ClozeReader", "LSTMAtt", "Reader", "SpanLogits"]
