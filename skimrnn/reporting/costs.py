"""What the grid costs: measured where a run has left its record, estimated from the nearest measured run elsewhere."""

import heapq
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skimrnn.config import Config, RunConfig
from skimrnn.counts import count_of
from skimrnn.reporting.datasets import read_counts
from skimrnn.reporting.records import Run, read_task_results, training_kernel
from skimrnn.training.record import read_timing

_VALIDATION_WEIGHT = 1 / 3
"""What a token costs that is only read, beside one that is trained on: forward without backward."""


@dataclass(frozen=True)
class TimedRun:
    """A run that has left a record: where it ran, its steps, and the seconds of a core or of a GPU that they took.

    On a processor those are the wall time times the threads that the run ended with.
    """

    run: RunConfig
    hardware: str
    gpu: bool
    kernel: str
    steps: int
    finished: bool
    seconds: float
    step_tokens: float

    @property
    def seconds_per_token(self) -> float:
        """Seconds of training for each token that a step reads (see `step_tokens`)."""
        return self.seconds / self.steps / self.step_tokens


@dataclass(frozen=True)
class Expected:
    """What a whole run would take on one kind of hardware, and where that comes from, in one line."""

    seconds_per_step: float
    steps: float
    source: str

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return self.seconds_per_step * self.steps


@dataclass(frozen=True)
class Planned:
    """One dataset with one model on one kind of hardware.

    `left` holds the seconds of each seed that is not finished; None where nothing can be said about them.
    """

    dataset: str
    model: str
    seeds: int
    finished: int
    spent: float
    left: tuple[float, ...] | None
    first_steps: float
    source: str


@dataclass(frozen=True)
class Plan:
    """The whole grid of a config on one kind of hardware."""

    hardware: str
    gpu: bool
    rows: list[Planned]

    @property
    def spent(self) -> float:
        """Seconds that the records of this hardware took."""
        return sum(row.spent for row in self.rows)

    @property
    def left(self) -> float:
        """Seconds of all runs that are left, as far as something can be said about them."""
        return sum(sum(row.left or ()) for row in self.rows)

    @property
    def unknown(self) -> int:
        """Runs about which nothing can be said."""
        return sum(row.seeds - row.finished for row in self.rows if row.left is None)

    def wall_seconds(self, workers: int) -> float:
        """How long the runs that are left take `workers` at a time (a core or a GPU each), the longest one first.

        A run that starts from another model's first steps waits for them.
        """
        jobs = sorted((row.first_steps, -seconds) for row in self.rows for seconds in row.left or ())
        free = [0.0] * workers
        for release, seconds in jobs:
            heapq.heappush(free, max(heapq.heappop(free), release) - seconds)
        return max(free)


def read_measured(config: Config, folder: Path) -> list[TimedRun]:
    """The cost of each record of a config's grid, from the times beside it."""
    return [
        _measured(run)
        for task in config.tasks
        for runs in read_task_results(config, task, folder, speeds=False).runs.values()
        for run in runs
        if run.path.with_suffix(".timing.json").exists()
    ]


def _measured(run: Run[Any]) -> TimedRun:
    record = run.record
    environment, splits = record.training.environment, record.data.splits
    kernel = training_kernel(record)
    return TimedRun(
        run=record.config,
        hardware=environment.gpu or environment.cpu,
        gpu=environment.gpu is not None,
        kernel=kernel,
        steps=record.training.steps,
        finished=record.training.stopped != "unfinished",
        seconds=read_timing(run.path).wall_seconds * (1 if environment.gpu else environment.threads),
        step_tokens=step_tokens(
            record.config, splits["train"].mean_length, splits["validation"].rows * splits["validation"].mean_length
        ),
    )


def step_tokens(run: RunConfig, mean_length: float, validation_tokens: float) -> float:
    """The tokens that a training step reads, with its share of a validation."""
    return run.batch_size * mean_length + _VALIDATION_WEIGHT * validation_tokens / run.training.validate_every


def dataset_tokens(config: Config, folder: Path, measured: Sequence[TimedRun]) -> dict[str, float]:
    """`step_tokens` of each dataset, from its records or else from its counts (`data stats`) in the folder of results.

    A dataset that has neither is left out.
    """
    tokens = {}
    for count in read_counts(folder / config.scale / "datasets.json"):
        if count.dataset in config.datasets:
            run = config.run(count.dataset, next(iter(config.models_of(count.dataset))), 0)
            mean = count.mean_length["all tokens"]
            tokens[count.dataset] = step_tokens(run, mean, count.rows["validation"] * mean)
    return tokens | {run.run.dataset: run.step_tokens for run in measured}


