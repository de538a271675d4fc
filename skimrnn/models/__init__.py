"""The models of the paper, built from layers."""

from skimrnn.models.classifier import Classification, Classifier
from skimrnn.models.cloze import ClozeReader

__all__ = ["Classification", "Classifier", "ClozeReader"]
