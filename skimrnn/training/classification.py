"""Text classification, and the choice among candidates, as a task: the model that a config names, and its loss."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn.config import LSTMConfig, RunConfig, SkimLSTMConfig
from skimrnn.data.batches import Batch, collate
from skimrnn.data.prepare import Prepared
from skimrnn.device import CPU
from skimrnn.layers import SkimLSTM
from skimrnn.models import Classifier, ClozeReader
from skimrnn.training.evaluate import Scores, evaluate
from skimrnn.training.task import Task


def classification_task(run: RunConfig, prepared: Prepared, device: torch.device = CPU) -> Task:
    """The task of a run on a device."""
    config = run.model
    assert isinstance(config, LSTMConfig | SkimLSTMConfig)
    gamma = config.gamma if isinstance(config, SkimLSTMConfig) else 0.0
    train, validation = prepared.split("train"), prepared.split("validation")
    model = build_classifier(config, prepared.vectors(), len(prepared.manifest["classes"]), cloze=prepared.cloze)
    model.to(device)

    def batch(rows: np.ndarray) -> Batch:
        return collate(train, rows)

    def loss(rows: np.ndarray) -> Tensor:
        return training_loss(model, batch(rows).to(device), gamma)

    def validate(classifier: nn.Module) -> Scores:
        assert isinstance(classifier, Classifier | ClozeReader)
        return evaluate(classifier, validation)

    return Task(model, train, loss, validate, "accuracy", batch=batch, gamma=gamma)


def build_classifier(
    config: LSTMConfig | SkimLSTMConfig, vectors: Tensor, classes: int, *, cloze: bool = False
) -> Classifier | ClozeReader:
    """A classifier as `config` says, on word vectors (V, E); weights come from torch's global random state.

    With `cloze` the classes are candidates that come with each text.
    """
    layer: nn.LSTM | SkimLSTM
    if isinstance(config, SkimLSTMConfig):
        layer = SkimLSTM(vectors.shape[1], config.hidden_size, small_size=config.small_size)
    else:
        layer = nn.LSTM(vectors.shape[1], config.hidden_size)
    return ClozeReader(vectors, layer) if cloze else Classifier(vectors, layer, classes)


def training_loss(model: Classifier | ClozeReader, batch: Batch, gamma: float) -> Tensor:
    """Cross-entropy, plus gamma times the mean -log p(skim) where the model skims (L' of the paper)."""
    logits, decisions = model(*batch.inputs)
    loss = functional.cross_entropy(logits, batch.labels)
    if decisions is not None:
        loss = loss + gamma * decisions.skim_loss()
    return loss
