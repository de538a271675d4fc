"""The statistics of the claims: each is larger where its claim is truer, and None where nothing was run."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from math import nan
from typing import Any, Literal

import numpy as np

from skimrnn.analysis.artefact import Analysis, Sweep
from skimrnn.config import LSTMAttConfig, LSTMConfig, ModelConfig, SkimLSTMAttConfig, SkimLSTMConfig
from skimrnn.counts import count_of
from skimrnn.measures.flops import flop_reduction
from skimrnn.published.claims import StatisticName
from skimrnn.reporting.estimates import Estimate, estimate, over_repeats
from skimrnn.reporting.evidence import Evidence

ALLOWED_LOSS = 1.0
"""Points of accuracy that a model may lose and still count as accurate: the margin of the first claim."""

_GRID = 9  # Values of Flop-r at which two curves are compared.
_BENCHMARK_SMALL_SIZE = 10


def skims(model: ModelConfig) -> bool:
    """Whether a model has two cells, so that it skims (d' > 0) or skips (d' = 0)."""
    return hasattr(model, "small_size")


def is_skim_lstm(model: ModelConfig) -> bool:
    """Whether a model is a classifier that skims (d' > 0)."""
    return isinstance(model, SkimLSTMConfig) and model.small_size > 0


def run_name(dataset: str, model: str, seed: int) -> str:
    """What a run is called: the path of its record without the scale."""
    return f"{dataset}/{model}/{seed}"


def accuracy_kept(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 1: accuracy of the Skim-LSTMs less the standard LSTM's, in points."""
    return _score_difference(
        evidence,
        dataset,
        is_skim_lstm,
        lambda model: isinstance(model, LSTMConfig),
    )


def bidaf_cost(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 7: F1 of Sk-BiDAF less BiDAF's, in points."""
    return _score_difference(
        evidence,
        dataset,
        lambda model: str(model.architecture) == "skim_bidaf",
        lambda model: str(model.architecture) == "bidaf",
    )


def _score_difference(
    evidence: Evidence,
    dataset: str,
    chosen: Callable[[ModelConfig], bool],
    standard: Callable[[ModelConfig], bool],
) -> Estimate | None:
    """Scores of the chosen models less those of the standard model of the same d, paired by seed, mean over models."""
    name = evidence.score_name(dataset)
    pairs: Pairs = {}
    references = evidence.models(dataset, standard)
    for model, config in evidence.models(dataset, chosen).items():
        for reference, other in references.items():
            if other.hidden_size != config.hidden_size:
                continue
            own, its = evidence.finished(dataset, model), evidence.finished(dataset, reference)
            analysed, its_analysed = evidence.analysed(dataset, model), evidence.analysed(dataset, reference)
            for seed in sorted(set(own) & set(its)):
                score = getattr(own[seed].record.test, name) - getattr(its[seed].record.test, name)
                by_example = None
                if seed in analysed and seed in its_analysed:
                    both = (analysis.outcomes[name].unpack() for analysis in (analysed[seed], its_analysed[seed]))
                    by_example = 100 * np.subtract(*both)
                pairs.setdefault((model, reference), {})[seed] = (100 * score, by_example)
    complete = all(by_example is not None for seeds in pairs.values() for _, by_example in seeds.values())
    return _over_seeds(dataset, pairs, "" if complete else "without analyses of all runs: interval over seeds alone")


def _signed(value: float, interval: tuple[float, float] | None) -> str:
    """A difference with its interval, for a note."""
    return f"{value:+.1f}" + (" [{:+.1f}, {:+.1f}]".format(*interval) if interval else "")


def _mean_of(values: Sequence[float]) -> str:
    return _signed(float(np.mean(values)), over_repeats(values))


def _by_published(found: Estimate | None) -> str:
    return f"by the published convention {_signed(found.value, found.interval)}" if found else ""


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


Pairs = dict[tuple[str, str], dict[int, tuple[float, np.ndarray | None]]]
"""What sets the first of two models apart from the second: by the two and by seed, its mean and, where there is one,
its value for each example."""


def _over_seeds(dataset: str, pairs: Pairs, note: str = "") -> Estimate | None:
    """The mean of the means of pairs of models, and its interval over seeds and examples.

    A seed lies as far from the mean as its pairs lie from theirs, so that one that not all pairs have does not count
    what sets pairs apart. Seeds count that one pair has: two pairs of one seed each say nothing about how much seeds
    differ.
    """
    if not pairs:
        return None
    means = {models: np.mean([mean for mean, _ in seeds.values()]) for models, seeds in pairs.items()}
    apart: dict[int, list[float]] = {}
    for models, seeds in pairs.items():
        for seed, (mean, _) in seeds.items():
            if len(seeds) > 1:
                apart.setdefault(seed, []).append(mean - means[models])
    shifts = np.array([np.mean(found) for found in apart.values()] or [0.0])
    values = np.mean([*means.values()]) + shifts - shifts.mean()
    examples = [[each for _, each in seeds.values() if each is not None] for seeds in pairs.values()]
    complete = [*map(len, examples)] == [*map(len, pairs.values())]
    by_example = [np.mean([np.mean(found, axis=0) for found in examples], axis=0)] if complete else []
    runs = [
        run_name(dataset, model, seed) for models, seeds in pairs.items() for seed in sorted(seeds) for model in models
    ]
    found = estimate(values.tolist(), "seed", runs, by_example, note)
    return replace(found, count=max(map(len, pairs.values())))


def flop_reduction_at_accuracy(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 2: the largest Flop-r (published convention) of a Skim-LSTM that keeps the standard LSTM's accuracy."""
    best: Estimate | None = None
    seeds: list[int] = []
    for model, config in evidence.models(dataset, is_skim_lstm).items():
        for reference, other in evidence.models(dataset, lambda model: isinstance(model, LSTMConfig)).items():
            if other.hidden_size != config.hidden_size:
                continue
            own, its = evidence.finished(dataset, model), evidence.finished(dataset, reference)
            if not own or not its:
                continue
            seeds.append(min(len(own), len(its)))
            means = [np.mean([run.record.test.accuracy for run in runs.values()]) for runs in (own, its)]
            reductions = [own[seed].record.flop_reduction.published_convention for seed in sorted(own)]
            if 100 * (means[0] - means[1]) >= -ALLOWED_LOSS and (best is None or np.mean(reductions) > best.value):
                runs = [run_name(dataset, model, seed) for seed in sorted(own)]
                runs += [run_name(dataset, reference, seed) for seed in sorted(its)]
                exact = np.mean([run.record.flop_reduction.exact_count for run in own.values()])
                kept = [100 * (own[s].record.test.accuracy - its[s].record.test.accuracy) for s in own if s in its]
                lost = f", accuracy {_mean_of(kept)} points" if kept else ""
                note = f"{model}{lost}; by the exact count {exact:.1f}"
                found = estimate(reductions, "seed", runs, note=note)
                best = replace(found, count=min(len(own), len(its)))  # The accuracy that is kept has its seeds, too.
    if best is None and seeds:
        return Estimate(1.0, (1.0, 1.0), min(seeds), "seed", note="no Skim-LSTM keeps the accuracy")
    return best


def gamma_effect(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 3: skim rate at the next larger gamma less that at the smaller one, in points."""
    families: dict[str, list[tuple[float, str]]] = {}
    for name, config in evidence.models(dataset, skims).items():
        same = config.model_copy(update={"gamma": 0.0}).model_dump_json()
        families.setdefault(same, []).append((config.gamma, name))
    pairs: Pairs = {}
    for members in families.values():
        for (_, smaller), (_, larger) in pairwise(sorted(members)):
            low, high = evidence.finished(dataset, smaller), evidence.finished(dataset, larger)
            for seed in sorted(set(low) & set(high)):
                more = high[seed].record.test.skim_rate - low[seed].record.test.skim_rate
                pairs.setdefault((smaller, larger), {})[seed] = (100 * more, None)
    falling = sum(np.mean([more for more, _ in seeds.values()]) < 0 for seeds in pairs.values())
    note = f"skims less in {falling} of {count_of(len(pairs), 'pair')} of neighbours"
    return _over_seeds(dataset, pairs, note)


LAYERS = ("layer 1", "layer 2")
"""The two layers of LSTM+Att, as the names of their sequences begin."""
MODELLING_LAYERS = ("modelling 1", "modelling 2")
"""The same of BiDAF."""


def layer_skim_rate(evidence: Evidence, dataset: str, layers: tuple[str, str] = LAYERS) -> Estimate | None:
    """Claims 4 and 12: skim rate of the second of two layers less that of the first, in points."""
    values: dict[str, list[float]] = {}
    runs = []
    for model in evidence.models(dataset, skims):
        for seed, run in evidence.finished(dataset, model).items():
            rates = run.record.test.layer_skim_rates
            first, second = ([rates[name] for name in of_layer(layer, rates)] for layer in layers)
            if first and second:
                values.setdefault(model, []).append(100 * float(np.mean(second) - np.mean(first)))
                runs.append(run_name(dataset, model, seed))
    return estimate([*chain(*values.values())], "run", runs, note=_by_model(values)) if runs else None


def layer_confidence(evidence: Evidence, dataset: str, layers: tuple[str, str] = LAYERS) -> Estimate | None:
    """Claims 4 and 12: confidence of the second of two layers less that of the first, in points, by question."""
    by_example: dict[str, list[np.ndarray]] = {}
    runs = []
    for model in evidence.models(dataset, skims):
        for seed, analysis in evidence.analysed(dataset, model).items():
            if (difference := confidence_difference(analysis, layers)) is not None:
                by_example.setdefault(model, []).append(100 * difference)
                runs.append(run_name(dataset, model, seed))
    values = {model: [float(each.mean()) for each in found] for model, found in by_example.items()}
    examples = [*chain(*by_example.values())]
    return estimate([*chain(*values.values())], "run", runs, examples, _by_model(values)) if runs else None


def _by_model(values: dict[str, list[float]]) -> str:
    """What each model has by itself, over its seeds: models may lie on either side of their mean."""
    each = [f"{model} {_mean_of(found)}" for model, found in values.items()]
    return ", ".join(each) if len(each) > 1 else ""


def confidence_difference(analysis: Analysis, layers: tuple[str, str]) -> np.ndarray | None:
    """Mean confidence of the second layer less the first's about each example (N), both directions together.

    None where the analysed model does not have both.
    """
    found = {c.direction: c.by_example for c in analysis.skim.confidence} if analysis.skim else {}
    first, second = ([found[name].unpack() for name in of_layer(layer, found)] for layer in layers)
    return np.asarray(np.mean(second, axis=0) - np.mean(first, axis=0)) if first and second else None


def of_layer(layer: str, sequences: Iterable[str]) -> list[str]:
    """The sequences of one layer, a direction each: those called `layer 1 forward` and `layer 1 backward`, say."""
    return [name for name in sequences if name.rpartition(" ")[0] == layer]


def skimming_beats_skipping(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 5: score of skimming less that of skipping at equal Flop-r, in points."""
    name = evidence.score_name(dataset)
    pairs: dict[str, Pairs] = {"exact_count": {}, "published_convention": {}}
    swept = ""
    for skim, skip in _skimming_and_skipping(evidence, dataset):
        own, its = evidence.analysed(dataset, skim), evidence.analysed(dataset, skip)
        for seed in sorted(set(own) & set(its)):
            swept = _swept(own[seed])
            for convention, differences in pairs.items():
                curves = [sweep_curve(analysis, name, convention) for analysis in (own[seed], its[seed])]
                low, high = max(flops.min() for flops, _ in curves), min(flops.max() for flops, _ in curves)
                if low >= high:
                    continue
                scores = [at_flops(*curve, np.linspace(low, high, _GRID)).mean(axis=0) for curve in curves]
                by_example = 100 * (scores[0] - scores[1])
                differences.setdefault((skim, skip), {})[seed] = (float(by_example.mean()), by_example)
    exact, published = (_over_seeds(dataset, found) for found in pairs.values())
    return exact and replace(exact, note=_joined(_by_published(published), swept))


def _skimming_and_skipping(evidence: Evidence, dataset: str) -> Iterator[tuple[str, str]]:
    models = evidence.models(dataset, skims)
    for skim, own in models.items():
        for skip, its in models.items():
            if own.small_size > 0 == its.small_size and own.model_copy(update={"small_size": 0}) == its:
                yield skim, skip


def _skimming_and_shrunk(
    evidence: Evidence, dataset: str, shrunk: Literal["hidden_size", "num_layers"]
) -> Iterator[tuple[str, str]]:
    """The readers that skim, each with every standard one that has less of `shrunk` and as much of the other."""
    kept = "num_layers" if shrunk == "hidden_size" else "hidden_size"
    standards = evidence.models(dataset, lambda model: isinstance(model, LSTMAttConfig))
    skimming = evidence.models(dataset, lambda model: isinstance(model, SkimLSTMAttConfig) and model.small_size > 0)
    for skim, own in skimming.items():
        for small, its in standards.items():
            if getattr(its, shrunk) < getattr(own, shrunk) and getattr(its, kept) == getattr(own, kept):
                yield skim, small


def sweep_curve(analysis: Analysis, score: str, convention: str = "exact_count") -> tuple[np.ndarray, np.ndarray]:
    """Flop-r (rising) and the scores of the sweep's examples there: (points) and (points, examples).

    Without the ends: a skipping model's Flop-r jumps there from some 5 to 400, and what it scores between is not known.
    """
    points = _inner_points(analysis)
    reductions = {place: getattr(point.flop_reduction, convention) for place, point in points.items()}
    order = sorted(reductions, key=lambda place: reductions[place])
    flops = np.array([reductions[place] for place in order])
    return flops, _sweep(analysis).outcomes[score].unpack()[order]


def _sweep(analysis: Analysis) -> Sweep:
    assert analysis.skim is not None
    return analysis.skim.sweep


def _swept(analysis: Analysis) -> str:
    """On how much of the scored split an analysis was swept over the threshold; nothing where on all of it."""
    included = _sweep(analysis).included.unpack()
    return "" if included.all() else f"on a sample, {int(included.sum()):,} of {len(included):,} examples"


def at_flops(flops: np.ndarray, outcomes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Outcomes (targets, examples) interpolated linearly between the points of a curve."""
    weights = np.stack([np.interp(targets, flops, unit) for unit in np.eye(len(flops))], axis=1)
    return np.asarray(weights @ outcomes)


def threshold_moves_flops(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 6: Flop-r at threshold 0.95 over that at 0.05, where it falls nowhere."""

    def ratio(analysis: Analysis) -> float:
        flops: list[float] = [point.flop_reduction.exact_count for point in _inner_points(analysis).values()]
        return flops[-1] / flops[0] if all(later >= earlier for earlier, later in pairwise(flops)) else 1.0

    return _over_analyses(evidence, dataset, ratio)


def threshold_is_smooth(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 6: minus the largest fall of the score between neighbouring thresholds, in points."""
    name = evidence.score_name(dataset)

    def falls(analysis: Analysis) -> list[float]:
        scores = [point.scores[name] for point in _inner_points(analysis).values()]
        return [100 * float(earlier - later) for earlier, later in pairwise(scores)]

    found = _over_analyses(evidence, dataset, lambda analysis: -max(falls(analysis)))
    return found and replace(found, note=_joined(_steepest_step(evidence, dataset, falls), found.note))


def _steepest_step(evidence: Evidence, dataset: str, falls: Callable[[Analysis], list[float]]) -> str:
    """In which step the score falls most in most runs, how much Flop-r grows there, and the falls of other steps."""
    analyses = [
        analysis for model in evidence.models(dataset, skims) for analysis in evidence.analysed(dataset, model).values()
    ]
    steps = np.array([falls(analysis) for analysis in analyses])
    steepest, count = Counter(steps.argmax(axis=1).tolist()).most_common(1)[0]
    ends = [[*_inner_points(analysis).values()][steepest : steepest + 2] for analysis in analyses]
    before, after = np.mean([[point.flop_reduction.exact_count for point in points] for points in ends], axis=0)
    first, second = (point.threshold for point in ends[0])
    elsewhere = (-np.delete(steps, steepest, axis=1).max(axis=1)).tolist()
    return (
        f"in {count} of {count_of(len(analyses), 'run')} from {first:g} to {second:g}, where Flop-r goes from "
        f"{before:.1f} to {after:.1f}; in the other steps {_mean_of(elsewhere)} points"
    )


def _inner_points(analysis: Analysis) -> dict[int, Any]:
    """The sweep's points by their places, without the ends, at which all is read or all skimmed."""
    return {place: point for place, point in enumerate(_sweep(analysis).points) if 0 < point.threshold < 1}


def _over_analyses(evidence: Evidence, dataset: str, value: Callable[[Analysis], float]) -> Estimate | None:
    found = {
        run_name(dataset, model, seed): (value(analysis), _swept(analysis))
        for model in evidence.models(dataset, skims)
        for seed, analysis in evidence.analysed(dataset, model).items()
    }
    if not found:
        return None
    values, samples = zip(*found.values(), strict=True)
    return estimate(values, "run", list(found), note=samples[0])


def skimming_beats_shrinking(
    evidence: Evidence, dataset: str, shrunk: Literal["hidden_size", "num_layers"]
) -> Estimate | None:
    """Claim 8: F1 of skimming readers less that of standard ones with less of `shrunk`, at their Flop-r, in points.

    Where no sweep reaches the Flop-r of any of the smaller ones, the estimate counts no seed and its note says so.
    """
    pairs: dict[str, Pairs] = {"exact_count": {}, "published_convention": {}}
    beyond: dict[str, list[tuple[float, float]]] = {}
    swept = ""
    for skim, small in _skimming_and_shrunk(evidence, dataset, shrunk):
        own, its = evidence.analysed(dataset, skim), evidence.analysed(dataset, small)
        for seed in sorted(set(own) & set(its)):
            included = _sweep(own[seed]).included.unpack().astype(bool)
            reductions = evidence.finished(dataset, small)[seed].record.flop_reduction
            swept = _swept(own[seed])
            for convention, found in pairs.items():
                target = getattr(reductions, convention)
                flops, outcomes = sweep_curve(own[seed], "f1", convention)
                if flops[0] <= target <= flops[-1]:
                    f1 = at_flops(flops, outcomes, np.array([target]))[0]
                    by_example = 100 * (f1 - its[seed].outcomes["f1"].unpack()[included])
                    found.setdefault((skim, small), {})[seed] = (float(by_example.mean()), by_example)
                elif convention == "exact_count":
                    end = 0 if target < flops[0] else -1
                    lead = float(outcomes[end].mean() - its[seed].outcomes["f1"].unpack()[included].mean())
                    place = f"{small} (Flop-r {target:.2f}) lies beyond a sweep of {skim}"
                    beyond.setdefault(place, []).append((flops[end], 100 * lead))
    exact, published = (_over_seeds(dataset, found) for found in pairs.values())
    if exact is None and not beyond:
        return None
    ends = [
        "{}, whose nearest point ({:.2f}) lies {:+.1f} points from it".format(place, *np.mean(found, axis=0))
        for place, found in beyond.items()
    ]
    note = _joined(*ends, _by_published(published), swept)
    return replace(exact, note=note) if exact else Estimate(nan, None, 0, "seed", note=note)


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
    note = _joined(
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


STATISTICS: dict[StatisticName, Callable[[Evidence, str], Estimate | None]] = {
    "accuracy_kept": accuracy_kept,
    "flop_reduction_at_accuracy": flop_reduction_at_accuracy,
    "gamma_effect": gamma_effect,
    "layer_skim_rate": layer_skim_rate,
    "layer_confidence": layer_confidence,
    "modelling_layer_skim_rate": partial(layer_skim_rate, layers=MODELLING_LAYERS),
    "modelling_layer_confidence": partial(layer_confidence, layers=MODELLING_LAYERS),
    "skimming_beats_skipping": skimming_beats_skipping,
    "threshold_moves_flops": threshold_moves_flops,
    "threshold_is_smooth": threshold_is_smooth,
    "bidaf_cost": bidaf_cost,
    "skimming_beats_fewer_layers": partial(skimming_beats_shrinking, shrunk="num_layers"),
    "skimming_beats_smaller_size": partial(skimming_beats_shrinking, shrunk="hidden_size"),
    "speedup_below_flops": speedup_below_flops,
    "gap_closes": gap_closes,
    "kernels_beat_numpy": kernels_beat_numpy,
    "kernels_beat_numpy_on_texts": kernels_beat_numpy_on_texts,
    "beats_gpu_latency": beats_gpu_latency,
}
