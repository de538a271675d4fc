"""The claims on trial as the page shows them: each finding is a number with its rule and the runs behind it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from skimrnn.reporting.claims import Finding, Trial, Verdict, try_claims
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.html.cells import Cell
from skimrnn.reporting.html.origins import Origin, Origins, Part, environment_facts

MARKS: dict[Verdict, str] = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "not tested": "–"}
"""A sign for each verdict, beside its word."""


@dataclass(frozen=True)
class Tested:
    """A finding and its cell."""

    finding: Finding
    cell: Cell


@dataclass(frozen=True)
class Charge:
    """A claim with what was found about it; `untested` names the data of which nothing was run."""

    trial: Trial
    tested: list[Tested]
    untested: list[str]


@dataclass(frozen=True)
class Scorecard:
    """All claims, and how many have each verdict."""

    charges: list[Charge]
    counts: dict[Verdict, int]


def score_claims(evidence: Evidence, folder: Path, origins: Origins) -> Scorecard:
    """Try every claim on what was run; `folder` holds the records."""
    charges = []
    for trial in try_claims(evidence):
        tested = [
            Tested(finding, _cell(trial, finding, evidence, folder, origins))
            for finding in trial.findings
            if finding.estimate is not None
        ]
        untested = dict.fromkeys(finding.subject for finding in trial.findings if finding.estimate is None)
        charges.append(Charge(trial, tested, list(untested)))
    counts = Counter(charge.trial.verdict for charge in charges)
    return Scorecard(charges, {verdict: counts[verdict] for verdict in MARKS})


def _cell(trial: Trial, finding: Finding, evidence: Evidence, folder: Path, origins: Origins) -> Cell:
    assert finding.estimate is not None
    note = f"Rule: {finding.part.rule} Above {finding.part.threshold:g} speaks for the claim."
    parts = tuple(
        Part(run, "", source_of(run, evidence, folder, origins)) for run in dict.fromkeys(finding.estimate.runs)
    )
    title = f"Claim {trial.claim.number}, {finding.subject}: {finding.measure}"
    return Cell(
        finding.numbers, "ours", finding.estimate.value, origins.add(Origin(title, finding.numbers, note, parts))
    )


def source_of(run: str, evidence: Evidence, folder: Path, origins: Origins) -> str:
    """The key of what a run says of itself: `<dataset>/<model>/<seed>`, or `benchmark/<device>`."""
    if run.startswith("benchmark/"):
        if run == "benchmark/cpu":
            assert evidence.benchmark is not None
            environment, kernel = evidence.benchmark.environment, evidence.benchmark.isa
        else:
            assert evidence.gpu_benchmark is not None
            environment, kernel = evidence.gpu_benchmark.environment, "torch"
        return origins.source(folder / f"{run}.json", environment_facts(environment, kernel))
    dataset, model, seed = run.split("/")
    results = evidence.of(dataset)
    assert results is not None
    (found,) = (each for each in results.of_model(dataset, model) if each.record.config.seed == int(seed))
    return origins.run(found)