def estimate(run: RunConfig, tokens: float | None, measured: Sequence[TimedRun]) -> Expected | None:
    """What a run would take, from the nearest of `measured`, all of one hardware; None where nothing can be said.

    Time per step is that of the nearest runs for each token, times the tokens of a step; steps are the median of the
    nearest finished runs. Only models of the same kind are compared, skimming or not. Near means, in this order: the
    kernel that is fastest, the same dataset, architecture, model, sizes, and closely as many tokens a step. Runs that
    differ in the seed alone count together, by their median; time is not scaled by the size of a model.
    """
    related = [other for other in measured if _family(other.run) == _family(run)]
    if not related or tokens is None:
        return None
    kernel = fastest_kernel(related)

    def distance(other: TimedRun) -> tuple:
        own = other.run
        return (
            other.kernel != kernel,
            own.dataset != run.dataset,
            own.model.architecture != run.model.architecture,
            own.model_name != run.model_name,
            abs(own.model.hidden_size - run.model.hidden_size),
            abs(getattr(own.model, "small_size", 0) - getattr(run.model, "small_size", 0)),
            abs(other.step_tokens - tokens),
            own.model_name,
            own.dataset,
        )

    nearest = min(related, key=distance)
    same = [other for other in related if distance(other) == distance(nearest)]
    per_step = statistics.median(other.seconds_per_token for other in same) * tokens
    steps, counted = _expected_steps(run, related, lambda other: distance(other)[1:])
    how = "" if nearest.run.dataset == run.dataset else ", by tokens"
    return Expected(per_step, steps, f"{_name(nearest)} ({nearest.kernel}, {len(same)}){how}, {counted}")


def _expected_steps(
    run: RunConfig, related: Sequence[TimedRun], distance: Callable[[TimedRun], tuple]
) -> tuple[float, str]:
    """How many steps a run is expected to take, and why: any kernel takes the same ones."""
    limit = run.training.max_steps
    if not (finished := [other for other in related if other.finished]):
        return limit, f"{count_of(limit, 'step')}, the limit"
    nearest = min(finished, key=distance)
    steps = statistics.median(other.steps for other in finished if distance(other) == distance(nearest))
    return min(steps, limit), f"{min(steps, limit):,.0f} steps as {_name(nearest)}"


def fastest_kernel(measured: Sequence[TimedRun]) -> str:
    """The kernel whose runs took the least time for a token, by the median."""
    times: dict[str, list[float]] = {}
    for run in measured:
        times.setdefault(run.kernel, []).append(run.seconds_per_token)
    return min(times, key=lambda kernel: statistics.median(times[kernel]))


def make_plans(config: Config, folder: Path, measured: Sequence[TimedRun]) -> list[Plan]:
    """One plan for each kind of hardware that has left records, processors before GPUs."""
    tokens = dataset_tokens(config, folder, measured)
    kinds = sorted({(run.gpu, run.hardware) for run in measured})
    return [_make_plan(config, measured, tokens, hardware) for _, hardware in kinds]


def _make_plan(config: Config, measured: Sequence[TimedRun], tokens: dict[str, float], hardware: str) -> Plan:
    own = [run for run in measured if run.hardware == hardware]
    rows = []
    for dataset in config.datasets:
        for model in config.models_of(dataset):
            seeds = config.seeds_of(dataset)
            records = [run for run in measured if (run.run.dataset, run.run.model_name) == (dataset, model)]
            missing = sorted(set(seeds) - {run.run.seed for run in records if run.finished})
            expected = estimate(config.run(dataset, model, seeds[0]), tokens.get(dataset), own)
            done = {run.run.seed: run.steps for run in records}
            rows.append(
                Planned(
                    dataset=dataset,
                    model=model,
                    seeds=len(seeds),
                    finished=len(seeds) - len(missing),
                    spent=sum(run.seconds for run in records if run.hardware == hardware),
                    left=_left(expected, [done.get(seed, 0) for seed in missing]),
                    first_steps=_first_steps(config, dataset, model, tokens, own),
                    source=expected.source if expected and missing else "measured" if not missing else "unknown",
                )
            )
    return Plan(hardware, own[0].gpu, rows)


def _left(expected: Expected | None, done: list[int]) -> tuple[float, ...] | None:
    """Seconds left of each run that is not finished, given the steps that it has done."""
    if not done or expected is None:
        return None if done else ()
    return tuple(expected.seconds_per_step * max(expected.steps - steps, 0) for steps in done)


def _first_steps(
    config: Config, dataset: str, model: str, tokens: dict[str, float], measured: Sequence[TimedRun]
) -> float:
    """Seconds that pass before a run can begin, because it starts from another model's first steps."""
    first = config.first_steps(dataset, model)
    if first is None or first.model == model:
        return 0.0
    source = estimate(config.run(dataset, first.model, config.seeds_of(dataset)[0]), tokens.get(dataset), measured)
    return source.seconds_per_step * first.step if source else 0.0


@dataclass(frozen=True)
class Check:
    """A finished run: what it took, and what would have been estimated for it from all others."""

    run: TimedRun
    predicted: float | None


def leave_one_out(measured: Sequence[TimedRun]) -> list[Check]:
    """Estimate each finished run of a hardware's fastest kernel from the other runs of that hardware."""
    checks = []
    for run in measured:
        others = [other for other in measured if other is not run and other.hardware == run.hardware]
        related = [other for other in [*others, run] if _family(other.run) == _family(run.run)]
        if run.finished and run.kernel == fastest_kernel(related):
            expected = estimate(run.run, run.step_tokens, others)
            checks.append(Check(run, expected.seconds if expected else None))
    return checks


def _family(run: RunConfig) -> str:
    """The kind of model: a skimming one and its standard counterpart are of one."""
    return run.model.architecture.removeprefix("skim_")


def _name(measured: TimedRun) -> str:
    return f"{measured.run.dataset} {measured.run.model_name}"
