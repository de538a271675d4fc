"""The benchmark of a GPU: what it says without one, how it measures, and what it makes of what it measured."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from skimrnn.benchmarks.gpu import GPUReport, Measurement, measure_gpu, targets_of
from skimrnn.benchmarks.timing import summarise
from skimrnn.cli import app
from skimrnn.provenance import environment
from skimrnn.reporting.gpu_benchmark import markdown


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench-gpu", "--output", str(tmp_path / "gpu.json")])
    assert result.exit_code == 2
    assert result.output == "error: no GPU that torch can use here: run this on a machine that has one\n"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def measured() -> list[Measurement]:
    seconds = {"torch": 0.002, "skim": 0.0028, "reference": 0.5, "one after another": 0.06, "packed": 0.02}
    return [
        Measurement(
            benchmark="pack" if name in ("packed", "one after another") else "step",
            name=name,
            batch=32,
            steps=50,
            models=10,
            seconds=summarise([value * 0.9, value, value * 5.0]),
        )
        for name, value in seconds.items()
    ]


def test_ratios_are_those_of_the_medians(measured: list[Measurement]) -> None:
    targets = targets_of(measured)
    assert [target.ratio for target in targets] == pytest.approx([1.4, 0.5 / 0.0028, 3.0])
    assert [target.met for target in targets] == [True, True, False]
    assert len(targets_of(measured[:3])) == 2


def test_the_table_has_targets_and_what_they_are_made_of(measured: list[Measurement]) -> None:
    report = GPUReport(environment=environment(), measurements=measured, targets=targets_of(measured))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(report).splitlines()]
    assert ["a step of SkimLSTM over one of nn.LSTM", "32", "50", "at most 1.5", "1.40", "reached"] in lines
    assert ["runs an hour packed over one after another", "32", "50", "at least 5", "3.00", "short"] in lines
    assert ["32", "50", "skim", "2.80", "2.52 to 14.00"] in lines
    assert "Medians of 3 interleaved rounds" in markdown(report)


def test_it_measures_each_setting_with_its_samples() -> None:
    """On the CPU, where the same code runs, and packs do not."""
    lines: list[str] = []
    report = measure_gpu(torch.device("cpu"), 5, lines.append, batches=(2,), steps=(3, 4))
    assert [(m.name, m.steps) for m in report.measurements] == [
        *((name, steps) for steps in (3, 4) for name in ("torch", "skim", "reference")),
        ("torch", 300),
    ]
    assert all(len(m.seconds.samples) == 5 for m in report.measurements)
    assert len(report.targets) == len(lines) == 4
    assert "One text of 300 tokens" in markdown(report)
