"""The committed results: the reports are made from the records, and the README quotes the reports."""

import re
from pathlib import Path

import pytest

from skimrnn.config import read_config
from skimrnn.files import read_model
from skimrnn.measures.gpu import GPUReport
from skimrnn.reporting.benchmark import markdown as cpu_markdown
from skimrnn.reporting.benchmark import read_runs
from skimrnn.reporting.gpu_benchmark import markdown
from skimrnn.reporting.records import read_task_results
from skimrnn.reporting.table_formats import write_tables
from skimrnn.training.record import read_reading_record, read_record

ROOT = Path(__file__).parent.parent.parent
RECORDS = [path for path in ROOT.glob("results/*/*/*/*.json") if path.stem.isdigit() and "smoke" not in path.parts]


def test_the_tables_follow_from_the_records(tmp_path: Path):
    config = read_config(ROOT / "config" / "paper.yaml")
    for task in config.tasks:
        write_tables(read_task_results(config, task, ROOT / "results"), tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ROOT / "reports" / "paper" / path.name).read_bytes(), f"{path.name}: make report"


def test_the_gpus_table_follows_from_its_measurements():
    report = read_model(ROOT / "results" / "benchmark" / "gpu.json", GPUReport)
    assert markdown(report) == (ROOT / "reports" / "benchmark" / "gpu.md").read_text(encoding="utf-8")


def test_the_cpus_table_follows_from_its_measurements():
    runs = read_runs(ROOT / "results" / "benchmark" / "cpu.json")
    assert cpu_markdown(*runs) == (ROOT / "reports" / "benchmark" / "benchmark.md").read_text(encoding="utf-8")


def test_the_readme_quotes_the_tables():
    tables = ("paper/classification.md", "benchmark/benchmark.md")
    reported = {line for name in tables for line in (ROOT / "reports" / name).read_text(encoding="utf-8").splitlines()}
    quoted = re.findall(r"^\|.*\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quoted) >= 10 and [line for line in quoted if line not in reported] == []


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
