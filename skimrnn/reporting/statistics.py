"""The statistics of the claims: each is larger where its claim is truer, and None where nothing was run."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from skimrnn.analysis.artefact import Analysis
from skimrnn.config import ModelConfig
from skimrnn.counts import count_of
from skimrnn.published.claims import StatisticName
from skimrnn.reporting.estimates import (
    Estimate,
    Pairs,
    estimate,
    joined,
    mean_of,
    over_pairs,
    over_runs,
    run_name,
    signed,
)
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.speed_statistics import (
    beats_gpu_latency,
    gap_closes,
    kernels_beat_numpy,
    kernels_beat_numpy_on_texts,
    speedup_below_flops,
)
from skimrnn.reporting.sweep_statistics import (
    largest_reduction_swept,
    skimming_beats_shrinking,
    skimming_beats_skipping,
    threshold_is_smooth,
    threshold_moves_flops,
)
from skimrnn.reporting.systems import is_lstm, is_skim_lstm, skims

ALLOWED_LOSS = 1.0
"""Points of accuracy that a model may lose and still count as accurate: the margin of the first claim."""


def accuracy_kept(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 1: accuracy of the Skim-LSTMs less the standard LSTM's, in points."""
    return _score_difference(evidence, dataset, is_skim_lstm, is_lstm)


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
    for model, reference in evidence.beside_standard(dataset, chosen, standard):
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
    incomplete = "" if complete else "without analyses of all runs: interval over seeds alone"
    return over_pairs(dataset, pairs, joined(incomplete, _by_setting(evidence, dataset, pairs)))


def _by_setting(evidence: Evidence, dataset: str, pairs: Pairs) -> str:
    """The same of the pairs of each d and of each gamma alone, where there are several."""
    models, parts = evidence.models(dataset, skims), []
    for setting, symbol in (("hidden_size", "d"), ("gamma", "γ")):
        groups: dict[float, Pairs] = {}
        for both, found in pairs.items():
            groups.setdefault(getattr(models[both[0]], setting), {})[both] = found
        for value, group in sorted(groups.items()) if len(groups) > 1 else ():
            if alone := over_pairs(dataset, group):
                parts.append(f"of {symbol} = {value:g} alone {signed(alone.value, alone.interval)}")
    return ", ".join(parts)


def flop_reduction_at_accuracy(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 2: the largest Flop-r (published convention) of a Skim-LSTM that keeps the standard LSTM's accuracy."""
    best: Estimate | None = None
    seeds: list[int] = []
    for model, reference in evidence.beside_standard(dataset, is_skim_lstm, is_lstm):
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
            lost = f", accuracy {mean_of(kept)} points" if kept else ""
            note = f"{model}{lost}; by the exact count {exact:.1f}"
            found = estimate(reductions, "seed", runs, note=note)
            best = replace(found, count=min(len(own), len(its)))  # The accuracy that is kept has its seeds, too.
    if best is None and seeds:
        best = Estimate(1.0, (1.0, 1.0), min(seeds), "seed", note="no Skim-LSTM keeps the accuracy")
    return best and replace(best, note=joined(best.note, largest_reduction_swept(evidence, dataset, ALLOWED_LOSS)))


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
    return over_pairs(dataset, pairs, note)


LAYERS = ("layer 1", "layer 2")
"""The two layers of LSTM+Att, as the names of their sequences begin."""
MODELLING_LAYERS = ("modelling 1", "modelling 2")
"""The same of BiDAF."""


def layer_skim_rate(evidence: Evidence, dataset: str, layers: tuple[str, str] = LAYERS) -> Estimate | None:
    """Claims 4 and 12: skim rate of the second of two layers less that of the first, in points."""
    values: dict[str, dict[int, float]] = {}
    for model in evidence.models(dataset, skims):
        for seed, run in evidence.finished(dataset, model).items():
            rates = run.record.test.layer_skim_rates
            first, second = ([rates[name] for name in of_layer(layer, rates)] for layer in layers)
            if first and second:
                values.setdefault(model, {})[seed] = 100 * float(np.mean(second) - np.mean(first))
    return over_runs(dataset, values, note=_by_model(values))


def layer_confidence(evidence: Evidence, dataset: str, layers: tuple[str, str] = LAYERS) -> Estimate | None:
    """Claims 4 and 12: confidence of the second of two layers less that of the first, in points, by question."""
    values: dict[str, dict[int, float]] = {}
    by_example = []
    for model in evidence.models(dataset, skims):
        for seed, analysis in evidence.analysed(dataset, model).items():
            if (difference := confidence_difference(analysis, layers)) is not None:
                by_example.append(100 * difference)
                values.setdefault(model, {})[seed] = float(by_example[-1].mean())
    return over_runs(dataset, values, by_example, _by_model(values))


def _by_model(values: dict[str, dict[int, float]]) -> str:
    """What each model has by itself, over its seeds: models may lie on either side of their mean."""
    each = [f"{model} {mean_of([*found.values()])}" for model, found in values.items()]
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
