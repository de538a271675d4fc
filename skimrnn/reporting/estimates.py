"""Estimates with their 95 % intervals: over the examples of a split, and over seeds or settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from scipy import stats

LEVEL = 0.95
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """One quantity: its value and interval, of how many of what (3 times a `seed`), and the runs that it comes from.

    The interval is None where there is one seed alone and no value for each example.
    """

    value: float
    interval: tuple[float, float] | None
    count: int
    counted: str  # "seed", "run", ...
    runs: tuple[str, ...] = ()  # <dataset>/<model>/<seed>
    note: str = ""

    def scaled(self, factor: float) -> "Estimate":
        """The same in another unit."""
        interval = self.interval and (factor * self.interval[0], factor * self.interval[1])
        return replace(self, value=factor * self.value, interval=interval)


def run_name(dataset: str, model: str, seed: int) -> str:
    """What a run is called: the path of its record without the scale."""
    return f"{dataset}/{model}/{seed}"


def over_repeats(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's t interval of the mean of few values; None for one."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(stats.sem(values))
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(LEVEL, len(values) - 1, mean, error)
    return float(low), float(high)


def over_examples(values: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of one value for each example (N); pairs are kept by differencing."""
    if values.min() == values.max():
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, 2_000_000 // len(values)),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def wider(*intervals: tuple[float, float] | None) -> tuple[float, float] | None:
    """The smallest interval that holds all that are there."""
    known = [interval for interval in intervals if interval is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def estimate(
    by_repeat: Sequence[float],
    counted: str,
    runs: Sequence[str],
    by_example: Sequence[np.ndarray] = (),
    note: str = "",
) -> Estimate:
    """The mean over repeats (seeds, runs, settings), with the wider of the intervals over them and over examples.

    `by_example` holds for each repeat one value an example (N), whose mean is the repeat's value.
    """
    examples = over_examples(np.mean(by_example, axis=0)) if len(by_example) else None
    interval = wider(examples, over_repeats(by_repeat))
    return Estimate(float(np.mean(by_repeat)), interval, len(by_repeat), counted, tuple(dict.fromkeys(runs)), note)


def signed(value: float, interval: tuple[float, float] | None) -> str:
    """A difference with its interval, for a note."""
    return f"{value:+.1f}" + (" [{:+.1f}, {:+.1f}]".format(*interval) if interval else "")


def mean_of(values: Sequence[float]) -> str:
    """The mean of few values with Student's t interval, for a note."""
    return signed(float(np.mean(values)), over_repeats(values))


def between_models(values: Mapping[str, Sequence[float]], sign: str = "+") -> str:
    """Student's t interval over the means of models, for a note: the runs of one model are more alike than others."""
    interval = over_repeats([float(np.mean(found)) for found in values.values()])
    return f"over settings [{interval[0]:{sign}.1f}, {interval[1]:{sign}.1f}]" if interval else ""


def joined(*notes: str) -> str:
    """The parts of a note that say something, as one."""
    return "; ".join(filter(None, notes))


def over_runs(
    dataset: str,
    values: Mapping[str, Mapping[int, float]],
    by_example: Sequence[np.ndarray] = (),
    note: str = "",
    sign: str = "+",
) -> Estimate | None:
    """The mean over the runs of models, given by model and seed, and its interval over runs and examples.

    The note begins with the interval over models.
    """
    if not values:
        return None
    runs = [run_name(dataset, model, seed) for model, found in values.items() for seed in found]
    by_model = {model: [*found.values()] for model, found in values.items()}
    note = joined(between_models(by_model, sign), note)
    return estimate([*chain(*by_model.values())], "run", runs, by_example, note)


Pairs = dict[tuple[str, str], dict[int, tuple[float, np.ndarray | None]]]
"""What sets the first of two models apart from the second: by the two and by seed, its mean and, where there is one,
its value for each example."""


def over_pairs(dataset: str, pairs: Pairs, note: str = "") -> Estimate | None:
    """The mean of the means of pairs of models, and its interval over seeds and examples.

    A seed lies as far from the mean as its pairs lie from theirs, so that one that not all pairs have does not count
    what sets pairs apart. Seeds count that one pair has: two pairs of one seed each say nothing about how much seeds
    differ.
    """
    if not pairs:
        return None
    means = {models: float(np.mean([mean for mean, _ in seeds.values()])) for models, seeds in pairs.items()}
    apart: dict[int, list[float]] = {}
    for models, seeds in pairs.items():
        for seed, (mean, _) in seeds.items():
            if len(seeds) > 1:
                apart.setdefault(seed, []).append(mean - means[models])
    shifts = np.array([float(np.mean(found)) for found in apart.values()] or [0.0])
    values = np.mean([*means.values()]) + shifts - shifts.mean()
    examples = [[each for _, each in seeds.values() if each is not None] for seeds in pairs.values()]
    complete = [*map(len, examples)] == [*map(len, pairs.values())]
    by_example = [np.mean([np.mean(found, axis=0) for found in examples], axis=0)] if complete else []
    runs = [
        run_name(dataset, model, seed) for models, seeds in pairs.items() for seed in sorted(seeds) for model in models
    ]
    found = estimate(values.tolist(), "seed", runs, by_example, note)
    return replace(found, count=max(map(len, pairs.values())))
