"""The record of a run: one JSON file from which every table and figure is made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Literal, NamedTuple, Self, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from skimrnn.config import (
    BiDAFConfig,
    LSTMAttConfig,
    LSTMConfig,
    ReaderConfig,
    RunConfig,
    SkimLSTMConfig,
    first_difference,
)
from skimrnn.data.prepare import Prepared
from skimrnn.data.questions import SCORED_SPLIT, Questions, read_questions, read_scoring
from skimrnn.data.registry import Alignment
from skimrnn.device import CPU
from skimrnn.errors import UserError
from skimrnn.files import Closed, read_json, read_model, read_tensors, write_json, write_tensors
from skimrnn.kernels import kernel_on
from skimrnn.measures.flops import FlopReduction, Operations, flop_reduction, reader_operations
from skimrnn.models import BiDAF, Classifier, ClozeReader, Reader
from skimrnn.provenance import Environment
from skimrnn.training.checkpoint import progress_of, run_digest
from skimrnn.training.classification import build_classifier
from skimrnn.training.evaluate import Scores, evaluate
from skimrnn.training.reading import ReadingScores, answer_questions, build_reader

AnyScores = TypeVar("AnyScores", Scores, ReadingScores)
"""What a run of one task scores."""


class SplitRecord(Closed):
    """One split as it was prepared."""

    rows: int
    tokens: int
    mean_length: float
    vector_coverage: float
    sha256: str


class ReleaseSplit(Closed):
    """One split as the source gave it, beside the rows of the official release."""

    rows: int
    official_rows: int
    sha256: str


class VectorsRecord(Closed):
    """The word vectors that the embedding started from; `words` of the vocabulary have one."""

    source: str
    settings: dict[str, str | int]
    dimension: int
    words: int
    sha256: str


class DataRecord(Closed):
    """What the run was trained and tested on."""

    source: str
    revision: str | None
    complete: bool
    release: dict[str, ReleaseSplit]
    splits: Mapping[str, SplitRecord]
    vocabulary_size: int
    vectors: VectorsRecord
    digest: str

    @classmethod
    def of(cls, prepared: Prepared) -> Self:
        """What the manifest says of it."""
        return cls.model_validate({key: prepared.manifest[key] for key in cls.model_fields})


class QuestionSplitRecord(SplitRecord):
    """One split of questions as it was prepared: how many, the tokens of their contexts, how answers were aligned."""

    alignment: dict[Alignment, int]


class QuestionDataRecord(DataRecord):
    """What a reader was trained and tested on."""

    splits: Mapping[str, QuestionSplitRecord]
    alphabet_size: int


class Validation(Closed, Generic[AnyScores]):
    """One validation during training."""

    step: int
    temperature: float
    training_loss: float
    validation: AnyScores


class _Training(Closed, Generic[AnyScores]):
    """What the records of both tasks say of the training."""

    steps: int
    best_step: int
    stopped: Literal["patience", "max_steps", "unfinished"]
    history: list[Validation[AnyScores]]
    environment: Environment


class TrainingRecord(_Training[Scores]):
    """How the training of a classifier went."""

    stopped: Literal["patience", "max_steps"]


class ReadingTrainingRecord(_Training[ReadingScores]):
    """How the training of a reader went, or has gone so far."""


class _Run(Closed, Generic[AnyScores]):
    """What the records of both tasks hold.

    Equal inputs give equal bytes, so times are kept apart, in `<seed>.timing.json` beside the record.
    """

    schema_version: Literal[1] = 1
    config: RunConfig
    data: DataRecord
    training: _Training[AnyScores]
    test: AnyScores
    flop_reduction: FlopReduction
    kernel: Literal["cpu", "reference", "triton"]


class Record(_Run[Scores]):
    """One run: what it was given, how it was trained, and what it scored on the test split (read once, at the end)."""

    training: TrainingRecord


class ReadingRecord(_Run[ReadingScores]):
    """One run of a reader.

    `test` is about the development set, on which the best weights were chosen, too: SQuAD's test set is not public, and
    the paper did the same. `flop_reduction` is that of the whole model, beside the standard one of d = 100: LSTM+Att of
    two layers, or BiDAF.
    """

    data: QuestionDataRecord
    training: ReadingTrainingRecord
    operations: Operations


class Timing(Closed):
    """What a run cost, resumed parts included; of a run in a pack the time is the whole pack's, while it was in it.

    The memory is the most that the process ever had: where it trained several runs, those before may have needed it.
    """

    wall_seconds: float
    peak_memory_mib: int


def is_recorded(run: RunConfig, path: Path) -> bool:
    """Whether the record of a run is there, and the run was finished; one of another config is a `UserError`."""
    if not path.exists():
        return False
    values = read_json(path)
    try:
        settings = RunConfig.model_validate(values["config"])
        finished = bool(values["training"]["stopped"] != "unfinished")
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(
            f"{path}: no record of a run, or of another version: delete it, or name another scale"
        ) from error
    if difference := first_difference(settings, run):
        raise UserError(
            f"{path}: made with another config than the one given ({difference}): "
            "give that one, name another scale, or delete such records"
        )
    return finished


def write_record(run: RunConfig, prepared: Prepared, folder: Path, path: Path, *, device: torch.device = CPU) -> None:
    """Score the best weights in `folder` on the test split and write the record to `path`.

    The times of training go to `<seed>.timing.json` beside it.
    """
    course = read_json(folder / "training.json")
    if isinstance(course, dict) and course.get("stopped") == "unfinished":
        raise UserError(f"{folder}: the run is not finished: train on")
    scores = evaluate(load_classifier(run, prepared, folder).to(device), prepared.split("test"))
    if isinstance(run.model, SkimLSTMConfig):
        reduction = flop_reduction(scores.skim_rate, run.model.hidden_size, run.model.small_size)
    else:
        reduction = FlopReduction(published_convention=1.0, exact_count=1.0)
    record = Record(
        config=run,
        data=DataRecord.of(prepared),
        training=read_model(folder / "training.json", TrainingRecord),
        test=scores,
        flop_reduction=reduction,
        kernel=kernel_on(device),
    )
    timing = read_model(folder / "timing.json", Timing)
    write_json(path.with_suffix(".timing.json"), timing.model_dump())
    write_json(path, record.model_dump(mode="json"))


def load_classifier(run: RunConfig, prepared: Prepared, folder: Path) -> Classifier | ClozeReader:
    """The trained classifier (or cloze reader) of a run's folder."""
    assert isinstance(run.model, LSTMConfig | SkimLSTMConfig)
    classes = prepared.manifest["classes"]
    model = build_classifier(run.model, torch.zeros_like(prepared.vectors()), len(classes), cloze=prepared.cloze)
    _load(model, weights_of(run, prepared, weights_file(folder))[0], folder)
    return model


