"""The statistics of claims 5, 6 and 8, about what becomes of score and Flop-r as the threshold moves."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from math import nan
from typing import Any, Literal

import numpy as np

from skimrnn.analysis.artefact import Analysis, Sweep
from skimrnn.config import LSTMAttConfig, SkimLSTMAttConfig
from skimrnn.counts import count_of
from skimrnn.reporting.estimates import (
    Estimate,
    Pairs,
    joined,
    mean_of,
    over_pairs,
    over_runs,
    signed,
)
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.systems import is_lstm, is_skim_lstm, skims

_CONVENTIONS = ("exact_count", "published_convention")
_GRID = 9  # Values of Flop-r at which two curves are compared.


def largest_reduction_swept(evidence: Evidence, dataset: str, allowed_loss: float) -> str:
    """What claim 2 leaves out, for its note: the largest Flop-r at that accuracy at any threshold, and which it is."""
    best, note = 0.0, ""
    for model, reference in evidence.beside_standard(dataset, is_skim_lstm, is_lstm):
        own, its = evidence.analysed(dataset, model), evidence.analysed(dataset, reference)
        if not (seeds := sorted(set(own) & set(its))):
            continue
        included = [_sweep(own[seed]).included.unpack().astype(bool) for seed in seeds]
        accuracies = [
            its[seed].outcomes["accuracy"].unpack()[kept].mean() for seed, kept in zip(seeds, included, strict=True)
        ]
        for place, point in _inner_points(own[seeds[0]]).items():
            points = [_sweep(own[seed]).points[place] for seed in seeds]
            reduction = float(np.mean([each.flop_reduction.published_convention for each in points]))
            lost = [
                100 * (each.scores["accuracy"] - standard) for each, standard in zip(points, accuracies, strict=True)
            ]
            if np.mean(lost) >= -allowed_loss and reduction > best:
                best = reduction
                note = f"{reduction:.2f}x ({model} at threshold {point.threshold:g}, accuracy {mean_of(lost)} points)"
    return joined(
        note and f"at any threshold, picked on the texts that score it, {note}", note and _sampled(evidence, dataset)
    )


def skimming_beats_skipping(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 5: score of skimming less that of skipping at equal Flop-r, in points.

    Of equally spaced values of Flop-r most lie between the last thresholds of a sweep, so that its note has the same at
    equally spaced numbers of operations, too.
    """
    exact, published, exact_by_steps, published_by_steps = (
        over_pairs(dataset, _leads_of_skimming(evidence, dataset, convention, targets))
        for targets in (_equal_steps_of_flop_r, _equal_steps_of_operations)
        for convention in _CONVENTIONS
    )
    if exact is None or exact_by_steps is None:
        return None
    by_steps = f"at equal steps of operations {signed(exact_by_steps.value, exact_by_steps.interval)}"
    spaced = ", ".join(filter(None, (by_steps, _by_published(published_by_steps))))
    return replace(exact, note=joined(_by_published(published), spaced, _sampled(evidence, dataset)))


def _leads_of_skimming(
    evidence: Evidence, dataset: str, convention: str, targets: Callable[[float, float], np.ndarray]
) -> Pairs:
    """Scores of models that skim less those of the ones that skip, at the `targets` between two values of Flop-r."""
    name, pairs = evidence.score_name(dataset), Pairs()
    for skim, skip in _skimming_and_skipping(evidence, dataset):
        own, its = evidence.analysed(dataset, skim), evidence.analysed(dataset, skip)
        for seed in sorted(set(own) & set(its)):
            curves = [sweep_curve(analysis, name, convention) for analysis in (own[seed], its[seed])]
            low, high = max(flops.min() for flops, _ in curves), min(flops.max() for flops, _ in curves)
            if low < high:
                scores = [at_flops(*curve, targets(low, high)).mean(axis=0) for curve in curves]
                by_example = 100 * (scores[0] - scores[1])
                pairs.setdefault((skim, skip), {})[seed] = (float(by_example.mean()), by_example)
    return pairs


def _equal_steps_of_flop_r(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, _GRID)


def _equal_steps_of_operations(low: float, high: float) -> np.ndarray:
    return 1 / np.linspace(1 / high, 1 / low, _GRID)


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


