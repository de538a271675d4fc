"""What the kernels are meant to reach, held against runs of the benchmark."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from skimrnn.benchmarks.latency import RATES, Measurement
from skimrnn.measures.flops import flop_reduction


class Target(NamedTuple):
    """A limit for a ratio in some cases of the benchmark."""

    text: str
    limit: float
    at_least: bool  # else at most
    ratios: Callable[[Sequence[Measurement]], Iterator[float]]


def target_rows(runs: Sequence[Sequence[Measurement]]) -> list[list[str]]:
    """A row a target: text, limit, and of each run the ratios (smallest to largest) and how many of them reach it."""
    return [[target.text, _limit(target), *(_verdict(target, run) for run in runs)] for target in TARGETS]


def _verdict(target: Target, measurements: Sequence[Measurement]) -> str:
    ratios = sorted(target.ratios(measurements))
    if not ratios:
        return "not measured"
    reached = sum(ratio >= target.limit if target.at_least else ratio <= target.limit for ratio in ratios)
    span = " to ".join(dict.fromkeys(f"{ratio:.2f}" for ratio in (ratios[0], ratios[-1])))
    verdict = "reached" if reached == len(ratios) else "short" if not reached else "short in part"
    return f"{span}; {verdict}: {reached} of {len(ratios)}"


def _limit(target: Target) -> str:
    return f"{'at least' if target.at_least else 'at most'} {target.limit:g}"


def possible_speedup(m: Measurement) -> float:
    """Flop-r by the exact count, at the skim rate and sizes of a measurement."""
    rate, size, small = m.setting["skim_rate"], m.setting["hidden_size"], m.setting["small_size"]
    return flop_reduction(float(rate), int(size), int(small)).exact_count


def group_of(m: Measurement, measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    """What was timed together with a measurement, by name."""
    return {o.name: o for o in measurements if (o.benchmark, o.setting) == (m.benchmark, m.setting)}


def _plain(size: int) -> Callable[[Sequence[Measurement]], Iterator[float]]:
    def ratios(measurements: Sequence[Measurement]) -> Iterator[float]:
        for m in measurements:
            if m.benchmark == "plain" and m.name == "ours" and m.setting["hidden_size"] == size:
                rivals = [o.timing.median for o in group_of(m, measurements).values() if o.name != "ours"]
                if rivals:
                    yield m.timing.median / min(rivals)

    return ratios


def _skim_step(name: str, size: int) -> Callable[[Sequence[Measurement]], Iterator[float]]:
    """A text that is all skimmed beside one that is all read, d' = 10."""

    def ratios(measurements: Sequence[Measurement]) -> Iterator[float]:
        own = [
            m
            for m in measurements
            if (m.benchmark, m.name) == ("skimming", name)
            and (m.setting["hidden_size"], m.setting["small_size"]) == (size, 10)
        ]
        by_rate = {m.setting["skim_rate"]: m.timing.median for m in own}
        if 0 in by_rate and 1 in by_rate:
            yield by_rate[1] / by_rate[0]

    return ratios


def _read_step(name: str) -> Callable[[Sequence[Measurement]], Iterator[float]]:
    def ratios(measurements: Sequence[Measurement]) -> Iterator[float]:
        for m in measurements:
            if (m.benchmark, m.name) == ("skimming", name) and m.setting["skim_rate"] == 0:
                yield m.timing.median / group_of(m, measurements)[name.replace("skim", "lstm")].timing.median

    return ratios


def _share_of_flop_r(benchmark: str, name: str) -> Callable[[Sequence[Measurement]], Iterator[float]]:
    def ratios(measurements: Sequence[Measurement]) -> Iterator[float]:
        for m in measurements:
            if (m.benchmark, m.name) == (benchmark, name) and 0 < float(m.setting["skim_rate"]) < 1:
                lstm = group_of(m, measurements)[name.replace("skim", "lstm")]
                yield lstm.timing.median / m.timing.median / possible_speedup(m)

    return ratios


