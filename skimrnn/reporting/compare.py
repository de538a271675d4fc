"""Two groups of records side by side, for who has changed a model and wants to know whether it got better."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table
from scipy import stats

from skimrnn.analysis.artefact import Analysis
from skimrnn.counts import count_of
from skimrnn.data.registry import DATASETS
from skimrnn.errors import UserError
from skimrnn.files import read_json
from skimrnn.reporting.estimates import LEVEL, estimate, over_repeats
from skimrnn.reporting.records import analysis_of
from skimrnn.training.record import read_reading_record, read_record

_MEASURES: dict[str, dict[str, Callable[[Any], float]]] = {
    "classification": {"accuracy (%)": lambda record: 100 * record.test.accuracy},
    "question_answering": {
        "F1 (%)": lambda record: 100 * record.test.f1,
        "EM (%)": lambda record: 100 * record.test.em,
    },
}
_COMMON: dict[str, Callable[[Any], float]] = {
    "skimmed (%)": lambda record: 100 * record.test.skim_rate,
    "Flop-r (exact)": lambda record: record.flop_reduction.exact_count,
}
_OUTCOMES = {"accuracy (%)": "accuracy", "F1 (%)": "f1", "EM (%)": "em"}


@dataclass(frozen=True)
class Difference:
    """One measure on a dataset and model: the two groups' means, B less A with its interval, and the p of a test.

    `paired` names how: `seed, example`, `seed`, or `no` (Welch); None in interval and p where there is too
    little for them.
    """

    dataset: str
    models: tuple[str, str]
    measure: str
    left: tuple[float, int]  # mean, records
    right: tuple[float, int]
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    paired: str


def compare_records(left: str, right: str) -> list[Difference]:
    """Compare the records at two places (folders, files or globs), by the datasets and models that both have.

    Where each has one model of a dataset, these are compared, whatever they are called.
    """
    groups = [_read(place) for place in (left, right)]
    common = [dataset for dataset in groups[0] if dataset in groups[1]]
    if not common:
        raise UserError(f"{left} and {right}: no dataset in common: compare records of one dataset")
    found = []
    for dataset in common:
        measures = _MEASURES[DATASETS[dataset].task] | _COMMON
        for models in _pairs(dataset, *(group[dataset] for group in groups)):
            runs = groups[0][dataset][models[0]], groups[1][dataset][models[1]]
            _require_one_data(dataset, runs)
            found += [_difference(dataset, models, name, value, *runs) for name, value in measures.items()]
    return found


def _pairs(dataset: str, left: Iterable[str], right: Iterable[str]) -> list[tuple[str, str]]:
    """The models that are compared with one another."""
    left, right = list(left), list(right)
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    if not (common := [(model, model) for model in left if model in right]):
        raise UserError(f"{dataset}: no model in common: name one on each side, such as results/paper/{dataset}/lstm")
    return common


@dataclass(frozen=True)
class _Run:
    path: Path
    record: Any
    analysis: Analysis | None


def _read(place: str) -> dict[str, dict[str, list[_Run]]]:
    """The runs below a folder, at a file or that match a glob, by dataset and model."""
    root = Path(place)
    while not root.is_dir():  # The last folder in a glob that is none itself.
        root = root.parent
    pattern = Path(place).relative_to(root).as_posix()
    try:
        found = [root] if pattern == "." else list(root.glob(pattern))
        paths = {path for each in found for path in (each.rglob("*.json") if each.is_dir() else [each])}
        records = sorted(path for path in paths if path.name.removesuffix(".json").isdigit())
    except ValueError as error:
        raise UserError(
            f"{place}: not a glob ({error}): name a folder of results, a record or a quoted glob"
        ) from error
    if not records:
        raise UserError(f"{place}: no records (<seed>.json) there: name a folder of results, a record or a quoted glob")
    runs: dict[str, dict[str, list[_Run]]] = {}
    for path in records:
        try:
            dataset = str(read_json(path)["config"]["dataset"])
        except (KeyError, TypeError):
            dataset = ""
        if dataset not in DATASETS:
            raise UserError(f"{path}: not a record: name folders or files of records alone")
        asked = DATASETS[dataset].task == "question_answering"
        record = (read_reading_record if asked else read_record)(path)
        of_model = runs.setdefault(dataset, {}).setdefault(record.config.model_name, [])
        of_model.append(_Run(path, record, analysis_of(path, record)))
    return runs


def _require_one_data(dataset: str, groups: tuple[list[_Run], list[_Run]]) -> None:
    scored = "validation" if DATASETS[dataset].task == "question_answering" else "test"
    first = groups[0][0]
    for run in [*groups[0], *groups[1]]:
        if run.record.data.release[scored].sha256 != first.record.data.release[scored].sha256:
            raise UserError(f"{first.path} and {run.path} are scored on different texts: they cannot be compared")


def _difference(
    dataset: str,
    models: tuple[str, str],
    name: str,
    value: Callable[[Any], float],
    left: list[_Run],
    right: list[_Run],
) -> Difference:
    values = [np.array([value(run.record) for run in runs]) for runs in (left, right)]
    means = tuple((float(v.mean()), len(v)) for v in values)
    by_seed = [_by_seed(runs, value) for runs in (left, right)]
    difference = float(values[1].mean() - values[0].mean())
    one_each = all(len(runs) == len(seeds) for runs, seeds in zip((left, right), by_seed, strict=True))
    if one_each and by_seed[0].keys() == by_seed[1].keys():
        seeds = sorted(by_seed[0])
        pairs = [by_seed[1][seed] - by_seed[0][seed] for seed in seeds]
        examples = _by_example(seeds, name, left, right)
        found = estimate(pairs, "seed", [], examples)
        p, paired = _paired_p(pairs, examples), "seed, example" if examples else "seed"
        return Difference(dataset, models, name, means[0], means[1], difference, found.interval, p, paired)
    if min(len(v) for v in values) < 2:
        return Difference(dataset, models, name, means[0], means[1], difference, None, None, "no")
    if all(np.ptp(v) == 0 for v in values):  # As of what the standard LSTM skims: no test can be made.
        return Difference(dataset, models, name, means[0], means[1], difference, (difference, difference), None, "no")
    test = stats.ttest_ind(values[1], values[0], equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    interval, p = (float(low), float(high)), float(test.pvalue)
    return Difference(dataset, models, name, means[0], means[1], difference, interval, p, "no")


def _by_seed(runs: list[_Run], value: Callable[[Any], float]) -> dict[int, float]:
    return {run.record.config.seed: value(run.record) for run in runs}


def _by_example(seeds: list[int], name: str, left: list[_Run], right: list[_Run]) -> list[np.ndarray]:
    """B less A of each example, one array a seed; nothing where an analysis is missing or the examples differ."""
    found = []
    for seed in seeds:
        packed = [
            run.analysis.outcomes[_OUTCOMES[name]].unpack()
            for runs in (left, right)
            for run in runs
            if run.record.config.seed == seed and run.analysis is not None and name in _OUTCOMES
        ]
        if len(packed) != 2 or packed[0].shape != packed[1].shape:
            return []
        found.append(100 * (packed[1] - packed[0]))
    return found


def _paired_p(pairs: list[float], examples: list[np.ndarray]) -> float | None:
    """The larger p of two tests that the mean difference is zero: over examples (signs permuted) and over seeds (t)."""
    found = []
    if examples:
        means = np.mean(examples, axis=0)
        if means.any():
            test = stats.permutation_test(
                (means,),
                np.mean,
                permutation_type="samples",
                n_resamples=2_000,
                batch=max(1, 2_000_000 // len(means)),
                rng=np.random.default_rng(0),
            )
            found.append(float(test.pvalue))
        else:
            found.append(1.0)
    if (interval := over_repeats(pairs)) and interval[0] != interval[1]:
        found.append(float(stats.ttest_1samp(pairs, 0).pvalue))
    return max(found) if found else None


def comparison_tables(differences: list[Difference]) -> list[Table]:
    """The comparison as tables for the terminal, one for each dataset and model."""
    tables = []
    for (dataset, models), group in groupby(differences, lambda difference: (difference.dataset, difference.models)):
        own = list(group)
        sides = zip("AB", models, (own[0].left, own[0].right), strict=True)
        compared = ", ".join(f"{side} {model} ({count_of(mean[1], 'record')})" for side, model, mean in sides)
        title = f"{DATASETS[dataset].title}: {compared}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("Measure")
        for heading in ("A", "B", "B - A [95 % interval]", "p"):
            table.add_column(heading, justify="right")
        table.add_column("Paired by")
        for d in own:
            interval = "" if d.interval is None else f" [{d.interval[0]:+.2f}, {d.interval[1]:+.2f}]"
            p = "-" if d.p is None else "< 0.001" if d.p < 0.001 else f"{d.p:.3f}"
            clear = d.interval is not None and (d.interval[0] > 0 or d.interval[1] < 0)
            means, difference = [f"{mean:.2f}" for mean, _ in (d.left, d.right)], f"{d.difference:+.2f}{interval}"
            table.add_row(d.measure, *means, escape(difference), p, d.paired, style="bold" if clear else "")
        tables.append(table)
    tables[-1].caption = CAPTION
    tables[-1].caption_justify = "left"
    return tables


CAPTION = (
    "Bold: the interval leaves zero out. Paired where both sides have the same seeds: the interval is the wider of one "
    "over seeds and, where both have analyses, a bootstrap over examples; p the larger of both tests. Else Welch's."
)
