"""LSTM+Att: attention to the question, recurrent layers, start and end (Section 4.2)."""

import math

import torch
from torch import Tensor, nn

from skimrnn.data.questions import Padded
from skimrnn.layers import SkimLSTM
from skimrnn.models.reader import Reader, SpanLogits, match, run_recurrent, sequence_names


class LSTMAtt(Reader):
    """LSTM+Att; only the class of `layer` (bidirectional, on 3 E inputs) differs between it and Sk-LSTM+Att.

    Each word x_t of the context attends to the words of the question, and u_t is their weighted average. The layers
    read [x_t ; u_t ; x_t * u_t]; a linear layer each on the last one's outputs gives the logits of start and end. The
    word vectors (V, E) stay as they are, like BiDAF's; row 0 is padding. Dropout acts on what the layers read, after
    the attention, which finds a word of the question by its whole vector.

    Differs from the paper: it names an attention and not its form. Here the weight of question word q_j at x_t is the
    softmax over j of w.r(q_j) + v.(r(x_t) * r(q_j)) with r(z) = ReLU(P z + b): BiDAF's similarity, whose term in x_t
    alone the softmax cancels, between words that a learned layer brings closer where vectors of their own cannot move.
    Words without a vector have noise of their own in its place, which stays as it is, too.
    """

    def __init__(self, vectors: Tensor, layer: nn.LSTM | SkimLSTM, dropout: float = 0.0) -> None:
        super().__init__()
        size = vectors.shape[1]
        self.embedding = nn.Embedding.from_pretrained(vectors.clone(), freeze=True, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(size, size)  # P and b: the vectors as they are at first
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.question_weight = nn.Parameter(torch.zeros(size))  # w
        self.match_weight = nn.Parameter(torch.full((size,), 1 / math.sqrt(size)))  # v: a scaled dot product at first
        self.layer = layer
        self.output = nn.Linear(2 * layer.hidden_size, 2)
        self.sequences, self.question_sequences = sequence_names("layer", layer), []

    def forward(self, questions: Padded, contexts: Padded) -> SpanLogits:
        """Read B contexts, each for its question."""
        inputs = self.inputs(questions, contexts)
        outputs, decisions = run_recurrent(self.layer, inputs, contexts.lengths)
        beyond = (torch.arange(len(inputs))[:, None] >= contexts.lengths).to(inputs.device)  # (T, B)
        logits = self.output(outputs).masked_fill(beyond[..., None], -math.inf)  # (T, B, 2)
        start, end = logits.permute(2, 1, 0).unbind()
        return SpanLogits(start, end, decisions)

    def inputs(self, questions: Padded, contexts: Padded) -> Tensor:
        """[x_t ; u_t ; x_t * u_t] (T, B, 3E): what the layers read."""
        question = self.embedding(questions.tokens)  # (B, J, E)
        context = self.embedding(contexts.tokens)  # (B, T, E)
        queries, keys = self.projection(context).relu(), self.projection(question).relu()
        scores = match(queries, keys, self.match_weight, self.question_weight, questions.lengths)  # (B, T, J)
        summary = scores.softmax(dim=2) @ question  # (B, T, E)
        inputs: Tensor = self.dropout(torch.cat([context, summary, context * summary], dim=2))
        # Transposed as a whole, to the order that the layers read: three parts would each be copied out of order.
        return inputs.transpose(0, 1)
