"""A fleet: runs of a config trained from prepared data on one device, which end in the records of the pipeline."""

import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from skimrnn.allocator import take_memory_in_large_blocks
from skimrnn.analysis.analyse import analyse
from skimrnn.config import Config, RunConfig
from skimrnn.data.prepare import Prepared, open_prepared
from skimrnn.data.stages import read_manifest
from skimrnn.errors import InUseError, UserError, is_lost_gpu, is_out_of_gpu_memory, machine_failure
from skimrnn.files import write_json
from skimrnn.kernels import runs_models_together
from skimrnn.training.progress import ProgressReporter
from skimrnn.training.record import is_recorded, write_reading_record, write_record
from skimrnn.training.together import Member, shape_of, train_together
from skimrnn.training.train import are_first_steps, train

_TOGETHER = 16
"""Most runs of one pack. A token takes some 7 KB of a GPU's memory at d = 100: 16 batches of 128 texts 34 GB where one
has 2,470 tokens, as IMDb's longest."""


@dataclass(frozen=True)
class Places:
    """Where things lie, as the workflow lays them out."""

    prepared: Path  # <dataset>/
    runs: Path  # <dataset>/<model>/<seed>/
    results: Path  # <scale>/<dataset>/<model>/<seed>.json
    tokens: Path  # <dataset>/

    def folder(self, run: RunConfig) -> Path:
        """The folder of a run."""
        return self.runs / run.dataset / run.model_name / str(run.seed)

    def record(self, run: RunConfig) -> Path:
        """The record of a run."""
        return self.results / run.scale / run.dataset / run.model_name / f"{run.seed}.json"

    def have_recorded(self, run: RunConfig) -> bool:
        """Whether a run is finished: see `is_recorded`."""
        return is_recorded(run, self.record(run))

    def data(self, run: RunConfig) -> Prepared:
        """The data of a run."""
        return open_prepared(self.prepared / run.dataset, run.dataset)


@dataclass(frozen=True)
class Job:
    """A run, or the first steps of one that other runs start from."""

    run: RunConfig
    start: Path | None = None
    until: int | None = None

    @property
    def title(self) -> str:
        """How the job is called in messages."""
        steps = f" to step {self.until}" if self.until else ""
        return f"{self.run.dataset} {self.run.model_name} {self.run.seed}{steps}"


@dataclass(frozen=True)
class Outcome:
    """How a fleet ended."""

    recorded: int
    left: int


def missing_runs(
    config: Config, places: Places, datasets: Iterable[str], models: Iterable[str], seeds: Iterable[int]
) -> list[RunConfig]:
    """The runs of a config (of some datasets, models and seeds; all where none is named) that are not finished.

    Of datasets that the config's source lacks there are none, unless they are named.
    """
    datasets, models, seeds = list(datasets), list(models), list(seeds)
    if unknown := [name for name in datasets if name not in config.datasets]:
        raise UserError(
            f"unknown dataset {', '.join(unknown)}: the {config.scale} config has {', '.join(config.datasets)}"
        )
    if unknown := [name for name in models if name not in config.models]:
        raise UserError(f"unknown model {', '.join(unknown)}: the {config.scale} config has {', '.join(config.models)}")
    runs = [
        config.run(dataset, model, seed)
        for dataset in datasets or config.available
        for model in config.models_of(dataset)
        for seed in config.seeds_of(dataset)
        if (not models or model in models) and (not seeds or seed in seeds)
    ]
    if not runs:
        raise UserError(f"the {config.scale} config has no run of these datasets, models and seeds: choose others")
    return [run for run in runs if not places.have_recorded(run)]


