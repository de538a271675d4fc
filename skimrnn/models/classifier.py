"""Text classifier: word vectors, one recurrent layer, a linear layer on the last state (Section 4.1)."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from skimrnn.layers import Decisions, SkimLSTM


class Classification(NamedTuple):
    """What the classifier says of a batch."""

    logits: Tensor  # (B, classes)
    decisions: Decisions | None  # None for the standard LSTM, which reads every token


class Classifier(nn.Module):
    """Word vectors feed `layer`; its state after the last real token feeds a linear layer.

    Only the class of `layer` differs between the standard and the skimming classifier. The word vectors (V, E) are
    the start of an embedding that is trained with the rest; row 0 is padding.
    """

    def __init__(self, vectors: Tensor, layer: nn.LSTM | SkimLSTM, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=0)
        self.layer = layer
        self.output = nn.Linear(layer.hidden_size, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Classification:
        """Classify `tokens` (B, T; padded) of `lengths` (B, on the CPU)."""
        embedded = pack_padded_sequence(self.embedding(tokens.t()), lengths, enforce_sorted=False)
        decisions = None
        if isinstance(self.layer, SkimLSTM):
            _, (hidden, _), decisions = self.layer(embedded, return_decisions=True)
        else:
            _, (hidden, _) = self.layer(embedded)
        return Classification(self.output(hidden[0]), decisions)
