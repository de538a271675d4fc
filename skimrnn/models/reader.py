"""What all readers share: they answer a question by a span of a text (Section 4.2)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skimrnn.data.questions import Padded
from skimrnn.layers import Decisions, SkimLSTM
from skimrnn.layers.plain_lstm import padded_lstm

MAX_SPAN = 15
"""Tokens of the longest answer that joint decoding gives."""


class SpanLogits(NamedTuple):
    """What a reader says of a batch; -inf past the end of a context.

    The decisions are None where every token is read. Their rows are named by the reader's `sequences`.
    """

    start: Tensor  # (B, T)
    end: Tensor  # (B, T)
    decisions: Decisions | None = None  # about the contexts
    question_decisions: Decisions | None = None  # about the questions, where these are read by a skimming layer, too

    def skim_loss(self) -> Tensor | None:
        """The mean over all sequences of the skim term of the loss; None where every token is read."""
        parts = [part for part in (self.decisions, self.question_decisions) if part is not None]
        if not parts:
            return None
        total = sum((part.skim_loss() * len(part.read) for part in parts), start=torch.zeros(()))
        return total / sum(len(part.read) for part in parts)


class Reader(nn.Module):
    """Base of the readers.

    A sequence is one layer in one direction: `sequences` names those that run over the contexts, in the order of the
    decisions, `question_sequences` those that run over the questions.
    """

    sequences: list[str]
    question_sequences: list[str]

    def forward(self, questions: Padded, contexts: Padded) -> SpanLogits:
        """Read B contexts, each for its question."""
        raise NotImplementedError


def sequence_names(name: str, layer: nn.LSTM | SkimLSTM) -> list[str]:
    """The names of the layers and directions of `layer`, in the order of h_n: `name 1 forward` and so on."""
    numbers = [f" {number}" for number in range(1, layer.num_layers + 1)] if layer.num_layers > 1 else [""]
    directions = (" forward", " backward") if layer.bidirectional else ("",)
    return [name + number + direction for number in numbers for direction in directions]


def run_recurrent(layer: nn.LSTM | SkimLSTM, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Decisions | None]:
    """Run a layer over a padded batch (T, B, E) of `lengths` (B): outputs (T, B, directions * D) and any decisions."""
    if isinstance(layer, SkimLSTM):
        outputs, _, decisions = layer.run_padded(inputs, lengths)
        return outputs, decisions
    return padded_lstm(layer, inputs, lengths)[0], None


def match(queries: Tensor, keys: Tensor, match_weight: Tensor, key_weight: Tensor, key_lengths: Tensor) -> Tensor:
    """How well the words of questions of `key_lengths` (B) match those of contexts: (B, T, J), -inf past a question.

    Vectors q of `queries` (B, T, X) and k of `keys` (B, J, X) match by m.(q * k) + w.k, with the weights m and w (X).
    """
    beyond = (torch.arange(keys.shape[1]) >= key_lengths[:, None]).to(keys.device)  # (B, J)
    scores = (queries * match_weight + key_weight) @ keys.transpose(1, 2)
    return scores.masked_fill(beyond[:, None], -math.inf)


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
