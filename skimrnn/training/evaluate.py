"""What a classifier (or a cloze reader) scores on a split, with hard decisions."""

import torch
from torch import Tensor
from torch.nn import functional

from skimrnn.data.batches import evaluation_batches
from skimrnn.data.prepare import Split
from skimrnn.files import Closed
from skimrnn.models import Classifier, ClozeReader

_BATCH_SIZE = 128


class Scores(Closed):
    """Scores on one split. Rates are shares (0 to 1); `skim_rate` is over real tokens."""

    examples: int
    tokens: int
    accuracy: float
    loss: float
    skim_rate: float


@torch.no_grad()
def evaluate(model: Classifier | ClozeReader, split: Split) -> Scores:
    """Score `model` on every text of `split`; the loss is the mean cross-entropy of the task alone."""
    model.eval()
    device = model.output.weight.device
    correct, skimmed, loss = 0.0, 0, 0.0
    for batch in (batch.to(device) for batch in evaluation_batches(split, _BATCH_SIZE)):
        logits, decisions = model(*batch.inputs)
        correct += float(credit(logits, batch.labels).sum())
        loss += float(functional.cross_entropy(logits.double(), batch.labels, reduction="sum"))
        if decisions is not None:
            skimmed += int(batch.lengths.sum()) - int(decisions.read.sum())
    tokens = len(split.tokens)
    return Scores(
        examples=len(split),
        tokens=tokens,
        accuracy=correct / len(split),
        loss=loss / len(split),
        skim_rate=skimmed / tokens,
    )


def credit(logits: Tensor, labels: Tensor) -> Tensor:
    """How far each of the answers (B) that the logits (B, classes) give is right: 1, 0 or a share of 1, as float64.

    Answers that share the highest score share the credit: cloze candidates that training never saw are all one word.
    """
    best = (logits == logits.amax(dim=1, keepdim=True)).double()  # (B, classes)
    return best.gather(1, labels[:, None])[:, 0] / best.sum(dim=1)
