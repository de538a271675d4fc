"""The tables of confidence: how sure each LSTM is of its decisions, and whether the second layer is surer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats
from tabulate import tabulate

from skimrnn.analysis.artefact import Analysis, CalibrationBin, Confidence
from skimrnn.data.registry import get_dataset
from skimrnn.files import write_text
from skimrnn.reporting.estimates import over_examples, run_name
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.records import Measured
from skimrnn.reporting.statistics import LAYERS, MODELLING_LAYERS, confidence_difference
from skimrnn.reporting.systems import skims, system_titles
from skimrnn.reporting.table import NOT_RUN, WARNING


@dataclass(frozen=True)
class Number:
    """A number as it is shown and as it is sorted, and the runs that it comes from."""

    text: str
    value: float
    runs: tuple[str, ...]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ConfidenceTable:
    """One table about one dataset; a cell is a label or a number."""

    caption: str
    headings: tuple[str, ...]
    rows: list[list[str | Number]]


def write_confidence(evidence: Evidence, folder: Path) -> None:
    """Write `confidence.md` into `folder`."""
    write_text(folder / "confidence.md", confidence_markdown(evidence))


def confidence_markdown(evidence: Evidence) -> str:
    """One section a dataset with its tables."""
    parts = [f"# Confidence of the decisions, {evidence.config.scale} scale"]
    if evidence.config.data.source == "embedded":
        parts.append(f"> {WARNING}")
    parts.append(LEGEND)
    for dataset in evidence.config.datasets:
        parts.append(f"## {get_dataset(dataset).title}")
        tables = confidence_tables(evidence, dataset)
        for table in tables:
            parts.append(f"{table.caption}:")
            parts.append(tabulate(table.rows, table.headings, tablefmt="github", disable_numparse=True))
        if not tables:
            parts.append(f"{NOT_RUN.capitalize()}.")
    return "\n\n".join(parts) + "\n"


def confidence_tables(evidence: Evidence, dataset: str) -> list[ConfidenceTable]:
    """Confidence by LSTM, the paired tests between layers, calibration, and what is skimmed; those that have rows."""
    makers = (_by_lstm, _layer_tests, _calibration, _groups)
    return [table for maker in makers if (table := maker(evidence, dataset)).rows]


def _by_lstm(evidence: Evidence, dataset: str) -> ConfidenceTable:
    """A row for each LSTM of each skimming model, mean ± sd over the seeds that were analysed."""
    measures: dict[str, tuple[int, Callable[[Confidence], float]]] = {
        "Skimmed (%)": (1, lambda c: 100 * c.skim_rate),
        "Confidence (%)": (1, lambda c: 100 * c.mean),
        "Entropy (bits)": (2, lambda c: c.entropy),
        "Beyond .9 (%)": (1, lambda c: 100 * c.beyond_90),
    }
    rows: list[list[str | Number]] = []
    for title, direction, found in _lstms(evidence, dataset):
        runs = tuple(found)
        numbers = [
            _mean([value(confidence) for confidence in found.values()], digits, runs)
            for digits, value in measures.values()
        ]
        rows.append([title, direction, Number(str(len(found)), len(found), runs), *numbers])
    return ConfidenceTable("Confidence of each LSTM", ("Model", "LSTM", "Seeds", *measures), rows)


def _layer_tests(evidence: Evidence, dataset: str) -> ConfidenceTable:
    """For each two-layer run the difference between layers over questions, its interval and a signed-rank test."""
    rows: list[list[str | Number]] = []
    for title, run, analysis in _analysed(evidence, dataset):
        for layers in (LAYERS, MODELLING_LAYERS):
            difference = confidence_difference(analysis, layers)
            if difference is None:
                continue
            points = 100 * difference
            low, high = over_examples(points)
            p = float(stats.wilcoxon(difference).pvalue) if np.any(difference) else 1.0
            rows.append(
                [
                    title,
                    f"{layers[1]} less {layers[0]}",
                    Number(str(analysis.config.seed), analysis.config.seed, (run,)),
                    Number(f"{points.mean():+.1f} [{low:+.1f}, {high:+.1f}]", float(points.mean()), (run,)),
                    Number("< 1e-6" if p < 1e-6 else f"{p:.2g}", p, (run,)),
                    Number(f"{len(difference):,}", len(difference), (run,)),
                ]
            )
    headings = ("Model", "Layers", "Seed", "Difference (points)", "p (Wilcoxon)", "Questions")
    return ConfidenceTable(_LAYER_TESTS, headings, rows)


def _calibration(evidence: Evidence, dataset: str) -> ConfidenceTable:
    """A row for each LSTM and bin of p(read): what reading gains, over the reversed decisions of all seeds."""
    rows: list[list[str | Number]] = []
    for title, direction, found in _lstms(evidence, dataset):
        for bins in zip(*(confidence.calibration for confidence in found.values()), strict=True):
            if (pooled := CalibrationBin.pooled(bins)).decisions:
                rows.append([title, direction, f"{pooled.low:g} to {pooled.high:g}", *_reversed(pooled, tuple(found))])
    headings = ("Model", "LSTM", "p(read)", "Decisions", "Reading gains", "Answers changed (%)")
    return ConfidenceTable("What reversing one decision does, by p(read), all seeds together", headings, rows)


def _reversed(pooled: CalibrationBin, runs: tuple[str, ...]) -> list[Number]:
    """Decisions, what reading gains with its standard error where it is known, answers changed."""
    gain, changed = pooled.reading_gain or 0.0, 100 * (pooled.answers_changed or 0.0)
    spread = "" if pooled.reading_gain_error is None else f" ± {pooled.reading_gain_error:.4f}"
    return [
        Number(f"{pooled.decisions:,}", pooled.decisions, runs),
        Number(f"{gain:+.4f}{spread}", gain, runs),
        Number(f"{changed:.1f}", changed, runs),
    ]


def _groups(evidence: Evidence, dataset: str) -> ConfidenceTable:
    """A row for each group of tokens, a column for each model: the share that is skimmed."""
    columns: dict[str, dict[tuple[str, str], dict[str, float]]] = {}
    for title, run, analysis in _analysed(evidence, dataset):
        for group in analysis.skim.groups if analysis.skim else []:
            share = 100 * float(np.mean(group.skimmed)) / group.tokens
            columns.setdefault(title, {}).setdefault((group.grouping, group.name), {})[run] = share
    groups = list(dict.fromkeys(group for column in columns.values() for group in column))
    rows: list[list[str | Number]] = [
        [*group, *(_mean(list(column[group].values()), 1, tuple(column[group])) for column in columns.values())]
        for group in groups
    ]
    caption = "What is skimmed (share of the tokens in %, all LSTMs)"
    return ConfidenceTable(caption, ("By", "Tokens", *columns), rows)


def _lstms(evidence: Evidence, dataset: str) -> Iterator[tuple[str, str, dict[str, Confidence]]]:
    """Each LSTM of each model: the model's title, the LSTM's name and its confidence, by run."""
    found: dict[tuple[str, str], dict[str, Confidence]] = {}
    for title, run, analysis in _analysed(evidence, dataset):
        for confidence in analysis.skim.confidence if analysis.skim else []:
            found.setdefault((title, confidence.direction), {})[run] = confidence
    for (title, direction), by_run in found.items():
        yield title, direction, by_run


def _analysed(evidence: Evidence, dataset: str) -> Iterator[tuple[str, str, Analysis]]:
    """The title of its model, the name and the analysis of each run that skims, those that did not end included."""
    results = evidence.of(dataset)
    assert results is not None
    titles = system_titles(results.config)
    for model in evidence.models(dataset, skims):
        for seed in evidence.config.seeds_of(dataset):
            if analysis := evidence.analyses.get((dataset, model, seed)):
                yield titles[model], run_name(dataset, model, seed), analysis


def _mean(values: list[float], digits: int, runs: tuple[str, ...]) -> Number:
    """Mean ± sample standard deviation."""
    found = Measured(tuple(values))
    spread = "" if found.sd is None else f" ± {found.sd:.{digits}f}"
    return Number(f"{found.mean:.{digits}f}{spread}", found.mean, runs)


_LAYER_TESTS = (
    "Confidence of the second layer less that of the first, by question (as if questions about one paragraph were "
    "independent, which they are not: intervals are too narrow)"
)

LEGEND = (
    "Each LSTM (a layer in a direction) of each skimming model, over all tokens of the scored split. Confidence is the "
    "mean of max(p_read, p_skim), entropy that of the decision in bits, beyond .9 the share of decisions with a "
    "confidence above it; mean ± sample standard deviation over seeds. Reversing a decision: one decision of a text is "
    "reversed and all others are left to the model; what reading gains is the loss where the token is skimmed less "
    "that where it is read (mean ± standard error). A calibrated p(read) is high where reading gains much."
)
