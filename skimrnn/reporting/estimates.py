"""Estimates with their 95 % intervals: over the examples of a split, and over seeds or settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
