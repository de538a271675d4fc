"""Every claim on trial: a verdict computed from the records, by the rule that stands beside the claim."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from skimrnn.counts import count_of
from skimrnn.data.registry import get_dataset
from skimrnn.files import write_text
from skimrnn.published.claims import Claim, Part, StatisticName, published_claims
from skimrnn.reporting.estimates import Estimate
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.statistics import STATISTICS
from skimrnn.reporting.table import WARNING

Verdict = Literal["supported", "contradicted", "inconclusive", "not tested"]

MEASURES: dict[StatisticName, tuple[str, str]] = {
    "accuracy_kept": ("accuracy, skimming less standard", "points"),
    "flop_reduction_at_accuracy": ("largest Flop-r at that accuracy", "x"),
    "gamma_effect": ("skim rate, larger gamma less smaller", "points"),
    "layer_skim_rate": ("skim rate, layer 2 less layer 1", "points"),
    "layer_confidence": ("confidence, layer 2 less layer 1", "points"),
    "modelling_layer_skim_rate": ("skim rate, modelling layer 2 less modelling layer 1", "points"),
    "modelling_layer_confidence": ("confidence, modelling layer 2 less modelling layer 1", "points"),
    "skimming_beats_skipping": ("score at equal Flop-r, skimming less skipping", "points"),
    "threshold_moves_flops": ("Flop-r at threshold 0.95 over that at 0.05", "x"),
    "threshold_is_smooth": ("largest fall of the score in a step, negated", "points"),
    "bidaf_cost": ("F1, Sk-BiDAF less BiDAF", "points"),
    "skimming_beats_fewer_layers": ("F1 at equal Flop-r, skimming less fewer layers", "points"),
    "skimming_beats_smaller_size": ("F1 at equal Flop-r, skimming less a smaller d", "points"),
    "speedup_below_flops": ("1 less the largest Sp / Flop-r", ""),
    "gap_closes": ("Sp / Flop-r, largest d less smallest", ""),
    "kernels_beat_numpy": ("Sp / Flop-r, kernels less NumPy", ""),
    "kernels_beat_numpy_on_texts": ("Sp / Flop-r, kernels less NumPy, on test texts", ""),
    "beats_gpu_latency": ("time a token, GPU less CPU", "µs"),
}
"""What each statistic measures, in words, and its unit."""


_BENCHMARK: list[str | None] = [None]


@dataclass(frozen=True)
class Finding:
    """One statistic on one dataset (None: the benchmark of the layers); the estimate is None where nothing was run.

    It counts nothing where what was run lies out of each other's reach.
    """

    part: Part
    dataset: str | None
    estimate: Estimate | None

    @property
    def verdict(self) -> Verdict:
        """By the part's rule."""
        found = self.estimate
        if found is None or found.interval is None or found.count < self.part.minimum:
            return "not tested"
        low, high = found.interval
        if low > self.part.threshold:
            return "supported"
        return "contradicted" if high < self.part.threshold else "inconclusive"

    @property
    def subject(self) -> str:
        """What it is about."""
        if self.dataset:
            return get_dataset(self.dataset).title
        return "benchmarks of CPU and GPU" if self.part.statistic == "beats_gpu_latency" else "benchmark"

    @property
    def measure(self) -> str:
        """What is measured, in words."""
        return MEASURES[self.part.statistic][0]

    @property
    def numbers(self) -> str:
        """The estimate with its interval, and how much data it rests on."""
        found, unit = self.estimate, MEASURES[self.part.statistic][1]
        if found is None:
            return "not run"
        if not found.count:
            return "out of reach"
        digits = 1 if unit == "points" else 2
        text = f"{_signed(found.value, digits, unit)}"
        if found.interval is not None:
            text += " [" + ", ".join(_signed(end, digits, unit) for end in found.interval) + "]"
        text += f"{'' if unit == 'x' else ' ' * bool(unit)}{unit} ({count_of(found.count, found.counted)})"
        if found.count < self.part.minimum:
            text += f"; too little data, needs {count_of(self.part.minimum, found.counted)}"
        return text


def _signed(value: float, digits: int, unit: str) -> str:
    value = round(value, digits) + 0.0  # No "-0.00".
    return f"{value:.{digits}f}" if unit == "x" else f"{value:+.{digits}f}"


