"""The record of a run: one JSON file from which every table and figure is made."""

from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from skimrnn.config import RunConfig, SkimLSTMConfig
from skimrnn.data.prepare import Prepared
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_tensors, write_json
from skimrnn.kernels import KERNEL
from skimrnn.measures.flops import FlopReduction, flop_reduction
from skimrnn.provenance import Environment
from skimrnn.training.evaluate import Scores, evaluate
from skimrnn.training.train import build_classifier

_Model = TypeVar("_Model", bound=BaseModel)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitRecord(_Closed):
    """One split as it was prepared."""

    rows: int
    tokens: int
    mean_length: float
    vector_coverage: float
    sha256: str


class ReleaseSplit(_Closed):
    """One split as the source gave it, beside the rows of the official release."""

    rows: int
    official_rows: int
    sha256: str


class VectorsRecord(_Closed):
    """The word vectors that the embedding started from; `words` of the vocabulary have one."""

    source: str
    settings: dict[str, str | int]
    dimension: int
    words: int
    sha256: str


class DataRecord(_Closed):
    """What the run was trained and tested on."""

    source: str
    revision: str | None
    complete: bool
    release: dict[str, ReleaseSplit]
    splits: dict[str, SplitRecord]
    vocabulary_size: int
    vectors: VectorsRecord
    digest: str


class Validation(_Closed):
    """One validation during training."""

    step: int
    temperature: float
    training_loss: float
    validation: Scores


class TrainingRecord(_Closed):
    """How training went."""

    steps: int
    best_step: int
    stopped: Literal["patience", "max_steps"]
    history: list[Validation]
    environment: Environment


class Record(_Closed):
    """One run: what it was given, how it was trained, and what it scored on the test split (read once, at the end).

    Equal inputs give equal bytes, so times are kept apart, in `<seed>.timing.json` beside the record.
    """

    schema_version: Literal[1] = 1
    config: RunConfig
    data: DataRecord
    training: TrainingRecord
    test: Scores
    flop_reduction: FlopReduction
    kernel: Literal["cpu", "reference"]


class Timing(_Closed):
    """What a run cost, resumed parts included."""

    wall_seconds: float
    peak_memory_mib: int


def write_record(run: RunConfig, prepared: Prepared, folder: Path, path: Path) -> None:
    """Score the best weights in `folder` on the test split and write the record to `path`.

    The times of training go to `<seed>.timing.json` beside it.
    """
    classes = prepared.manifest["classes"]
    model = build_classifier(run.model, torch.zeros_like(prepared.vectors()), len(classes), cloze=prepared.cloze)
    weights, _ = read_tensors(folder / "weights.safetensors")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder}: the weights are of another model or vocabulary: train again") from error
    scores = evaluate(model, prepared.split("test"))
    if isinstance(run.model, SkimLSTMConfig):
        reduction = flop_reduction(scores.skim_rate, run.model.hidden_size, run.model.small_size)
    else:
        reduction = FlopReduction(published_convention=1.0, exact_count=1.0)
    data = {key: prepared.manifest[key] for key in DataRecord.model_fields}
    record = Record(
        config=run,
        data=DataRecord.model_validate(data),
        training=TrainingRecord.model_validate(read_json(folder / "training.json")),
        test=scores,
        flop_reduction=reduction,
        kernel=KERNEL,
    )
    timing = Timing.model_validate(read_json(folder / "timing.json"))
    write_json(path.with_suffix(".timing.json"), timing.model_dump())
    write_json(path, record.model_dump(mode="json"))


def read_record(path: Path) -> Record:
    """Read and check a record; a malformed one is a `UserError`."""
    return _checked(Record, read_json(path), path)


def read_timing(record_path: Path) -> Timing:
    """Read the times beside a record."""
    path = record_path.with_suffix(".timing.json")
    return _checked(Timing, read_json(path), path)


def _checked(model: type[_Model], values: Any, path: Path) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UserError(f"{path}: not a record of this version ({key}: {first['msg']}): make it again") from error
