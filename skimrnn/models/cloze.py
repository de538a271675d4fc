"""Cloze reader: one recurrent layer over context and query, each candidate scored against its last state."""

import torch
from torch import Tensor, nn

from skimrnn.data.prepare import PADDING
from skimrnn.layers import SkimLSTM
from skimrnn.models.classifier import Classification, last_state


class ClozeReader(nn.Module):
    """Word vectors feed `layer`; a candidate's score is its word vector's product with the last state.

    A linear map brings the state to the word vectors' size. The word vectors (V, E) are the start of an embedding that
    is trained with the rest, and serve texts and candidates alike; row 0 is padding.
    """

    def __init__(self, vectors: Tensor, layer: nn.LSTM | SkimLSTM) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=0)
        self.layer = layer
        self.output = nn.Linear(layer.hidden_size, vectors.shape[1])

    def forward(self, tokens: Tensor, lengths: Tensor, candidates: Tensor) -> Classification:
        """Score the `candidates` (B, C; padded) for the blank of `tokens` (B, T; padded) of `lengths` (B, on the CPU).

        The logits are (B, C), minus infinity at padding.
        """
        state, decisions = last_state(self.layer, self.embedding(tokens.t()), lengths)
        return Classification(self.answer(state, candidates), decisions)

    def answer(self, state: Tensor, candidates: Tensor) -> Tensor:
        """The logits (B, C) of the candidates from the last states (B, D)."""
        vectors = self.embedding(candidates)  # (B, C, E)
        logits = torch.einsum("bce,be->bc", vectors, self.output(state))
        return logits.masked_fill(candidates == PADDING, -torch.inf)