@dataclass(frozen=True)
class Trial:
    """A claim with what was found about each of its parts."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The claim's, from those of its findings."""
        verdicts = {finding.verdict for finding in self.findings} - {"not tested"}
        if not verdicts:
            return "not tested"
        if "contradicted" in verdicts:
            return "contradicted"
        return "supported" if verdicts == {"supported"} else "inconclusive"

    @property
    def tested(self) -> str:
        """How much of it could be tested."""
        return f"{sum(f.verdict != 'not tested' for f in self.findings)} of {len(self.findings)}"


def try_claims(evidence: Evidence) -> list[Trial]:
    """Every claim with its verdict, in their order."""
    return [
        Trial(
            claim,
            tuple(
                Finding(part, dataset, STATISTICS[part.statistic](evidence, dataset or ""))
                for part in claim.parts
                for dataset in part.datasets or _BENCHMARK
            ),
        )
        for claim in published_claims()
    ]


def claims_markdown(evidence: Evidence, trials: list[Trial]) -> str:
    """The scorecard, and each claim with its rules, numbers and the runs behind them."""
    parts = [f"# The claims on trial, {evidence.config.scale} scale"]
    if evidence.config.data.source == "embedded":
        parts.append(f"> {WARNING}")
    parts.append(INTRODUCTION)
    rows = [[t.claim.number, t.claim.statement, f"**{t.verdict}**", t.tested] for t in trials]
    parts.append(tabulate(rows, ["", "Claim", "Verdict", "Parts tested"], tablefmt="github", disable_numparse=True))
    for trial in trials:
        parts.append(f"## {trial.claim.number}. {trial.claim.statement}")
        parts.append(f"{trial.claim.where}. Verdict: **{trial.verdict}**.")
        rules = [
            f"- {MEASURES[part.statistic][0]} (above {part.threshold:g}): {part.rule}" for part in trial.claim.parts
        ]
        parts.append("\n".join(rule.rstrip() for rule in rules))
        rows = [
            [f.measure, f.subject, f.numbers, f.verdict, f.estimate.note if f.estimate else ""] for f in trial.findings
        ]
        headings = ["Measure", "Data", "Estimate [95 % interval]", "Verdict", "Note"]
        parts.append(tabulate(rows, headings, tablefmt="github", disable_numparse=True))
        if runs := list(dict.fromkeys(run for f in trial.findings if f.estimate for run in f.estimate.runs)):
            parts.append(f"Records: {', '.join(_grouped(runs))}.")
    return "\n\n".join(parts) + "\n"


def write_claims(evidence: Evidence, folder: Path) -> None:
    """Write `claims.md` into `folder`."""
    write_text(folder / "claims.md", claims_markdown(evidence, try_claims(evidence)))


def _grouped(runs: list[str]) -> list[str]:
    """Sources with the seeds of one model together: `sst/lstm/{0,1,2}`."""
    names: dict[str, list[str]] = {}
    for run in runs:
        folder, name = run.rsplit("/", 1)
        names.setdefault(folder, []).append(name)
    found = []
    for folder, own in names.items():
        own.sort(key=lambda name: (int(name) if name.isdigit() else 0, name))
        found.append(f"`{folder}/{own[0] if len(own) == 1 else '{' + ','.join(own) + '}'}`")
    return found


INTRODUCTION = (
    "The claims of the paper, and one of ours that follows from them, each judged by a rule that was fixed beforehand "
    "in `skimrnn/published/claims.yaml` (some were mended since: it says which and why). Each statistic is "
    "larger where its claim is truer. A part is supported where the whole 95 % interval lies above its threshold, "
    "contradicted where it lies below, else inconclusive; the interval is the wider of a paired bootstrap over test "
    "examples (as if they were independent, though SQuAD's questions share paragraphs) and Student's t over seeds (or "
    "runs, or settings: as if those were independent, too, though runs share seeds and settings). Each of the two "
    "covers one source of scatter; one for both would be up to 1.4 times as wide. None is corrected for the number of "
    "claims. A claim is contradicted when a part of it is, supported when all that could be tested is. "
    "Runs whose training did not end are left out."
)
