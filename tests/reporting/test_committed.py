"""The committed results: the reports are made from the records, and the README quotes the reports."""

import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from skimrnn.benchmarks.gpu import GPUReport
from skimrnn.config import read_config
from skimrnn.files import read_model
from skimrnn.reporting.benchmark import markdown as cpu_markdown
from skimrnn.reporting.benchmark import read_runs
from skimrnn.reporting.claims import Trial, claims_markdown, try_claims
from skimrnn.reporting.datasets import read_counts, write_dataset_tables
from skimrnn.reporting.evidence import Evidence, read_evidence
from skimrnn.reporting.gpu_benchmark import markdown
from skimrnn.reporting.records import read_task_results
from skimrnn.reporting.table_formats import write_tables
from skimrnn.training.record import read_reading_record, read_record
from tests.conftest import ROOT

RECORDS = [path for path in ROOT.glob("results/*/*/*/*.json") if path.stem.isdigit() and "smoke" not in path.parts]


def test_the_tables_follow_from_the_records(tmp_path: Path):
    config = read_config(ROOT / "config" / "paper.yaml")
    for task in config.tasks:
        write_tables(read_task_results(config, task, ROOT / "results"), tmp_path)
    write_dataset_tables(read_counts(ROOT / "results" / "paper" / "datasets.json"), tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ROOT / "reports" / "paper" / path.name).read_bytes(), f"{path.name}: make report"


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return read_evidence(read_config(ROOT / "config" / "paper.yaml"), ROOT / "results")


@pytest.fixture(scope="module")
def trials(evidence: Evidence) -> list[Trial]:
    return try_claims(evidence)


def test_the_claims_are_tried_on_the_records(evidence: Evidence, trials: list[Trial]):
    path = ROOT / "reports" / "paper" / "claims.md"
    assert claims_markdown(evidence, trials) == path.read_text(encoding="utf-8"), f"{path.name}: make report"


def test_the_readme_quotes_the_claims(trials: list[Trial]):
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = {
        (finding.part.statistic, finding.dataset): finding.estimate for trial in trials for finding in trial.findings
    }

    def quoted(statistic: str, dataset: str, text: str) -> str:
        estimate = found[statistic, dataset]
        low, high = (round(end, 1) + 0.0 for end in estimate.interval)
        return text.format(value=abs(estimate.value), low=low, high=high)

    for text in (
        quoted(
            "flop_reduction_at_accuracy",
            "imdb",
            "IMDb does: {value:.1f} times, {low:.1f} to {high:.1f} with 95 % confidence",
        ),
        quoted("flop_reduction_at_accuracy", "sst", "SST needs {value:.1f} times fewer, {low:.1f} to {high:.1f};"),
        quoted("skimming_beats_skipping", "sst", "{value:.1f} points more (95 %: {low:.1f} to {high:.1f}) on SST"),
        quoted("skimming_beats_skipping", "rotten_tomatoes", "({low:.1f} to {high:.1f}) on Rotten Tomatoes"),
        quoted("skimming_beats_skipping", "squad", "({low:.1f} to {high:.1f}) on SQuAD"),
        quoted("skimming_beats_fewer_layers", "squad", "dropping a layer does, by {value:.1f} points, {low:.1f} to"),
        quoted("skimming_beats_fewer_layers", "squad", "{value:.1f} points above it (95 %: {low:.1f} to {high:.1f})"),
        quoted("skimming_beats_smaller_size", "squad", "other lies {value:.1f} points lower, with two seeds"),
    ):
        assert text in readme
    # What their notes say.
    skipping = [found["skimming_beats_skipping", name].note for name in ("sst", "rotten_tomatoes", "squad")]
    number = r"convention \+(\S+) \[\+?(\S+), \+(\S+)\]"
    by_flops, by_steps = zip(*(re.findall(number, note) for note in skipping), strict=True)
    assert "{} ({} to {}), {} ({} to {}) and {} ({} to {}) points more".format(*chain(*by_flops)) in readme
    steps, flops = ([value for value, *_ in each] for each in (by_steps, by_flops))
    assert "at equal steps of operations it is {}, {} and {}".format(*steps) in readme
    both = (
        f"{min(flops)} to {max(flops)} points at equal steps of Flop-r and {min(steps)} to {max(steps)} at equal steps"
    )
    assert both in readme
    note = found["flop_reduction_at_accuracy", "sst"].note.partition("at any threshold")[2]
    (largest, *lost) = re.findall(r"it, (\S+)0x .* accuracy -(\S+) \[-(\S+), -(\S+)\]", note)[0]
    assert "SST comes to {} at {} points less, {} to {}".format(largest, lost[0], *reversed(lost[1:])) in readme
    (nearest,) = re.findall(r"nearest point \S+ lies -(\S+) points", found["skimming_beats_smaller_size", "squad"].note)
    assert f"{nearest} points lower where it comes nearest" in readme
    note = found["layer_confidence", "squad"].note
    pattern = r" -(\S+) \[.* -(\S+) \[.* \+(\S+) \[(\S+), \+(\S+)\].* \+(\S+) \[\+(\S+), \+(\S+)\]"
    numbers = re.findall(pattern, note)[0]
    confidence = "by {} and {} points, the two that skim with {} points more, {} to {}, and {} more, {} to {}"
    assert confidence.format(*numbers) in readme
    verdicts = Counter(trial.verdict for trial in trials)
    words = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    for verdict in ("supported", "contradicted", "inconclusive", "not tested"):
        assert f"**{words[verdicts[verdict]].capitalize()} are {verdict}**" in readme


