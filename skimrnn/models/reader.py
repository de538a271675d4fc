"""LSTM+Att, which answers a question by a span of a text: attention, recurrent layers, start and end (Section 4.2)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skimrnn.data.questions import Padded
from skimrnn.layers import Decisions, SkimLSTM
from skimrnn.layers.plain_lstm import padded_lstm

MAX_SPAN = 15
"""Tokens of the longest answer that joint decoding gives."""


class SpanLogits(NamedTuple):
    """What a reader says of a batch; -inf past the end of a context."""

    start: Tensor  # (B, T)
    end: Tensor  # (B, T)
    decisions: Decisions | None  # None for the standard LSTM, which reads every token


class Reader(nn.Module):
    """LSTM+Att; only the class of `layer` (bidirectional, on 3 E inputs) differs between it and Sk-LSTM+Att.

    Each word x_t of the context attends to the words of the question, and u_t is their weighted average. The layers
    read [x_t ; u_t ; x_t * u_t]; a linear layer each on the last one's outputs gives the logits of start and end. The
    word vectors (V, E) are the start of an embedding that is trained with the rest; row 0 is padding.

    Differs from the paper: it names an attention and not its form. Here the weight of question word q_j at x_t is the
    softmax over j of w.q_j + v.(x_t * q_j): BiDAF's similarity, whose term in x_t alone the softmax cancels.
    """

    def __init__(self, vectors: Tensor, layer: nn.LSTM | SkimLSTM, dropout: float = 0.0) -> None:
        super().__init__()
        size = vectors.shape[1]
        self.embedding = nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.question_weight = nn.Parameter(torch.zeros(size))  # w
        self.match_weight = nn.Parameter(torch.full((size,), 1 / math.sqrt(size)))  # v: a scaled dot product at first
        self.layer = layer
        self.output = nn.Linear(2 * layer.hidden_size, 2)

    def forward(self, questions: Padded, contexts: Padded) -> SpanLogits:
        """Read B contexts, each for its question."""
        question = self.dropout(self.embedding(questions.tokens))  # (B, J, E)
        context = self.dropout(self.embedding(contexts.tokens))  # (B, T, E)
        scores = (context * self.match_weight + self.question_weight) @ question.transpose(1, 2)  # (B, T, J)
        beyond = torch.arange(question.shape[1]) >= questions.lengths[:, None]  # (B, J)
        summary = scores.masked_fill(beyond[:, None], -math.inf).softmax(dim=2) @ question  # (B, T, E)
        inputs = torch.cat([context, summary, context * summary], dim=2).transpose(0, 1)  # (T, B, 3E)
        outputs, decisions = run_recurrent(self.layer, inputs, contexts.lengths)
        beyond = torch.arange(len(inputs))[:, None] >= contexts.lengths  # (T, B)
        logits = self.output(outputs).masked_fill(beyond[..., None], -math.inf)  # (T, B, 2)
        start, end = logits.permute(2, 1, 0).unbind()
        return SpanLogits(start, end, decisions)


def run_recurrent(layer: nn.LSTM | SkimLSTM, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Decisions | None]:
    """Run a layer over a padded batch (T, B, E) of `lengths` (B): outputs (T, B, directions * D) and any decisions."""
    if isinstance(layer, SkimLSTM):
        packed = pack_padded_sequence(inputs, lengths, enforce_sorted=False)
        outputs, _, decisions = layer(packed, return_decisions=True)
        return pad_packed_sequence(outputs, total_length=len(inputs))[0], decisions
    return padded_lstm(layer, inputs, lengths), None


def decode_jointly(start: Tensor, end: Tensor, limit: int = MAX_SPAN) -> tuple[Tensor, Tensor]:
    """The first and last token (B, each) of the likeliest span of at most `limit` tokens, from the logits (B, T)."""
    steps = start.shape[1]
    best = torch.full((len(start),), -math.inf)
    first, last = torch.zeros(len(start), dtype=torch.int64), torch.zeros(len(start), dtype=torch.int64)
    for width in range(min(limit, steps)):
        score, place = (start[:, : steps - width] + end[:, width:]).max(dim=1)
        better = score > best
        best = torch.where(better, score, best)
        first, last = torch.where(better, place, first), torch.where(better, place + width, last)
    return first, last


def decode_independently(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest first and the likeliest last token (B, each), which may be crossed."""
    return start.argmax(dim=1), end.argmax(dim=1)
