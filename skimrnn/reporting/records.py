"""The records of one scale, checked against its config and grouped by dataset and model."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from skimrnn.analysis.artefact import Analysis, read_analysis
from skimrnn.benchmarks.speedup import Speed
from skimrnn.config import Config, first_difference
from skimrnn.data.registry import Task
from skimrnn.errors import UserError
from skimrnn.files import read_model
from skimrnn.training.record import ReadingRecord, Record, read_reading_record, read_record

AnyRecord = TypeVar("AnyRecord", Record, ReadingRecord)
"""What a run of one task leaves behind."""

_TOLERANCE = 1e-4  # Of a mean of packed scores.


@dataclass(frozen=True)
class Measured:
    """One quantity over seeds, at least one; `seeds` names them where they are known."""

    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """The sample standard deviation (n - 1); None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Run(Generic[AnyRecord]):
    """A record and the file it was read from."""

    path: Path
    record: AnyRecord


@dataclass(frozen=True)
class Results(Generic[AnyRecord]):
    """What was run of the part of a config that is about one task.

    `runs` has no key for a dataset and model without records; `speeds` holds the measured speed-ups of the datasets
    that have some, of the runs that have a record.
    """

    config: Config
    runs: dict[tuple[str, str], tuple[Run[AnyRecord], ...]]
    speeds: dict[str, Speed]

    @property
    def synthetic(self) -> bool:
        """Whether the corpora are the package's own stand-ins for the real datasets."""
        return self.config.data.source == "embedded"

    def of_model(self, dataset: str, model: str) -> tuple[Run[AnyRecord], ...]:
        """The runs of one model on one dataset, in the order of the config's seeds."""
        return self.runs.get((dataset, model), ())

    def of_dataset(self, dataset: str) -> list[Run[AnyRecord]]:
        """The runs of every model on one dataset."""
        return [run for model in self.config.models for run in self.of_model(dataset, model)]

    def measured(self, dataset: str, model: str, value: Callable[[AnyRecord], float]) -> Measured | None:
        """`value` of each record of one model on one dataset; None where nothing was run."""
        runs = self.of_model(dataset, model)
        seeds = tuple(run.record.config.seed for run in runs)
        return Measured(tuple(value(run.record) for run in runs), seeds) if runs else None

    def speedup(self, dataset: str, model: str, way: str) -> Measured | None:
        """Sp of one model over the seeds that it was timed with, in one way of `skimrnn.benchmarks.speedup`."""
        speed = self.speeds.get(dataset)
        timed = speed.models.get(model, {}) if speed else {}
        known = {seed: value for seed in sorted(timed) if (value := timed[seed].speedup(way)) is not None}
        return Measured(tuple(known.values()), tuple(known)) if known else None

    @cached_property
    def analyses(self) -> dict[tuple[str, str, int], Analysis]:
        """The analyses that lie beside the records, by dataset, model and seed; read when they are first asked for.

        One of another config, of other data or of other weights than its record's is a `UserError`.
        """
        return {
            (run.record.config.dataset, run.record.config.model_name, run.record.config.seed): analysis
            for runs in self.runs.values()
            for run in runs
            if (analysis := analysis_of(run.path, run.record)) is not None
        }

    def analysed(self, dataset: str, model: str) -> list[Analysis]:
        """The analyses of one model on one dataset, in the order of the config's seeds."""
        known = ((dataset, model, seed) for seed in self.config.seeds_of(dataset))
        return [self.analyses[key] for key in known if key in self.analyses]

    def missing_seeds(self, dataset: str, model: str) -> list[int]:
        """The seeds of the config that were not run."""
        run_seeds = {run.record.config.seed for run in self.of_model(dataset, model)}
        return [seed for seed in self.config.seeds_of(dataset) if seed not in run_seeds]


def training_kernel(record: Record | ReadingRecord) -> str:
    """The kernel that a run was trained with; where its record does not say, that it was scored with."""
    return (record.training.environment.kernel or record.kernel).partition(" ")[0]


def read_task_results(config: Config, task: Task, folder: Path, *, speeds: bool = True) -> Results[Any]:
    """Read the records of one task: see `read_reading_results`."""
    read: dict[Task, Callable[..., Results[Any]]] = {
        "classification": read_results,
        "question_answering": read_reading_results,
    }
    return read[task](config, folder, speeds=speeds)


