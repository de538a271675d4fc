"""What the training loop needs to know of a task: everything else about it is the task's own."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel
from torch import Tensor, nn

from skimrnn.data.batches import Batch, Lengths


@dataclass(frozen=True)
class Task:
    """A model, the texts that it is trained on, its loss, and what it is judged by."""

    model: nn.Module
    texts: Lengths
    loss: Callable[[np.ndarray], Tensor]
    """The loss on some rows of the texts."""
    validate: Callable[[nn.Module], BaseModel]
    """Scores of such a model on the validation split, with the field `skim_rate`."""
    measure: str
    """The field of the scores by which the best weights are chosen; a larger value is better."""
    ema_decay: float | None = None
    """Where it is set, the weights that are validated and kept are a moving average of those that are trained."""
    batch: Callable[[np.ndarray], Batch] | None = None
    """Some rows of the texts as a batch on the CPU, of a classifier (or cloze reader)."""
    gamma: float = 0.0
    """The weight of the skim term in the loss."""