class TrainedReader(NamedTuple):
    """A reader, how its training went or has gone so far, and what that cost."""

    model: Reader
    course: ReadingTrainingRecord
    timing: Timing


def load_reader(run: RunConfig, prepared: Prepared, folder: Path, *, unfinished: bool = False) -> TrainedReader:
    """The trained reader of a run's folder; with `unfinished` the best so far, all of it from one checkpoint."""
    assert isinstance(run.model, ReaderConfig)
    course = read_model(folder / "training.json", ReadingTrainingRecord)
    if unfinished != (course.stopped == "unfinished"):
        state = "is finished: leave --unfinished out" if unfinished else "is not finished: train on, or --unfinished"
        raise UserError(f"{folder}: the run {state}")
    model = build_reader(run.model, torch.zeros_like(prepared.vectors()), prepared.spellings())
    weights, metadata = weights_of(run, prepared, weights_file(folder, unfinished=unfinished))
    if unfinished:  # Training may go on meanwhile, and write its files anew.
        weights = {name.removeprefix("best."): tensor for name, tensor in weights.items() if name.startswith("best.")}
        progress = progress_of(metadata)
        course = ReadingTrainingRecord.model_validate(progress.course("unfinished"))
        timing = Timing.model_validate(progress.timing)
    else:
        timing = read_model(folder / "timing.json", Timing)
    _load(model, weights, folder)
    return TrainedReader(model, course, timing)