def _sampled(evidence: Evidence, dataset: str) -> str:
    """On how much of the scored split the analyses were swept over the threshold; nothing where on all of it."""
    analyses = (
        analysis for model in evidence.models(dataset, skims) for analysis in evidence.analysed(dataset, model).values()
    )
    included = _sweep(next(analyses)).included.unpack()
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

    return _over_analyses(evidence, dataset, ratio, sign="")


def threshold_is_smooth(evidence: Evidence, dataset: str) -> Estimate | None:
    """Claim 6: minus the largest fall of the score between neighbouring thresholds, in points."""
    name = evidence.score_name(dataset)

    def falls(analysis: Analysis) -> list[float]:
        scores = [point.scores[name] for point in _inner_points(analysis).values()]
        return [100 * float(earlier - later) for earlier, later in pairwise(scores)]

    found = _over_analyses(evidence, dataset, lambda analysis: -max(falls(analysis)))
    return found and replace(found, note=joined(_steepest_step(evidence, dataset, falls), found.note))


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
        f"{before:.1f} to {after:.1f}; in the other steps {mean_of(elsewhere)} points"
    )


def _inner_points(analysis: Analysis) -> dict[int, Any]:
    """The sweep's points by their places, without the ends, at which all is read or all skimmed."""
    return {place: point for place, point in enumerate(_sweep(analysis).points) if 0 < point.threshold < 1}


def _over_analyses(
    evidence: Evidence, dataset: str, value: Callable[[Analysis], float], sign: str = "+"
) -> Estimate | None:
    found = {
        model: {seed: value(analysis) for seed, analysis in analyses.items()}
        for model in evidence.models(dataset, skims)
        if (analyses := evidence.analysed(dataset, model))
    }
    return over_runs(dataset, found, note=_sampled(evidence, dataset), sign=sign) if found else None


def skimming_beats_shrinking(
    evidence: Evidence, dataset: str, shrunk: Literal["hidden_size", "num_layers"]
) -> Estimate | None:
    """Claim 8: F1 of skimming readers less that of standard ones with less of `shrunk`, at their Flop-r, in points.

    Where no sweep reaches the Flop-r of any of the smaller ones, the estimate counts no seed and its note says so.
    """
    pairs: dict[str, Pairs] = {convention: {} for convention in _CONVENTIONS}
    bounds: Pairs = {}  # With the nearest point of a sweep in the place of what it does not reach.
    beyond: dict[str, list[tuple[float, float]]] = {}
    for skim, small in _skimming_and_shrunk(evidence, dataset, shrunk):
        own, its = evidence.analysed(dataset, skim), evidence.analysed(dataset, small)
        for seed in sorted(set(own) & set(its)):
            included = _sweep(own[seed]).included.unpack().astype(bool)
            reductions = evidence.finished(dataset, small)[seed].record.flop_reduction
            for convention, found in pairs.items():
                target = getattr(reductions, convention)
                flops, outcomes = sweep_curve(own[seed], "f1", convention)
                f1 = at_flops(flops, outcomes, np.array([target]))[0]
                by_example = 100 * (f1 - its[seed].outcomes["f1"].unpack()[included])
                lead = (float(by_example.mean()), by_example)
                reached = flops[0] <= target <= flops[-1]
                if reached:
                    found.setdefault((skim, small), {})[seed] = lead
                if convention == "exact_count":
                    bounds.setdefault((skim, small), {})[seed] = lead
                    if not reached:
                        place = f"{small} (Flop-r {target:.2f}) lies beyond a sweep of {skim}"
                        beyond.setdefault(place, []).append((np.clip(target, flops[0], flops[-1]), lead[0]))
    exact, published, bound = (over_pairs(dataset, found) for found in (*pairs.values(), bounds))
    if bound is None:
        return None
    ends = [
        "{}, whose nearest point ({:.2f}) lies {:+.1f} points from it".format(place, *np.mean(found, axis=0))
        for place, found in beyond.items()
    ]
    if exact and beyond:
        ends.append(f"with the nearest points in its place {signed(bound.value, bound.interval)}")
    note = joined(*ends, _by_published(published), _sampled(evidence, dataset))
    return replace(exact, note=note) if exact else Estimate(nan, None, 0, "seed", note=note)


def _by_published(found: Estimate | None) -> str:
    return f"by the published convention {signed(found.value, found.interval)}" if found else ""