def _training(threads: int) -> Callable[[Sequence[Measurement]], Iterator[float]]:
    def ratios(measurements: Sequence[Measurement]) -> Iterator[float]:
        for m in measurements:
            if (m.benchmark, m.name) == ("training", "skim") and m.setting["threads"] == threads:
                yield m.timing.median / group_of(m, measurements)["torch"].timing.median

    return ratios


def _reader_training(measurements: Sequence[Measurement]) -> Iterator[float]:
    for m in measurements:
        if (m.benchmark, m.name) == ("reader_training", "skim"):
            yield m.timing.median / group_of(m, measurements)["lstm"].timing.median


def _training_memory(measurements: Sequence[Measurement]) -> Iterator[float]:
    for m in measurements:
        if (m.benchmark, m.name) == ("training", "skim") and m.peak_memory_mib:
            torch = group_of(m, measurements)["torch"].peak_memory_mib
            if torch:
                yield m.peak_memory_mib / torch


def _growth(cost: Callable[[Measurement], float], first: int) -> Callable[[Sequence[Measurement]], Iterator[float]]:
    """A token's cost in a text of 10,000 beside one of `first`."""

    def ratios(measurements: Sequence[Measurement]) -> Iterator[float]:
        own = {(m.name, m.setting["steps"]): m for m in measurements if m.benchmark == "lengths"}
        for name in ("lstm", "skim"):
            if (name, first) in own and (name, 10_000) in own:
                yield cost(own[name, 10_000]) / cost(own[name, first])

    return ratios


_RATES = ", ".join(f"{rate:g}" for rate in RATES)
TARGETS = [
    Target("Our standard LSTM's time over the fastest other library's, d = 100", 0.7, False, _plain(100)),
    Target("The same, d = 200", 0.7, False, _plain(200)),
    Target("A skim step's time over a read step's, d = 100, d' = 10, on demand", 0.2, False, _skim_step("skim", 100)),
    Target("The same, d = 200", 0.12, False, _skim_step("skim", 200)),
    Target("The same, folded, d = 100", 0.2, False, _skim_step("skim folded", 100)),
    Target("The same, folded, d = 200", 0.12, False, _skim_step("skim folded", 200)),
    Target("A read step's time over the standard LSTM's, on demand, all d and d'", 1.25, False, _read_step("skim")),
    Target("The same, folded", 1.05, False, _read_step("skim folded")),
    Target(
        f"Sp over Flop-r, on demand, all d and d', skim rates {_RATES}", 0.7, True, _share_of_flop_r("skimming", "skim")
    ),
    Target("The same, folded", 0.8, True, _share_of_flop_r("skimming", "skim folded")),
    Target("A training step of Skim-LSTM over one of torch's nn.LSTM, 1 thread", 1.3, False, _training(1)),
    Target("The same, 2 threads", 1.3, False, _training(2)),
    Target("Its peak memory over nn.LSTM's", 1.5, False, _training_memory),
    Target(f"Sp over Flop-r, ragged batches, skim rates {_RATES}", 0.8, True, _share_of_flop_r("batched", "skim")),
    Target(
        "Time a token of a text of 10,000 over one of 100", 1.1, False, _growth(Measurement.microseconds_a_token, 100)
    ),
    Target(
        "Memory a token of a text of 10,000 over one of 1,000",
        1.1,
        False,
        _growth(lambda m: (m.peak_memory_mib or 0.0) / m.tokens, 1000),
    ),
    Target("A training step of Sk-LSTM+Att over one of LSTM+Att", 1.5, False, _reader_training),
    Target(
        f"Sp over the layers' Flop-r, evaluation of Sk-LSTM+Att, skim rates {_RATES}",
        0.8,
        True,
        _share_of_flop_r("reader_evaluation", "skim"),
    ),
]
