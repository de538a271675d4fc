"""The models of the paper, built from layers."""

from skimrnn.models.classifier import Classification, Classifier
from skimrnn.models.cloze import ClozeReader
from skimrnn.models.reader import Reader, SpanLogits

__all__ = ["Classification", "Classifier", "ClozeReader", "Reader", "SpanLogits"]