def weights_file(folder: Path, *, unfinished: bool = False) -> Path:
    """Where a run keeps its best weights."""
    return folder / ("checkpoint.safetensors" if unfinished else "weights.safetensors")


def weights_of(run: RunConfig, prepared: Prepared, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata at `path`; a `UserError` where they are not of this config and data."""
    weights, metadata = read_tensors(path)
    if "run" not in metadata:
        raise UserError(f"{path}: does not say which run it is of, as earlier versions' did not: train the run again")
    if metadata["run"] != run_digest(run, prepared):
        raise UserError(f"{path}: of another config or other data: train the run again, or give what it was made with")
    return weights, metadata


def _load(model: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder}: the weights are of another model or vocabulary: train again") from error


def write_reading_record(
    run: RunConfig,
    prepared: Prepared,
    folder: Path,
    path: Path,
    *,
    unfinished: bool = False,
    device: torch.device = CPU,
) -> None:
    """Answer the development set with the best weights in `folder` and write the record to `path`.

    The answers go to `<seed>.predictions.json` beside it, in the official form (the answer of each question by its
    id), and the decisions about every token to `decisions.safetensors` in `folder`: `read` (the reader's sequences,
    tokens of the questions' contexts end to end) and `lengths` (N); its metadata name the sequences. With `unfinished`
    the weights are the best so far, from the checkpoint.
    """
    reader, course, timing = load_reader(run, prepared, folder, unfinished=unfinished)
    model = reader.to(device)
    split = read_questions(prepared, SCORED_SPLIT)
    answers = answer_questions(model, split, read_scoring(prepared), keep_decisions=True)
    if answers.read is not None:
        write_tensors(
            folder / "decisions.safetensors",
            {"read": answers.read, "lengths": split.lengths},
            {"sequences": json.dumps(model.sequences)},
        )
    operations, reduction = reading_operations(model, split, answers.scores.layer_skim_rates, prepared)
    record = ReadingRecord(
        config=run,
        data=QuestionDataRecord.of(prepared),
        training=course,
        test=answers.scores,
        operations=operations,
        flop_reduction=reduction,
        kernel=kernel_on(device),
    )
    write_json(path.with_suffix(".predictions.json"), answers.predictions)
    write_json(path.with_suffix(".timing.json"), timing.model_dump())
    write_json(path, record.model_dump(mode="json"))


def reading_operations(
    model: Reader, split: Questions, skim_rates: Mapping[str, float], prepared: Prepared
) -> tuple[Operations, FlopReduction]:
    """Float operations of a reader on a split at its skim rates, and Flop-r.

    That is beside the standard model of d = 100: LSTM+Att of two layers, or BiDAF.
    """

    def count(reader: Reader, published_convention: bool) -> Operations:
        return reader_operations(
            reader, split.question_lengths, split.lengths, skim_rates, published_convention=published_convention
        )

    standard: ReaderConfig = (
        BiDAFConfig(architecture="bidaf", hidden_size=100)
        if isinstance(model, BiDAF)
        else LSTMAttConfig(architecture="lstm_att", hidden_size=100)
    )
    reference = count(build_reader(standard, prepared.vectors(), prepared.spellings()), False).total
    operations = count(model, False)
    return operations, FlopReduction(
        published_convention=reference / count(model, True).total, exact_count=reference / operations.total
    )


def read_record(path: Path) -> Record:
    """Read and check a record; a malformed one is a `UserError`."""
    return read_model(path, Record)


def read_reading_record(path: Path) -> ReadingRecord:
    """Read and check the record of a reader; a malformed one is a `UserError`."""
    return read_model(path, ReadingRecord)


def read_timing(record_path: Path) -> Timing:
    """Read the times beside a record."""
    return read_model(record_path.with_suffix(".timing.json"), Timing)