def test_the_gpus_table_follows_from_its_measurements():
    report = read_model(ROOT / "results" / "benchmark" / "gpu.json", GPUReport)
    assert markdown(report) == (ROOT / "reports" / "benchmark" / "gpu.md").read_text(encoding="utf-8")


def test_the_cpus_table_follows_from_its_measurements():
    runs = read_runs(ROOT / "results" / "benchmark" / "cpu.json")
    assert cpu_markdown(*runs) == (ROOT / "reports" / "benchmark" / "benchmark.md").read_text(encoding="utf-8")


def test_the_readme_quotes_the_tables():
    tables = ("paper/classification.md", "paper/question_answering.md", "benchmark/benchmark.md")
    reported = {line for name in tables for line in (ROOT / "reports" / name).read_text(encoding="utf-8").splitlines()}
    quoted = re.findall(r"^\|.*\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quoted) >= 10 and [line for line in quoted if line not in reported] == []
    missed = [line for line in reported if "; short" in line and " of " in line]
    assert missed and [line for line in missed if line not in quoted] == []


def test_the_readme_quotes_the_choice_of_vectors():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    best = {
        (scale, dataset): 100
        * max(
            entry.validation.accuracy
            for entry in read_record(ROOT / f"results/{scale}/{dataset}/lstm/0.json").training.history
        )
        for scale in ("paper", "paper_glove10k")
        for dataset in ("sst", "rotten_tomatoes")
    }
    glove = f"{best['paper_glove10k', 'sst']:.1f} % validation accuracy on SST and "
    glove += f"{best['paper_glove10k', 'rotten_tomatoes']:.1f} % on Rotten Tomatoes"
    assert f"{glove}, against {best['paper', 'sst']:.1f} % and {best['paper', 'rotten_tomatoes']:.1f} %" in readme


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: "/".join(path.parts[-4:]))
def test_each_record_says_what_it_came_from_and_nothing_of_the_machines_folders(path: Path):
    record = (read_reading_record if path.parts[-3] == "squad" else read_record)(path)
    environment = record.training.environment
    assert environment.git_commit and environment.git_dirty is False
    assert path.parts[-4:-1] == (record.config.scale, record.config.dataset, record.config.model_name)
    assert int(path.stem) == record.config.seed
    assert not re.search(r'"(/|[A-Za-z]:\\\\)', path.read_text(encoding="utf-8"))
