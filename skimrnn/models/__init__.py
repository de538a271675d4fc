"""The models of the paper, built from layers."""

from skimrnn.models.classifier import Classification, Classifier

__all__ = ["Classification", "Classifier"]
