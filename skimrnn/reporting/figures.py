"""The figures of each task, as SVG, PDF and PNG."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import style

from skimrnn.reporting.analysis_figures import ANALYSIS_FIGURES, READING_ANALYSIS_FIGURES
from skimrnn.reporting.figure_style import STYLE, FigureKind, write_figure
from skimrnn.reporting.record_figures import READING_RECORD_FIGURES, RECORD_FIGURES
from skimrnn.reporting.records import Results

FIGURES = (*RECORD_FIGURES, *ANALYSIS_FIGURES)
READING_FIGURES = (*READING_RECORD_FIGURES, *READING_ANALYSIS_FIGURES)


def write_figures(tasks: Sequence[Results], folder: Path) -> None:
    """Write every figure of some tasks as `<name>.svg`, `<name>.pdf` and `<name>.png` into `folder`.

    All are drawn, and so all analyses read, before the first is written.
    """
    with style.context(["default", STYLE]):
        drawn = [(kind.name, kind.figure(results)) for results in tasks for kind in figures_of(results)]
        for name, figure in drawn:
            write_figure(figure, folder, name)


def figures_of(results: Results) -> tuple[FigureKind, ...]:
    """The figures of the task that the results are about."""
    return READING_FIGURES if results.config.tasks == ["question_answering"] else FIGURES
