"""The benchmark's table on made-up measurements, whose ratios are known."""

from pathlib import Path

import pytest

from skimrnn.benchmarks.latency import NUMPY_SMALL_SIZE, SIZES, Cost, Measurement, Report
from skimrnn.benchmarks.peaks import Peaks
from skimrnn.benchmarks.timing import summarise
from skimrnn.files import write_json
from skimrnn.provenance import environment
from skimrnn.reporting.benchmark import markdown, read_runs, write_benchmark
from skimrnn.reporting.targets import target_rows


def measurement(benchmark: str, name: str, microseconds: float, cost: Cost | None = None, **setting: float):
    timing = summarise([microseconds * 300 / 1e6] * 9)
    return Measurement(
        benchmark=benchmark, name=name, setting=setting, tokens=300, timing=timing, cost=cost, peak_memory_mib=None
    )


@pytest.fixture
def report() -> Report:
    """Ours takes 3 us a token at any d, the others 6 and 4; Skim-LSTM takes a fifth of ours at a rate of 0.9."""
    bandwidth = {16 * size * size: 1e11 for size in SIZES}
    cost = Cost(flops=160_000, bytes=160_000, weights=160_000)
    measurements = []
    for size in SIZES:
        plain = {"ours": 3.0, "torch": 6.0, "onnxruntime": 4.0}
        measurements += [measurement("plain", name, us, cost, hidden_size=size) for name, us in plain.items()]
        for rate in (0.0, 0.9):
            setting = {"hidden_size": size, "small_size": NUMPY_SMALL_SIZE, "skim_rate": rate}
            for way in ("", " folded", " numpy"):
                measurements.append(measurement("skimming", f"lstm{way}", 3.0, **setting))
                measurements.append(measurement("skimming", f"skim{way}", 0.6 if rate else 3.0, **setting))
    peaks = Peaks(flops=1e11, bandwidth=bandwidth)
    return Report(environment=environment(), isa="plain", sweeps=3, peaks=peaks, skipped={}, measurements=measurements)


def test_ours_stands_beside_the_fastest_rival(report: Report):
    assert "0.75x of onnxruntime" in markdown(report)


def test_the_speedup_stands_beside_flop_r_and_the_fastest_library(report: Report):
    # 1 / (0.1 + 0.9 * 0.1 + 0.0025) = 5.19; 4.0 / 0.6 = 6.7.
    assert "Sp 5.00, 0.96 of Flop-r 5.19; 6.7" in markdown(report)


def test_the_bound_is_the_peak_that_takes_longest(report: Report):
    # 160,000 operations or bytes at 1e11 a second take 1.6 us, of 3.0 us: the cache, once it is slower.
    slower = report.model_copy(
        update={"peaks": Peaks(flops=1e11, bandwidth=dict.fromkeys(report.peaks.bandwidth, 8e10))}
    )
    assert "arithmetic 53%" in markdown(report)
    assert "cache 67%" in markdown(slower)


def test_the_files_are_written_the_same_twice(report: Report, tmp_path: Path):
    for name in ("one", "two"):
        write_benchmark(tmp_path / name, report)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [
        "benchmark.md",
        *(f"{figure}.{suffix}" for figure in ("plain", "speedup") for suffix in ("pdf", "png", "svg")),
    ]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_targets_are_held_against_the_medians(report: Report):
    rows = {row[0]: row[1:] for row in target_rows([report.measurements])}
    assert rows["Our standard LSTM's time over the fastest other library's, d = 100"] == [
        "at most 0.7",
        "0.75; short: 0 of 1",
    ]
    # Sp is 5 at any d; Flop-r at a rate of 0.9 is 5.19, 6.84 and 8.12 at d = 100, 200 and 400: 0.96, 0.73 and 0.62.
    on_demand = rows["Sp over Flop-r, on demand, all d and d', skim rates 0.5, 0.8, 0.9, 0.95"]
    assert on_demand == ["at least 0.7", "0.62 to 0.96; short in part: 2 of 3"]
    assert rows["A read step's time over the standard LSTM's, on demand, all d and d'"][1] == "1.00; reached: 3 of 3"
    assert rows["Its peak memory over nn.LSTM's"][1] == "not measured"
    assert "short in part: 2 of 3" in markdown(report)


def test_targets_of_other_machines_stand_beside(report: Report, tmp_path: Path):
    timing = summarise([4.8 * 300 / 1e6] * 9)
    slower = [m.model_copy(update={"timing": timing}) if m.name == "ours" else m for m in report.measurements]
    other = report.model_copy(update={"isa": "avx2", "measurements": slower})
    for name, run in (("cpu", report), ("cpu-old", other), ("gpu", other)):
        write_json(tmp_path / f"{name}.json", run.model_dump(mode="json"))
    runs = read_runs(tmp_path / "cpu.json")
    assert runs == [report, other]
    text = markdown(*runs)
    row = next(line for line in text.splitlines() if line.startswith("| Our standard LSTM's"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        "at most 0.7",
        "0.75; short: 0 of 1",
        "1.20; short: 0 of 1",
    ]
    assert text.count(", avx2") == 2  # In its heading, and among the remarks.


def test_readers_stand_beside_the_standard_one(report: Report):
    sizes = {"hidden_size": 100, "small_size": 20}
    readers = [
        measurement("reader_training", "lstm", 10.0, **sizes),
        measurement("reader_training", "skim", 14.0, **sizes),
        measurement("reader_evaluation", "lstm", 4.0, **sizes, skim_rate=0.8),
        measurement("reader_evaluation", "skim", 1.6, **sizes, skim_rate=0.8),
    ]
    rows = {row[0]: row[1:] for row in target_rows([readers])}
    assert rows["A training step of Sk-LSTM+Att over one of LSTM+Att"] == ["at most 1.5", "1.40; reached: 1 of 1"]
    # 1 / (0.2 + 0.8 * 0.2 + 0.0025) = 2.76, of which 2.5 is 0.91.
    evaluation = rows["Sp over the layers' Flop-r, evaluation of Sk-LSTM+Att, skim rates 0.5, 0.8, 0.9, 0.95"]
    assert evaluation == ["at least 0.8", "0.91; reached: 1 of 1"]
    text = markdown(report.model_copy(update={"measurements": readers}))
    assert "1.40x of lstm" in text and "Sp 2.50, 0.91 of Flop-r 2.76" in text


def test_a_run_says_how_far_its_sweeps_lie_apart_and_which_rates_it_drew(report: Report):
    samples = [1.0, 1.1, 0.9, 2.0, 2.1, 1.9, 3.0, 3.1, 2.9]
    apart = [m.model_copy(update={"timing": summarise(samples)}) for m in report.measurements]
    other = report.model_copy(update={"measurements": apart})
    assert "sweeps lie 0 % apart, by the median" in markdown(report)
    assert "sweeps lie 100 % apart, by the median" in markdown(other)
    assert "sweeps lie 100 % apart." in markdown(report, other) and "drawn" not in markdown(report, other)
    drawn = measurement("skimming", "lstm", 3.0, hidden_size=100, small_size=NUMPY_SMALL_SIZE, skim_rate=0.87)
    other = report.model_copy(update={"measurements": [*report.measurements, drawn]})
    assert "; its skim rates were drawn around those named: 0.87 to 0.87" in markdown(report, other)
