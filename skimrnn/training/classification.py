"""Text classification as a task: the model that a config names, and its loss."""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from skimrnn.config import LSTMConfig, RunConfig, SkimLSTMConfig
from skimrnn.data.batches import Batch, collate
from skimrnn.data.prepare import Prepared
from skimrnn.layers import SkimLSTM
from skimrnn.models import Classifier
from skimrnn.training.evaluate import evaluate
from skimrnn.training.task import Task


def classification_task(run: RunConfig, prepared: Prepared) -> Task:
    """The task of a run."""
    config = run.model
    assert isinstance(config, LSTMConfig | SkimLSTMConfig)
    gamma = config.gamma if isinstance(config, SkimLSTMConfig) else 0.0
    train, validation = prepared.split("train"), prepared.split("validation")
    model = build_classifier(config, prepared.vectors(), len(prepared.manifest["classes"]))

    def loss(rows: np.ndarray) -> Tensor:
        return training_loss(model, collate(train, rows), gamma)

    return Task(model, train, loss, lambda: evaluate(model, validation), "accuracy")


def build_classifier(config: LSTMConfig | SkimLSTMConfig, vectors: Tensor, classes: int) -> Classifier:
    """A classifier as `config` says, on word vectors (V, E); weights come from torch's global random state."""
    layer: nn.LSTM | SkimLSTM
    if isinstance(config, SkimLSTMConfig):
        layer = SkimLSTM(vectors.shape[1], config.hidden_size, config.small_size)
    else:
        layer = nn.LSTM(vectors.shape[1], config.hidden_size)
    return Classifier(vectors, layer, classes)


def training_loss(model: Classifier, batch: Batch, gamma: float) -> Tensor:
    """Cross-entropy, plus gamma times the mean -log p(skim) where the model skims (L' of the paper)."""
    logits, decisions = model(batch.tokens, batch.lengths)
    loss = functional.cross_entropy(logits, batch.labels)
    if decisions is not None:
        loss = loss + gamma * decisions.skim_loss()
    return loss
