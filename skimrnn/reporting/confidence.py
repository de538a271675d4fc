"""The table of confidence: how sure each LSTM is of its decisions, and whether the second layer is surer."""

from pathlib import Path

import numpy as np
from scipy import stats
from tabulate import tabulate

from skimrnn.analysis.artefact import Confidence
from skimrnn.data.registry import get_dataset
from skimrnn.files import write_text
from skimrnn.reporting.estimates import over_examples
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.records import Measured
from skimrnn.reporting.statistics import confidence_difference, skims
from skimrnn.reporting.systems import system_titles
from skimrnn.reporting.table import NOT_RUN, WARNING

HEADINGS = ("Model", "LSTM", "Seeds", "Skimmed (%)", "Confidence (%)", "Entropy (bits)", "Beyond .9 (%)")
_BIN_HEADINGS = ("Model", "LSTM", "p(read)", "Decisions", "Reading gains", "Answers changed (%)")


def write_confidence(evidence: Evidence, folder: Path) -> None:
    """Write `confidence.md` into `folder`."""
    write_text(folder / "confidence.md", confidence_markdown(evidence))


def confidence_markdown(evidence: Evidence) -> str:
    """One section a dataset: confidence by LSTM, the paired test between layers, calibration, and what is skimmed."""
    parts = [f"# Confidence of the decisions, {evidence.config.scale} scale"]
    if evidence.config.data.source == "embedded":
        parts.append(f"> {WARNING}")
    parts.append(LEGEND)
    for dataset in evidence.config.datasets:
        parts.append(f"## {get_dataset(dataset).title}")
        rows = confidence_rows(evidence, dataset)
        parts.append(_table(rows, HEADINGS) if rows else f"{NOT_RUN.capitalize()}.")
        tests = layer_tests(evidence, dataset)
        if tests:
            headings = ("Model", "Seed", "Layer 2 less layer 1 (points)", "p (Wilcoxon)", "Questions")
            parts += ["Confidence of the second layer less that of the first, by question:", _table(tests, headings)]
        if rows:
            parts += ["What reversing one decision does, by p(read) (all seeds):", _calibration(evidence, dataset)]
            parts += [
                "What is skimmed (share of the tokens in %, all LSTMs, mean over seeds):",
                _groups(evidence, dataset),
            ]
    return "\n\n".join(parts) + "\n"


def confidence_rows(evidence: Evidence, dataset: str) -> list[list[str]]:
    """A row for each LSTM of each skimming model, mean ± sd over the seeds that were analysed."""
    rows = []
    for model, title in _titles(evidence, dataset).items():
        for direction, found in by_direction(evidence, dataset, model).items():
            cells = [
                Measured(tuple(value(c) for c in found))
                for value in (
                    lambda c: 100 * c.skim_rate,
                    lambda c: 100 * c.mean,
                    lambda c: c.entropy,
                    lambda c: 100 * c.beyond_90,
                )
            ]
            texts = [_text(cell, 2 if place == 2 else 1) for place, cell in enumerate(cells)]
            rows.append([title, direction, str(len(found)), *texts])
    return rows


def by_direction(evidence: Evidence, dataset: str, model: str) -> dict[str, list[Confidence]]:
    """The confidences of each LSTM of a model, one a seed; runs at an unfinished step included."""
    found: dict[str, list[Confidence]] = {}
    for seed in evidence.config.seeds_of(dataset):
        analysis = evidence.analyses.get((dataset, model, seed))
        for confidence in analysis.skim.confidence if analysis and analysis.skim else []:
            found.setdefault(confidence.direction, []).append(confidence)
    return found


def layer_tests(evidence: Evidence, dataset: str) -> list[list[str]]:
    """For each two-layer run the difference between layers over questions, its interval and a signed-rank test."""
    rows = []
    for model, title in _titles(evidence, dataset).items():
        for seed in evidence.config.seeds_of(dataset):
            analysis = evidence.analyses.get((dataset, model, seed))
            if analysis is None or analysis.skim is None:
                continue
            if not {"layer 1 forward", "layer 2 forward"} <= set(analysis.skim.directions):
                continue
            difference = confidence_difference(analysis)
            low, high = over_examples(100 * difference)
            p = stats.wilcoxon(difference).pvalue if np.any(difference) else 1.0
            estimate = f"{100 * difference.mean():+.1f} [{low:+.1f}, {high:+.1f}]"
            rows.append([title, str(seed), estimate, "< 1e-6" if p < 1e-6 else f"{p:.2g}", str(len(difference))])
    return rows


def _calibration(evidence: Evidence, dataset: str) -> str:
    rows = []
    for model, title in _titles(evidence, dataset).items():
        for direction, found in by_direction(evidence, dataset, model).items():
            for bins in zip(*(confidence.calibration for confidence in found), strict=True):
                weights = np.array([point.decisions for point in bins])
                if not weights.sum():
                    continue
                gains = np.array([point.reading_gain or 0 for point in bins])
                errors = np.array([point.reading_gain_error or 0 for point in bins])
                changed = np.array([point.answers_changed or 0 for point in bins])
                gain = (weights @ gains) / weights.sum()
                error = np.sqrt((weights**2) @ errors**2) / weights.sum()
                span = f"{bins[0].low:g} to {bins[0].high:g}"
                share = f"{100 * (weights @ changed) / weights.sum():.1f}"
                rows.append([title, direction, span, str(weights.sum()), f"{gain:+.4f} ± {error:.4f}", share])
    return _table(rows, _BIN_HEADINGS)


def _groups(evidence: Evidence, dataset: str) -> str:
    columns: dict[str, dict[tuple[str, str], list[float]]] = {}
    for model, title in _titles(evidence, dataset).items():
        for seed in evidence.config.seeds_of(dataset):
            analysis = evidence.analyses.get((dataset, model, seed))
            for group in analysis.skim.groups if analysis and analysis.skim else []:
                share = 100 * float(np.mean(group.skimmed)) / group.tokens
                columns.setdefault(title, {}).setdefault((group.grouping, group.name), []).append(share)
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [
        [grouping, name, *(_text(Measured(tuple(column[grouping, name])), 1) for column in columns.values())]
        for grouping, name in names
    ]
    return _table(rows, ("By", "Tokens", *columns))


def _titles(evidence: Evidence, dataset: str) -> dict[str, str]:
    results = evidence.of(dataset)
    assert results is not None
    titles = system_titles(results.config)
    return {name: titles[name] for name in evidence.models(dataset, skims)}


def _text(cell: Measured, digits: int) -> str:
    return f"{cell.mean:.{digits}f}" + ("" if cell.sd is None else f" ± {cell.sd:.{digits}f}")


def _table(rows: list[list[str]], headings: tuple[str, ...]) -> str:
    return tabulate(rows, headings, tablefmt="github", disable_numparse=True)


LEGEND = (
    "Each LSTM (a layer in a direction) of each skimming model, over all tokens of the scored split. Confidence is the "
    "mean of max(p_read, p_skim), entropy that of the decision in bits, beyond .9 the share of decisions with a "
    "confidence above it; mean ± sample standard deviation over seeds. Reversing a decision: one decision of a text is "
    "reversed and all others are left to the model; what reading gains is the loss where the token is skimmed less "
    "that where it is read (mean ± standard error). A calibrated p(read) is high where reading gains much."
)
