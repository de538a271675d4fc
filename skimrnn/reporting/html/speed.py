"""The speed benchmark as the page shows it: the figures, drawn anew from the measurements, and the tables."""

import io
from dataclasses import dataclass
from pathlib import Path

from matplotlib import style

from skimrnn.reporting.benchmark import FIGURES, BenchmarkTable, benchmark_remarks, benchmark_tables, read_runs
from skimrnn.reporting.figure_style import STYLE
from skimrnn.reporting.html.pictures import Picture

_WORDS = {
    "speedup": (
        "Speed-up against skim rate",
        "Batch 1, one thread, T = 300, d' = 10: the standard LSTM's time over the Skim-LSTM's, each in the same "
        "setting; dotted: the float operations alone.",
        "Line charts, one for each d, of speed-up against skim rate; the table of skimming gives the numbers.",
    ),
    "plain": (
        "A standard LSTM, by library",
        "Batch 1, one thread, T = 300: microseconds a token, medians with 95 % intervals.",
        "Bar charts, one for each d, of the time a token by library; the table gives the numbers.",
    ),
}


@dataclass(frozen=True)
class Benchmark:
    """What the page says of the benchmark."""

    remarks: list[str]
    pictures: list[Picture]
    tables: list[BenchmarkTable]


def read_benchmark(path: Path) -> Benchmark | None:
    """The benchmark whose measurements lie at `path`, and beside it; None where there are none."""
    if not path.exists():
        return None
    report, *others = read_runs(path)
    pictures = []
    with style.context(["default", STYLE]):
        for name, draw in FIGURES.items():
            if figure := draw(report):
                file = io.BytesIO()
                figure.savefig(file, format="svg", metadata={"Date": None})
                pictures.append(Picture.inline(*_WORDS[name], file.getvalue()))
    return Benchmark(benchmark_remarks(report, *others), pictures, benchmark_tables(report, *others))
