"""Question answering as a task: the reader that a config names, its loss, and what it scores."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn.config import BiDAFConfig, ReaderConfig, RunConfig, SkimBiDAFConfig, SkimReaderConfig
from skimrnn.data.prepare import Prepared
from skimrnn.data.questions import (
    SCORED_SPLIT,
    QuestionBatch,
    Questions,
    Scoring,
    collate_questions,
    evaluation_questions,
    read_questions,
    read_scoring,
)
from skimrnn.device import CPU
from skimrnn.errors import UserError
from skimrnn.files import Closed
from skimrnn.layers import Decisions, SkimLSTM
from skimrnn.measures.squad import score_answers
from skimrnn.models import BiDAF, LSTMAtt, Reader
from skimrnn.models.reader import decode_independently, decode_jointly
from skimrnn.training.task import Task


class ReadingScores(Closed):
    """Scores on the questions of one split. Rates are shares (0 to 1), skim rates over the real tokens of contexts.

    `f1` and `em` are those of the likeliest span of limited length, the `independent` ones those of the likeliest start
    and the likeliest end. `layer_skim_rates` holds one rate for each layer and direction, by its name; `skim_rate` is
    the mean of those that run over contexts.
    """

    examples: int
    tokens: int
    f1: float
    em: float
    independent_f1: float
    independent_em: float
    skim_rate: float
    layer_skim_rates: dict[str, float]


class Answers(NamedTuple):
    """What a reader says of a whole split."""

    scores: ReadingScores
    predictions: dict[str, str]  # by the id of the question, joint decoding
    read: Tensor | None  # (the reader's sequences, total tokens of the questions' contexts), bool


def reading_task(run: RunConfig, prepared: Prepared, device: torch.device = CPU) -> Task:
    """The task of a run on a device."""
    config = run.model
    assert isinstance(config, ReaderConfig)
    gamma = config.gamma if isinstance(config, SkimReaderConfig) else 0.0
    train = read_questions(prepared, "train").usable(run.context_limit)
    if len(train) == 0:
        raise UserError(
            f"{prepared.folder}: no question to train on has a context of at most {run.context_limit} tokens and an "
            "answer in it: raise context_limit"
        )
    validation, scoring = read_questions(prepared, SCORED_SPLIT), read_scoring(prepared)
    model = build_reader(config, prepared.vectors(), prepared.spellings()).to(device)

    def loss(rows: np.ndarray) -> Tensor:
        return reading_loss(model, collate_questions(train, rows).to(device), gamma)

    def validate(reader: nn.Module) -> ReadingScores:
        assert isinstance(reader, Reader)
        return answer_questions(reader, validation, scoring).scores

    return Task(model, train, loss, validate, "f1", config.ema_decay)


def build_reader(config: ReaderConfig, vectors: Tensor, spellings: Tensor) -> Reader:
    """A reader as `config` says, on word vectors (V, E) and the characters of words (spellings, 16).

    Weights come from torch's global random state.
    """

    def layer(inputs: int, num_layers: int, dropout: float) -> nn.LSTM | SkimLSTM:
        options: dict[str, Any] = {"num_layers": num_layers, "dropout": dropout, "bidirectional": True}
        if isinstance(config, SkimReaderConfig):
            return SkimLSTM(inputs, config.hidden_size, small_size=config.small_size, **options)
        return nn.LSTM(inputs, config.hidden_size, **options)

    if isinstance(config, BiDAFConfig | SkimBiDAFConfig):
        return BiDAF(vectors, spellings, layer, config.dropout)
    dropout = config.dropout if config.num_layers > 1 else 0.0
    return LSTMAtt(vectors, layer(3 * vectors.shape[1], config.num_layers, dropout), config.dropout)


def reading_loss(model: Reader, batch: QuestionBatch, gamma: float) -> Tensor:
    """Cross-entropies of start and end, plus gamma times the mean -log p(skim) where the model skims."""
    logits = model(batch.questions, batch.contexts)
    loss = functional.cross_entropy(logits.start, batch.first) + functional.cross_entropy(logits.end, batch.last)
    skim_loss = logits.skim_loss()
    return loss if skim_loss is None else loss + gamma * skim_loss


@torch.no_grad()
def answer_questions(model: Reader, split: Questions, scoring: Scoring, keep_decisions: bool = False) -> Answers:
    """Answer every question of the scored split, with hard decisions, contexts of any length, and score the answers."""
    model.eval()
    device = next(model.parameters()).device
    joint, independent = [""] * len(split), [""] * len(split)
    read_tokens: dict[str, int] = {}
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), split.lengths.cumsum(0)])
    tokens, question_tokens = int(offsets[-1]), int(split.question_lengths.sum())
    kept: Tensor | None = None
    for rows, batch in evaluation_questions(split):
        on_device = batch.to(device)
        logits = model(on_device.questions, on_device.contexts)
        for answers, decode in ((joint, decode_jointly), (independent, decode_independently)):
            first, last = decode(logits.start.cpu(), logits.end.cpu())
            for row, a, b in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
                answers[row] = scoring.cut(split, row, a, b)
        _count_read(read_tokens, model.sequences, logits.decisions)
        _count_read(read_tokens, model.question_sequences, logits.question_decisions)
        if keep_decisions and logits.decisions is not None:
            read = logits.decisions.read.cpu()
            if kept is None:
                kept = torch.zeros(len(read), tokens, dtype=torch.bool)
            for place, row in enumerate(rows.tolist()):
                kept[:, offsets[row] : offsets[row + 1]] = read[:, : batch.contexts.lengths[place], place]
    rates = {
        name: 1 - count / (tokens if name in model.sequences else question_tokens)
        for name, count in read_tokens.items()
    }
    f1, em = score_answers(joint, scoring.answers)
    independent_f1, independent_em = score_answers(independent, scoring.answers)
    scores = ReadingScores(
        examples=len(split),
        tokens=tokens,
        f1=f1,
        em=em,
        independent_f1=independent_f1,
        independent_em=independent_em,
        skim_rate=sum(rates[name] for name in model.sequences) / len(model.sequences) if rates else 0.0,
        layer_skim_rates=rates,
    )
    return Answers(scores, dict(zip(scoring.ids, joint, strict=True)), kept)


def _count_read(counts: dict[str, int], names: list[str], decisions: Decisions | None) -> None:
    """Add the tokens that each of the named sequences read."""
    if decisions is not None:
        for name, count in zip(names, decisions.read.sum(dim=(1, 2)).tolist(), strict=True):
            counts[name] = counts.get(name, 0) + count
