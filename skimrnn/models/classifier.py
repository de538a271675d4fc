"""Text classifier: word vectors, one recurrent layer, a linear layer on the last state (Section 4.1)."""

from typing import NamedTuple

from torch import Tensor, nn

from skimrnn.layers import Decisions, SkimLSTM
from skimrnn.layers.plain_lstm import padded_lstm


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
        state, decisions = last_state(self.layer, self.embedding(tokens.t()), lengths)
        return Classification(self.answer(state), decisions)

    def answer(self, state: Tensor) -> Tensor:
        """The logits (B, classes) from the last states (B, D)."""
        logits: Tensor = self.output(state)
        return logits


def last_state(layer: nn.LSTM | SkimLSTM, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Decisions | None]:
    """The state (B, D) of `layer` after the last real token of `inputs` (T, B, E), and its decisions."""
    if isinstance(layer, SkimLSTM):
        _, (hidden, _), decisions = layer.run_padded(inputs, lengths)
        return hidden[0], decisions
    return padded_lstm(layer, inputs, lengths)[1], None
