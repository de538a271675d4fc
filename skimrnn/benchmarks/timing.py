"""How long functions take beside each other: interleaved rounds, and medians with their 95 % intervals."""

import gc
import math
import time
from collections.abc import Callable, Mapping

from skimrnn.files import Closed


class Timing(Closed):
    """Seconds a call, over all rounds, with the median and its interval (95 %, from ranks: no shape is assumed)."""

    samples: list[float]
    median: float
    low: float
    high: float


def summarise(samples: list[float]) -> Timing:
    """The median of samples and the order statistics that enclose the true one with 95 % confidence."""
    ordered, n = sorted(samples), len(samples)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    reach = 0.98 * math.sqrt(n)  # 1.96 standard deviations of a binomial with p = 1/2, in ranks
    low = max(0, math.floor((n - 1) / 2 - reach))
    high = min(n - 1, math.ceil((n - 1) / 2 + reach))
    return Timing(samples=samples, median=middle, low=ordered[low], high=ordered[high])


def time_together(
    functions: Mapping[str, Callable[[], object]], rounds: int, seconds_a_sample: float = 0.005, warm_up: int = 3
) -> dict[str, Timing]:
    """Time functions that are to be compared: each round runs all of them, in an order that rotates.

    A sample is the mean of as many calls as take about `seconds_a_sample`, the same number in every round, after one
    that is not timed: it brings back into the caches what the other functions drove out.
    """
    calls = {}
    for name, function in functions.items():
        for _ in range(warm_up):
            function()
        calls[name] = max(1, round(seconds_a_sample / _clock(function, 1)))
    samples: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    collects = gc.isenabled()
    gc.disable()
    try:
        for index in range(rounds):
            start = index % len(names)
            for name in names[start:] + names[:start]:
                functions[name]()
                samples[name].append(_clock(functions[name], calls[name]))
    finally:
        if collects:
            gc.enable()
    return {name: summarise(values) for name, values in samples.items()}


def _clock(function: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - started) / calls
