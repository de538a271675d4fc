"""The statistics of claims 9 to 11, about what of Flop-r comes out as measured speed-up, and about latency."""

from itertools import chain

import numpy as np

from skimrnn.config import SkimLSTMConfig
from skimrnn.measures.flops import flop_reduction
from skimrnn.reporting.estimates import Estimate, estimate, joined, run_name
from skimrnn.reporting.evidence import Evidence

_BENCHMARK_SMALL_SIZE = 10


def _cells(evidence: Evidence) -> dict[tuple[int, float, str], tuple[float, float, float]]:
    """Sp / Flop-r in the benchmark, with its interval, by d, set skim rate and way."""
    if evidence.benchmark is None:
        return {}
    measured = [m for m in evidence.benchmark.measurements if m.benchmark == "skimming"]
    timed = {(m.name, *sorted(m.setting.items())): m.timing for m in measured}
    cells = {}
    for m in measured:
        size, rate = int(m.setting["hidden_size"]), float(m.setting["skim_rate"])
        if m.setting["small_size"] != _BENCHMARK_SMALL_SIZE or not m.name.startswith("skim") or not 0 < rate < 1:
            continue
        lstm = timed[(m.name.replace("skim", "lstm"), *sorted(m.setting.items()))]
        flops = flop_reduction(rate, size, _BENCHMARK_SMALL_SIZE).exact_count
        way = m.name.removeprefix("skim").strip() or "demand"
        speedups = (lstm.median / m.timing.median, lstm.low / m.timing.high, lstm.high / m.timing.low)
        cells[size, round(rate, 3), way] = (speedups[0] / flops, speedups[1] / flops, speedups[2] / flops)
    return cells


def speedup_below_flops(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 9: one less the largest Sp / Flop-r of the benchmark."""
    if not (cells := _cells(evidence)):
        return None
    (size, rate, way), (value, low, high) = max(cells.items(), key=lambda cell: cell[1][0])
    by_published = max(ratios[0] * _exact_over_published(size, rate) for (size, rate, _), ratios in cells.items())
    in_numpy = max((ratios[0] for (_, _, way), ratios in cells.items() if way == "numpy"), default=None)
    note = joined(
        f"largest at d = {size}, skim rate {rate:g}, {way}",
        f"by the published convention {1 - by_published:.2f}",
        "" if in_numpy is None else f"of NumPy, the paper's way, {1 - in_numpy:.2f}",
    )
    return Estimate(1 - value, (1 - high, 1 - low), len(cells), "setting", ("benchmark/cpu",), note)


def _exact_over_published(size: int, rate: float) -> float:
    """Flop-r of a cell of the benchmark by the exact count over that in the published convention."""
    reduction = flop_reduction(rate, size, _BENCHMARK_SMALL_SIZE)
    return reduction.exact_count / reduction.published_convention


def gap_closes(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 9: Sp / Flop-r at the largest d less that at the smallest."""
    cells = _cells(evidence)
    sizes = sorted({size for size, _, _ in cells})
    if len(sizes) < 2:
        return None

    smallest, largest = (
        {(way, rate): value for (size, rate, way), (value, _, _) in cells.items() if size == wanted}
        for wanted in (sizes[0], sizes[-1])
    )
    values: dict[str, list[float]] = {}
    for way, rate in (key for key in smallest if key in largest):
        values.setdefault(way, []).append(largest[way, rate] - smallest[way, rate])
    each = (f"{way} {np.mean(found):+.2f}" for way, found in sorted(values.items()))
    note = f"d = {sizes[0]} to {sizes[-1]}; {', '.join(each)}"
    return estimate([*chain(*values.values())], "setting", ["benchmark/cpu"], note=note) if values else None


def kernels_beat_numpy(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 10: Sp / Flop-r of the kernels less NumPy's, in the benchmark."""
    cells = _cells(evidence)
    values = [
        value[0] - cells[size, rate, "numpy"][0]
        for (size, rate, way), value in cells.items()
        if way == "demand" and (size, rate, "numpy") in cells
    ]
    return estimate(values, "setting", ["benchmark/cpu"]) if values else None


def kernels_beat_numpy_on_texts(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 10: the same of trained models on test texts."""
    results = evidence.of(dataset)
    speed = results.speeds.get(dataset) if results else None
    values, runs = [], []
    for model, timed in (speed.models if speed else {}).items():
        config = evidence.config.models.get(model)
        if not isinstance(config, SkimLSTMConfig):
            continue
        for seed, measured in sorted(timed.items()):
            ours, theirs = measured.speedup("demand"), measured.speedup("numpy")
            if ours is None or theirs is None:
                continue
            reduction = flop_reduction(measured.skim_rate, config.hidden_size, config.small_size).exact_count
            values.append((ours - theirs) / reduction)
            runs.append(run_name(dataset, model, seed))
    return estimate(values, "run", runs) if values else None


def beats_gpu_latency(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 11: microseconds a token of an LSTM on a GPU less those of our Skim-LSTM on one CPU thread."""
    if evidence.benchmark is None or evidence.gpu_benchmark is None:
        return None
    ours = [
        m
        for m in evidence.benchmark.measurements
        if (m.benchmark, m.name) == ("skimming", "skim folded")
        and (m.setting["hidden_size"], m.setting["small_size"]) == (100, _BENCHMARK_SMALL_SIZE)
    ]
    theirs = [m for m in evidence.gpu_benchmark.measurements if m.benchmark == "latency"]
    if not ours or not theirs:
        return None
    skim, lstm = min(ours, key=lambda m: abs(float(m.setting["skim_rate"]) - 0.9)), theirs[0]
    low = lstm.seconds.low / lstm.steps - skim.timing.high / skim.tokens
    high = lstm.seconds.high / lstm.steps - skim.timing.low / skim.tokens
    value = 1e6 * lstm.seconds.median / lstm.steps - skim.microseconds_a_token()
    note = f"{evidence.gpu_benchmark.environment.gpu} beside {evidence.benchmark.environment.cpu}"
    return Estimate(value, (1e6 * low, 1e6 * high), 1, "setting", ("benchmark/cpu", "benchmark/gpu"), note)