def read_results(config: Config, folder: Path, *, speeds: bool = True) -> Results[Record]:
    """Read the records of text classification: see `read_reading_results`."""
    return _read(config.for_task("classification"), folder, read_record, speeds)


def read_reading_results(config: Config, folder: Path, *, speeds: bool = True) -> Results[ReadingRecord]:
    """Read the records of question answering and, where `speeds` are wanted, the speed-ups beside them.

    They are read from `folder/<scale>/<dataset>/<model>/<seed>.json` over the grid of the config; absent records are
    not run.

    A malformed record, one that lies at another run's path or was made with another config, and records that may not
    stand in one table because their data differ, are a `UserError`. So are speed-ups measured on other data.
    """
    return _read(config.for_task("question_answering"), folder, read_reading_record, speeds)


def _read(config: Config, folder: Path, read: Callable[[Path], AnyRecord], with_speeds: bool) -> Results[AnyRecord]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of results: check the path, or train first")
    runs = {}
    for dataset in config.datasets:
        for model in config.models_of(dataset):
            found = [
                Run(path, _read_checked(path, config, read, dataset, model, seed))
                for seed in config.seeds_of(dataset)
                if (path := folder / config.scale / dataset / model / f"{seed}.json").exists()
            ]
            if found:
                runs[dataset, model] = tuple(found)
    results, speeds = Results(config, runs, {}), {}
    for dataset in config.datasets:
        own = results.of_dataset(dataset)
        _require_equal_data(own)
        path = folder / config.scale / dataset / "speed.json"
        if own and with_speeds and path.exists():
            speed = read_model(path, Speed)
            if speed.data_digest != own[0].record.data.digest:
                raise UserError(f"{path}: measured on other data than {own[0].path}: measure it again")
            speeds[dataset] = _of_recorded(speed, own)
    return replace(results, speeds=speeds)


def _of_recorded(speed: Speed, runs: Sequence[Run[AnyRecord]]) -> Speed:
    """The speed-ups of the models and seeds that have a record."""
    recorded = {(run.record.config.model_name, run.record.config.seed) for run in runs}
    models = {
        model: {seed: value for seed, value in timed.items() if (model, seed) in recorded}
        for model, timed in speed.models.items()
    }
    return speed.model_copy(update={"models": {model: timed for model, timed in models.items() if timed}})


def _read_checked(
    path: Path, config: Config, read: Callable[[Path], AnyRecord], dataset: str, model: str, seed: int
) -> AnyRecord:
    record = read(path)
    expected = config.run(dataset, model, seed)
    for key in ("scale", "dataset", "model_name", "seed"):
        if (found := getattr(record.config, key)) != (wanted := getattr(expected, key)):
            raise UserError(f"{path}: this record is of {key} {found}, its path says {wanted}: move it to its place")
    if difference := first_difference(record.config, expected):
        raise UserError(
            f"{path}: made with another config than the one given ({difference}): make it again, or give its config"
        )
    if (record.data.source == "embedded") != (config.data.source == "embedded"):
        raise UserError(
            f"{path}: trained on data from {record.data.source}, the config says {config.data.source}: "
            "synthetic and real corpora never mix: make it again, or give its config"
        )
    return record


def _require_equal_data(runs: Sequence[Run[AnyRecord]]) -> None:
    """Refuse runs that were not trained and tested on the first one's data, word vectors included."""
    for other in runs[1:]:
        if difference := first_difference(runs[0].record.data, other.record.data):
            raise UserError(
                f"{runs[0].path} and {other.path} differ in their data ({difference}): "
                "they may not stand in one table: make one of them again, or move it away"
            )


def analysis_of(place: Path, record: Any) -> Analysis | None:
    """The analysis beside the record that lies at `place`; one of other data or other weights is a `UserError`."""
    path = place.with_suffix(".analysis.json")
    if not path.exists():
        return None
    analysis = read_analysis(path)
    if analysis.config != record.config or analysis.data_digest != record.data.digest:
        raise UserError(f"{path}: of another config or of other data than {place.name} beside it: analyse the run")
    for name, packed in analysis.outcomes.items():
        if abs(float(packed.unpack().mean()) - getattr(record.test, name)) > _TOLERANCE:
            raise UserError(f"{path}: of other weights than {place.name} beside it ({name}): analyse the run")
    return analysis
