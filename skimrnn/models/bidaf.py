"""BiDAF: attention in both directions between a text and a question (Seo et al., ICLR 2017, Section 2)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn.data.questions import Padded
from skimrnn.layers import SkimLSTM
from skimrnn.models.reader import Reader, SpanLogits, match, run_recurrent, sequence_names

CHARACTER_SIZE, CHARACTER_WIDTH, CHARACTER_FILTERS = 16, 5, 100

MakeLayer = Callable[..., nn.LSTM | SkimLSTM]
"""Makes a bidirectional layer of hidden size d from the size of its inputs, its number of layers and the dropout."""


class BiDAF(Reader):
    """BiDAF; only the class of the layers that `make_layer` gives differs between it and Sk-BiDAF.

    In Sk-BiDAF every LSTM skims: the contextual one, which reads contexts and questions with the same weights, the two
    modelling layers and the output layer. `vectors` (V, E) are word vectors, which stay as they are, as in BiDAF;
    `spellings` (spellings, 16) the numbers of each word's characters.

    Differs from the paper: the output layer reads [G ; M ; m ; M * m], where m is the average of M weighted by the
    probabilities of the start, as the authors' code has it; the paper's text names M alone. Character vectors have 16
    values and words are cut after 16 characters, which the paper leaves open. Words without a vector have noise of
    their own in its place, where the authors' code gives them vectors that are trained. Skim-RNN's paper says that
    BiDAF's LSTMs skim, and not which: here all do.
    """

    spellings: Tensor

    def __init__(self, vectors: Tensor, spellings: Tensor, make_layer: MakeLayer, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(vectors.clone(), freeze=True, padding_idx=0)
        self.register_buffer("spellings", spellings.long(), persistent=False)
        width = vectors.shape[1] + CHARACTER_FILTERS
        self.characters = nn.Embedding(int(spellings.max()) + 1, CHARACTER_SIZE, padding_idx=0)
        self.convolution = nn.Conv1d(CHARACTER_SIZE, CHARACTER_FILTERS, CHARACTER_WIDTH)
        self.highway = nn.Sequential(Highway(width), Highway(width))
        self.dropout = nn.Dropout(dropout)
        self.contextual = make_layer(width, 1, 0.0)
        size = 2 * self.contextual.hidden_size
        self.context_weight = nn.Linear(size, 1, bias=False)  # The weight of the similarity, in three parts: h,
        self.question_weight = nn.Parameter(torch.zeros(size))  # u,
        self.match_weight = nn.Parameter(torch.full((size,), 1 / math.sqrt(size)))  # and h * u.
        self.modelling = make_layer(4 * size, 2, dropout)
        self.output = make_layer(7 * size, 1, 0.0)
        self.start = nn.Linear(5 * size, 1)
        self.end = nn.Linear(5 * size, 1)
        self.sequences = [
            *sequence_names("contextual", self.contextual),
            *sequence_names("modelling", self.modelling),
            *sequence_names("output", self.output),
        ]
        self.question_sequences = sequence_names("question", self.contextual)

    def forward(self, questions: Padded, contexts: Padded) -> SpanLogits:
        """Read B contexts, each for its question."""
        question, question_decisions = run_recurrent(self.contextual, self.embed(questions), questions.lengths)
        context, contextual = run_recurrent(self.contextual, self.embed(contexts), contexts.lengths)  # (T, B, 2D)
        real = (torch.arange(len(context))[:, None] < contexts.lengths).to(context.device)  # (T, B)
        attended = self.attend(context, question, real, questions.lengths)  # (T, B, 8D)
        model, modelling = run_recurrent(self.modelling, self.dropout(attended), contexts.lengths)  # (T, B, 2D)
        start = self.start(self.dropout(torch.cat([attended, model], dim=2)))[..., 0]  # (T, B)
        start = start.masked_fill(~real, -math.inf)
        summary = average(start, model).expand_as(model)  # (T, B, 2D)
        inputs = torch.cat([attended, model, summary, model * summary], dim=2)  # (T, B, 14D)
        last, output = run_recurrent(self.output, self.dropout(inputs), contexts.lengths)  # (T, B, 2D)
        end = self.end(self.dropout(torch.cat([attended, last], dim=2)))[..., 0].masked_fill(~real, -math.inf)
        if contextual is None or modelling is None or output is None:
            return SpanLogits(start.t(), end.t())
        parts = [contextual, modelling, output]
        decisions = contextual._replace(
            log_probabilities=torch.cat([part.log_probabilities for part in parts]),
            read=torch.cat([part.read for part in parts]),
        )
        return SpanLogits(start.t(), end.t(), decisions, question_decisions)

    def embed(self, texts: Padded) -> Tensor:
        """Each word's vector and characters, through the highway layers: (T, B, E + filters), from B texts.

        A spelling that comes again is filtered once, which saves most of the time of the convolution.
        """
        words = self.embedding(texts.tokens.t())  # (T, B, E)
        distinct, places = texts.spellings.t().unique(return_inverse=True)  # (S), (T, B)
        characters = self.dropout(self.characters(self.spellings[distinct]))  # (S, 16, C)
        filtered = self.convolution(characters.transpose(1, 2).contiguous()).amax(dim=2)  # (S, filters)
        inputs = torch.cat([words, functional.relu(filtered)[places]], dim=2)
        outputs: Tensor = self.dropout(self.highway(inputs))
        return outputs

    def attend(self, context: Tensor, question: Tensor, real: Tensor, question_lengths: Tensor) -> Tensor:
        """G (T, B, 8D) from H (T, B, 2D) and U (J, B, 2D): [h ; u~ ; h * u~ ; h * h~], Eqs. 1 to 4."""
        by_text, question = context.transpose(0, 1), question.transpose(0, 1)  # (B, T, 2D), (B, J, 2D)
        similarity = match(by_text, question, self.match_weight, self.question_weight, question_lengths)  # (B, T, J)
        similarity = similarity + self.context_weight(by_text)
        to_question = (similarity.softmax(dim=2) @ question).transpose(0, 1)  # (T, B, 2D)
        best = similarity.amax(dim=2).t().masked_fill(~real, -math.inf)  # (T, B)
        to_context = average(best, context)  # (1, B, 2D)
        return torch.cat([context, to_question, context * to_question, context * to_context], dim=2)


class Highway(nn.Module):
    """A layer that lets part of its inputs (..., E) pass as they are (Srivastava et al., 2015)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.transform = nn.Linear(size, size)
        self.gate = nn.Linear(size, size)

    def forward(self, inputs: Tensor) -> Tensor:
        """The gated mixture of the inputs and of what the layer makes of them."""
        return torch.lerp(inputs, functional.relu(self.transform(inputs)), torch.sigmoid(self.gate(inputs)))


def average(logits: Tensor, values: Tensor) -> Tensor:
    """The average (1, B, X) over T of values (T, B, X) under the softmax of logits (T, B; -inf leaves a place out)."""
    weights = logits.softmax(dim=0)  # (T, B)
    return (weights.t()[:, None] @ values.transpose(0, 1)).transpose(0, 1)
