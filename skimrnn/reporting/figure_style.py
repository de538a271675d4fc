"""The look of every figure, and the panels that they are made of.

Equal records give equal bytes: the identifiers in the SVG are salted with a constant, and no date is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skimrnn.data.registry import get_dataset
from skimrnn.files import atomic_path
from skimrnn.reporting.records import Results
from skimrnn.reporting.table import NOT_RUN

# The colours of Okabe and Ito and a grey, which colour-blind readers can tell apart; markers and dashes do so in print.
STANDARD, SKIM = "#0072B2", "#D55E00"
COLOURS = (STANDARD, SKIM, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (3, 1, 1, 1)))
PANEL = (3.6, 2.6)  # Inches: two panels fill the width of a printed page.
STYLE: dict[str, Any] = {
    "svg.hashsalt": "skimrnn",
    "svg.fonttype": "none",  # Text stays text: it can be selected and read aloud, and takes fewer bytes.
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 6,
    "errorbar.capsize": 2.5,
    "savefig.dpi": 200,
}


EXTENSIONS: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
"""The formats of each figure, and the metadata that keep equal figures equal."""


def write_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as `<name>.svg`, `<name>.pdf` and `<name>.png`."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # To find the layout takes as long as to draw: once does for all formats.
    for suffix, metadata in EXTENSIONS.items():
        with atomic_path(folder / f"{name}.{suffix}") as path:
            figure.savefig(path, format=suffix, metadata=metadata)


@dataclass(frozen=True)
class FigureKind:
    """A figure: its file name, title and caption, what a reader who cannot see it is told, and what draws it.

    One of `main_size` shows the models of the config's first d alone: with others its lines could not be told apart.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Results], Figure]
    main_size: bool = False

    def figure(self, results: Results) -> Figure:
        """The figure of some results."""
        return self.draw(_of_main_size(results) if self.main_size else results)

    def caption_of(self, results: Results) -> str:
        """The caption, which says where models are left out."""
        shown = _of_main_size(results).config.models
        if not self.main_size or len(shown) == len(results.config.models):
            return self.caption
        return f"{self.caption} Models with d = {next(iter(shown.values())).hidden_size}."


def _of_main_size(results: Results) -> Results:
    """The results of the models that have the d of the config's first one."""
    models = results.config.models
    size = next(iter(models.values())).hidden_size
    shown = {name: model for name, model in models.items() if model.hidden_size == size}
    return replace(results, config=results.config.model_copy(update={"models": shown}))


def panels_of(results: Results, *draw: Callable[[Axes, str], None]) -> Figure:
    """A panel a dataset, two to a line; with several `draw` functions a line a dataset and a panel a function.

    Datasets that were not run have none, unless nothing was run.
    """
    datasets = [dataset for dataset in results.config.datasets if results.of_dataset(dataset)]
    panels = [(dataset, function) for dataset in datasets or results.config.datasets for function in draw]
    columns = min(2, len(panels)) if len(draw) == 1 else len(draw)
    lines = -(-len(panels) // columns)
    figure = Figure((2 * PANEL[0], lines * PANEL[1] + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for axes, (dataset, function) in zip(grid, panels, strict=False):
        axes.set_title(get_dataset(dataset).title, loc="left")
        if results.of_dataset(dataset):
            function(axes, dataset)
        if not axes.has_data():
            axes.text(0.5, 0.5, NOT_RUN, transform=axes.transAxes, ha="center", va="center", color="#666666")
            axes.set(xticks=[], yticks=[])
    for axes in list(grid):
        axes.set_visible(False)
    return figure


def line_look(index: int) -> dict[str, Any]:
    """Colour and dash of the line of the n-th model: another pair for each of as many as there are pairs."""
    turn, place = divmod(index, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": DASHES[(place + turn) % len(DASHES)]}


def legend(figure: Figure, handles: Sequence[Artist], labels: list[str]) -> None:
    """One legend below all panels."""
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