def run_fleet(
    config: Config,
    runs: Sequence[RunConfig],
    places: Places,
    device: torch.device,
    jobs: int = 1,
    deadline: float = math.inf,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Train runs and write their records, until `deadline` (of `time.monotonic`).

    Runs that can share launches of a kernel train as one batch of models; others one after another or, with `jobs`,
    in as many processes side by side. What is not finished at the deadline goes on when the fleet is started again.
    What another process trains is left to it: fleets may share a grid. A run that fails is told as a `UserError` when
    all others have had their turn.
    """
    for run in {run.dataset: run for run in runs}.values():
        places.data(run)  # Missing data is told before hours of training.
        if run.model.task == "question_answering":
            continue
        if (tokens := places.tokens / run.dataset).exists():
            read_manifest(tokens, run.dataset, "unlabelled")
        else:
            report(f"{tokens} is not there: records of {run.dataset} will come without analyses, which read its texts")
    first_steps, later = _jobs(config, runs, places)
    packs, alone = _packs(later, device)
    failures: list[UserError] = []
    for number, pack in enumerate(packs):
        pack = [job for job in pack if not places.have_recorded(job.run)]  # By another fleet, since.
        if pack and time.monotonic() < deadline:
            report(f"pack {number + 1} of {len(packs)}: {', '.join(job.title for job in pack)}")
            failures += _train_pack(pack, places, device, deadline, report)
    failures += _work_off(first_steps, alone, places, device, jobs, deadline)
    for left in [failure for failure in failures if isinstance(failure, InUseError)]:
        report(str(left))
        failures.remove(left)
    for failure in failures[:-1]:
        report(f"error: {failure}")
    if failures:
        raise failures[-1]
    recorded = sum(map(places.have_recorded, runs))
    return Outcome(recorded, len(runs) - recorded)


def _jobs(config: Config, runs: Sequence[RunConfig], places: Places) -> tuple[list[Job], list[Job]]:
    """The first steps that are to be trained before, and the runs themselves."""
    first_steps: dict[Path, Job] = {}
    later = []
    for run in runs:
        first, start = config.first_steps(run.dataset, run.model_name), None
        if first is not None:
            source = config.run(run.dataset, first.model, run.seed)
            steps = places.folder(source) / f"step-{first.step}.safetensors"
            if not are_first_steps(steps, source, places.data(source)):
                first_steps[steps] = Job(source, until=first.step)
            start = None if source == run else steps
        later.append(Job(run, start))
    return list(first_steps.values()), later


def _packs(jobs: Sequence[Job], device: torch.device) -> tuple[list[list[Job]], list[Job]]:
    """What trains together, and what trains alone."""
    shapes: dict[str, list[Job]] = {}
    alone = []
    together = runs_models_together(torch.empty(0, device=device))
    for job in jobs:
        shape = shape_of(job.run) if together else None
        if shape is None:
            alone.append(job)
        else:
            shapes.setdefault(shape, []).append(job)
    packs = [same[first : first + _TOGETHER] for same in shapes.values() for first in range(0, len(same), _TOGETHER)]
    return packs, alone


def _write_results(run: RunConfig, prepared: Prepared, places: Places, device: torch.device) -> None:
    """Write the analysis of a trained run, and then its record: where there is a record, there is all."""
    folder, record, tokens = places.folder(run), places.record(run), places.tokens / run.dataset
    reads = run.model.task == "question_answering"
    if reads or tokens.exists():
        analysis = analyse(run, prepared, tokens, folder, device=device)
        write_json(record.with_suffix(".analysis.json"), analysis.model_dump(mode="json"))
    write = write_reading_record if reads else write_record
    write(run, prepared, folder, record, device=device)


def _train_pack(
    pack: Sequence[Job], places: Places, device: torch.device, deadline: float, report: Callable[[str], None]
) -> list[UserError]:
    """Train a pack and write the results of the runs that end; the errors of those that fail.

    One that the GPU has no memory for goes on from its checkpoints as two.
    """
    torch.set_num_threads(1)
    prepared = places.data(pack[0].run)
    members = [Member(job.run, places.folder(job.run), ProgressReporter(job.title, bar=False)) for job in pack]
    try:
        ends = train_together(members, prepared, device, deadline)
    except RuntimeError as error:
        if not is_out_of_gpu_memory(error):
            raise
        if len(pack) == 1:
            return [UserError(f"{pack[0].title}: {machine_failure(error)}")]
        ends = None
    if ends is None:  # Out of the block above, where the error would still hold what did not fit.
        half = len(pack) // 2
        report(f"the GPU has no memory for {len(pack)} runs together: on with {half} and {len(pack) - half}")
        return [
            failure
            for part in (pack[:half], pack[half:])
            for failure in _train_pack(part, places, device, deadline, report)
        ]
    failures = []
    for member, ended in zip(members, ends, strict=True):
        if isinstance(ended, UserError):
            failures.append(ended)
        elif ended:
            try:
                _write_results(member.run, prepared, places, device)
            except UserError as error:
                failures.append(error)
    return failures


def _work_off(
    first_steps: Sequence[Job],
    jobs: Sequence[Job],
    places: Places,
    device: torch.device,
    workers: int,
    deadline: float,
) -> list[UserError]:
    """Do first steps and then the others one after another or, in worker processes, each when its own first steps end.

    Where first steps fail, what waits for them is left. Gives the errors of those that fail.
    """
    failures = []
    waiting = _waiting_for(first_steps, jobs, places)
    if workers == 1 or len(first_steps) + len(jobs) < 2:
        left: list[Job] = []
        for job in (*first_steps, *jobs):
            if job in left:
                continue
            try:
                _do(job, places, device, deadline)
            except UserError as error:
                failures.append(error)
                left += waiting.get(job, [])
    else:
        ready = [job for job in jobs if not any(job in others for others in waiting.values())]
        # Threads of this process's libraries do not survive a fork, and a GPU cannot be used in a forked process.
        context = multiprocessing.get_context("spawn")
        most = min(workers, len(first_steps) + len(jobs))
        with ProcessPoolExecutor(most, mp_context=context, initializer=_start_worker) as pool:
            running = {pool.submit(_do, job, places, device, deadline): job for job in (*first_steps, *ready)}
            try:
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        ended = running.pop(future)
                        try:
                            future.result()
                        except UserError as error:
                            failures.append(error)
                            continue
                        for job in waiting.get(ended, []):
                            running[pool.submit(_do, job, places, device, deadline)] = job
            except KeyboardInterrupt:
                for worker in multiprocessing.active_children():  # They would go on to what they were handed already.
                    worker.terminate()
                raise
    return failures


def _start_worker() -> None:
    """Let a worker end with its parent: one that lives on would train what the same command trains again."""
    take_memory_in_large_blocks()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _waiting_for(first_steps: Sequence[Job], jobs: Sequence[Job], places: Places) -> dict[Job, list[Job]]:
    """The jobs that wait for each of the first steps: those that start from them, and the rest of the same run."""
    return {
        first: [
            job
            for job in jobs
            if job.run == first.run or (job.start is not None and job.start.parent == places.folder(first.run))
        ]
        for first in first_steps
    }


def _do(job: Job, places: Places, device: torch.device, deadline: float) -> None:
    """Train one job, as `train` and `evaluate` of the command line do, unless the time is over.

    What this machine has not enough of for it is a `UserError`: others may need less.
    """
    if time.monotonic() >= deadline:
        return
    try:
        _train_and_write(job, places, device, deadline)
    except (MemoryError, OSError, RuntimeError) as error:
        if is_lost_gpu(error) or (failure := machine_failure(error)) is None:
            raise
        raise UserError(f"{job.title}: {failure}") from error


def _train_and_write(job: Job, places: Places, device: torch.device, deadline: float) -> None:
    if job.until is None and places.have_recorded(job.run):  # By another fleet, since.
        return
    torch.set_num_threads(1)
    prepared, folder = places.data(job.run), places.folder(job.run)
    with ProgressReporter(job.title, bar=False) as reporter:
        ended = train(
            job.run, prepared, folder, reporter, start=job.start, until=job.until, device=device, deadline=deadline
        )
    if ended and job.until is None:
        _write_results(job.run, prepared, places, device)
