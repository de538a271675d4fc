"""The figures of each task, as SVG, PDF and PNG."""

from pathlib import Path

from matplotlib import style

from skimrnn.reporting.analysis_figures import ANALYSIS_FIGURES, READING_ANALYSIS_FIGURES
from skimrnn.reporting.figure_style import STYLE, FigureKind, write_figure
from skimrnn.reporting.record_figures import READING_RECORD_FIGURES, RECORD_FIGURES
from skimrnn.reporting.records import Results

FIGURES = (*RECORD_FIGURES, *ANALYSIS_FIGURES)
READING_FIGURES = (*READING_RECORD_FIGURES, *READING_ANALYSIS_FIGURES)


def write_figures(results: Results, folder: Path) -> None:
    """Write every figure of a task as `<name>.svg`, `<name>.pdf` and `<name>.png` into `folder`."""
    with style.context(["default", STYLE]):
        for kind in figures_of(results):
            write_figure(kind.figure(results), folder, kind.name)


def figures_of(results: Results) -> tuple[FigureKind, ...]:
    """The figures of the task that the results are about."""
    return READING_FIGURES if results.config.tasks == ["question_answering"] else FIGURES
