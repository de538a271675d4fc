"""Sp of readers: how much faster a trained one that skims reads real contexts than its standard counterpart."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from skimrnn.benchmarks.speedup import WHOLE, ModelSpeed, Speed, time_models
from skimrnn.benchmarks.timing import time_together
from skimrnn.config import ModelConfig, ReaderConfig, SkimReaderConfig
from skimrnn.data.batches import evaluation_rows
from skimrnn.data.prepare import Prepared
from skimrnn.data.questions import SCORED_SPLIT, QuestionBatch, collate_questions, read_questions
from skimrnn.errors import UserError
from skimrnn.files import read_tensors
from skimrnn.models import Reader
from skimrnn.training.reading import build_reader


@torch.no_grad()
def measure_reader_speed(
    prepared: Prepared,
    models: Mapping[str, ModelConfig],
    weights: dict[str, dict[int, Path]],
    tokens: int,
    rounds: int,
) -> Speed:
    """Time every trained reader of `weights` (files by model and seed) on contexts of some `tokens` tokens.

    The standard reader beside it has the weights of its big cells: its time does not depend on them. All that turns
    words into the logits of a span counts; making the batches and cutting out the answers does not.
    """
    batches = _sample(prepared, tokens)
    texts = sum(len(batch.contexts.lengths) for batch in batches)

    def time_reader(name: str, path: Path) -> ModelSpeed:
        return _time_reader(models[name], prepared, path, batches, rounds)

    return time_models(prepared, weights, texts, _tokens(batches), time_reader)


def _sample(prepared: Prepared, tokens: int) -> list[QuestionBatch]:
    """Batches as evaluation makes them, in an order that is always the same, until they have `tokens` tokens.

    The last one is cut short.
    """
    split = read_questions(prepared, SCORED_SPLIT)
    batches = list(evaluation_rows(split.lengths.numpy()))
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(0))
    sample: list[QuestionBatch] = []
    for index in order.tolist():
        if (missing := tokens - _tokens(sample)) <= 0:
            break
        rows = batches[index]
        before = split.lengths[rows].cumsum(0) - split.lengths[rows]
        sample.append(collate_questions(split, rows[: int((before < missing).sum())]))
    return sample


def _tokens(batches: list[QuestionBatch]) -> int:
    return sum(int(batch.contexts.lengths.sum()) for batch in batches)


def _time_reader(
    config: ModelConfig, prepared: Prepared, path: Path, batches: list[QuestionBatch], rounds: int
) -> ModelSpeed:
    assert isinstance(config, SkimReaderConfig)
    skim, lstm = (_reader(part, prepared, path) for part in (config, config.standard))

    def reads(reader: Reader) -> Callable[[], object]:
        return lambda: [reader(batch.questions, batch.contexts) for batch in batches]

    timings = time_together({"lstm": reads(lstm), "skim": reads(skim)}, rounds, warm_up=1)
    decisions = [skim(batch.questions, batch.contexts).decisions for batch in batches]
    read = sum(int(decision.read.sum()) for decision in decisions if decision is not None)
    return ModelSpeed(
        skim_rate=1 - read / (len(skim.sequences) * _tokens(batches)),
        lstm={WHOLE: timings["lstm"]},
        skim={WHOLE: timings["skim"]},
    )


def _reader(config: ReaderConfig, prepared: Prepared, path: Path) -> Reader:
    """A reader with the weights that it shares with the trained one."""
    tensors, _ = read_tensors(path)
    reader = build_reader(config, prepared.vectors(), prepared.spellings())
    try:
        reader.load_state_dict({name: tensors[name] for name in reader.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights of the model that the config names: train it again") from error
    return reader.eval()
