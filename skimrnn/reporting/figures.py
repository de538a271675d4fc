"""The figures: accuracy against Flop-r, skim rates, and the course of training, as SVG and PNG.

Equal records give equal bytes: the identifiers in the SVG are salted with a constant, and no date is written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from skimrnn.config import SkimLSTMConfig, SkimmingConfig
from skimrnn.data.registry import get_dataset
from skimrnn.files import atomic_path
from skimrnn.reporting.records import Results, Run
from skimrnn.reporting.systems import paper_value, system_titles
from skimrnn.reporting.table import NOT_RUN

# The colours of Okabe and Ito and a grey, which colour-blind readers can tell apart; markers and dashes do so in print.
_STANDARD, _SKIM = "#0072B2", "#D55E00"
_COLOURS = (_STANDARD, _SKIM, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (3, 1, 1, 1)))
_PANEL = (3.6, 2.6)  # Inches: two panels fill the width of a printed page.
STYLE: dict[str, Any] = {
    "svg.hashsalt": "skimrnn",
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


@dataclass(frozen=True)
class FigureKind:
    """A figure: its file name, title and caption, what a reader who cannot see it is told, and what draws it."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Results], Figure]


def write_figures(results: Results, folder: Path) -> None:
    """Write every figure of a task as `<name>.svg` and `<name>.png` into `folder`."""
    with style.context(["default", STYLE]):
        for kind in figures_of(results):
            figure = kind.draw(results)
            for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                with atomic_path(folder / f"{kind.name}.{suffix}") as path:
                    figure.savefig(path, format=suffix, metadata=metadata)


def figures_of(results: Results) -> tuple[FigureKind, ...]:
    """The figures of the task that the results are about."""
    return READING_FIGURES if results.config.tasks == ["question_answering"] else FIGURES


def _accuracy_flops(results: Results) -> Figure:
    def draw(axes: Axes, dataset: str) -> None:
        for index, (name, model) in enumerate(results.config.models.items()):
            accuracy = results.measured(dataset, name, lambda record: 100 * record.test.accuracy)
            exact = results.measured(dataset, name, lambda record: record.flop_reduction.exact_count)
            published = results.measured(dataset, name, lambda record: record.flop_reduction.published_convention)
            if accuracy is None or exact is None or published is None:
                continue
            skims = isinstance(model, SkimLSTMConfig)
            look: dict[str, Any] = {"color": _SKIM if skims else _STANDARD, "marker": _MARKERS[index % len(_MARKERS)]}
            if skims:
                axes.plot([exact.mean, published.mean], [accuracy.mean] * 2, color="#999999", linewidth=0.7, zorder=1)
                axes.plot(published.mean, accuracy.mean, **look, markerfacecolor="white", linestyle="none")
            axes.errorbar(exact.mean, accuracy.mean, accuracy.sd, exact.sd, **look, linestyle="none", elinewidth=0.9)
        axes.set(xlabel="Flop-r", ylabel="Test accuracy (%)")
        axes.margins(0.12)
        axes.set_xlim(0.8, max(2.0, axes.get_xlim()[1]))  # So that a reduction of a few percent does not look large.

    figure = _panels(results, draw)
    handles = [
        Line2D([], [], color=_SKIM if isinstance(model, SkimLSTMConfig) else _STANDARD, marker=marker, linestyle="none")
        for model, marker in zip(results.config.models.values(), _cycle(_MARKERS, results), strict=True)
    ]
    labels = list(system_titles(results.config).values())
    handles.append(Line2D([], [], color=_SKIM, marker="o", markerfacecolor="white", linestyle="none"))
    _legend(figure, handles, [*labels, "open: published convention"])
    return figure


def _skim_rate(results: Results) -> Figure:
    titles = system_titles(results.config)
    models = {name: model for name, model in results.config.models.items() if isinstance(model, SkimLSTMConfig)}

    def draw(axes: Axes, dataset: str) -> None:
        for place, (name, model) in enumerate(models.items()):
            ours = results.measured(dataset, name, lambda record: 100 * record.test.skim_rate)
            if ours is None:
                axes.text(place - 0.08, 3, NOT_RUN, rotation=90, ha="center", va="bottom", color="#666666")
            else:
                axes.bar(place - 0.08, ours.mean, 0.5, yerr=ours.sd, color=_SKIM, error_kw={"elinewidth": 0.9})
            printed = None if results.synthetic else paper_value(dataset, model, "skim_rate")
            if printed is not None:
                axes.plot(place + 0.3, printed, "D", color="black", markerfacecolor="white", linestyle="none")
        axes.set(ylabel="Tokens skimmed (%)", ylim=(0, 100), xlim=(-0.6, len(models) - 0.4))
        axes.set_xticks(range(len(models)), [titles[name].removeprefix("Skim ") for name in models])
        axes.set_xlabel("d'/γ")
        axes.grid(visible=False, axis="x")

    figure = _panels(results, draw)
    handles = [Line2D([], [], color=_SKIM, marker="s", markersize=9, linestyle="none")]
    labels = ["ours (bar: sd over seeds)"]
    if not results.synthetic:
        handles.append(Line2D([], [], color="black", marker="D", markerfacecolor="white", linestyle="none"))
        labels.append("paper (one run)")
    _legend(figure, handles, labels)
    return figure


def _training(results: Results, quality: Callable[[Any], float], label: str) -> Figure:
    def draw(axes: Axes, dataset: str, value: Callable[[Any], float], label: str, standard: bool) -> None:
        for index, (name, model) in enumerate(results.config.models.items()):
            runs = results.of_model(dataset, name)
            if not runs or not (standard or isinstance(model, SkimmingConfig)):
                continue
            look = {"color": _COLOURS[index % len(_COLOURS)], "linestyle": _DASHES[index % len(_DASHES)]}
            curves = [_curve(run, value) for run in runs]
            for curve in curves:
                axes.plot(list(curve), list(curve.values()), color=look["color"], linewidth=0.6, alpha=0.35)
            common = sorted(set.intersection(*map(set, curves)))
            axes.plot(common, [fmean(curve[step] for curve in curves) for step in common], **look)
        axes.set(xlabel="Training step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    figure = _panels(
        results,
        lambda axes, dataset: draw(axes, dataset, quality, label, True),
        lambda axes, dataset: draw(axes, dataset, lambda scores: scores.skim_rate, "Tokens skimmed (%)", False),
    )
    handles = [
        Line2D([], [], color=colour, linestyle=dash)
        for colour, dash in zip(_cycle(_COLOURS, results), _cycle(_DASHES, results), strict=True)
    ]
    _legend(figure, handles, list(system_titles(results.config).values()))
    return figure


def _curve(run: Run, value: Callable[[Any], float]) -> dict[int, float]:
    """The percentage `value` at each validation, by step."""
    return {point.step: 100 * value(point.validation) for point in run.record.training.history}


def _panels(results: Results, *draw: Callable[[Axes, str], None]) -> Figure:
    """A panel a dataset, two to a line; with several `draw` functions a line a dataset and a panel a function.

    Datasets that were not run have none, unless nothing was run.
    """
    datasets = [dataset for dataset in results.config.datasets if results.of_dataset(dataset)]
    panels = [(dataset, function) for dataset in datasets or results.config.datasets for function in draw]
    columns = min(2, len(panels)) if len(draw) == 1 else len(draw)
    lines = -(-len(panels) // columns)
    figure = Figure((columns * _PANEL[0], lines * _PANEL[1] + 0.5), layout="constrained")
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


def _cycle(values: tuple[Any, ...], results: Results) -> list[Any]:
    """One value a model of the config, from the first again when they run out."""
    return [values[index % len(values)] for index in range(len(results.config.models))]


def _legend(figure: Figure, handles: list[Line2D], labels: list[str]) -> None:
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


FIGURES = (
    FigureKind(
        "accuracy_flops",
        "Accuracy against float operations",
        "Test accuracy against Flop-r, how many times fewer float operations than the standard LSTM. Filled markers: "
        "the exact count; open markers: the same runs in the paper's published convention. Means over seeds, bars ± "
        "one sample standard deviation.",
        "Scatter plots, one for each dataset, of test accuracy against Flop-r; the tables give the numbers.",
        _accuracy_flops,
    ),
    FigureKind(
        "skim_rate",
        "Skim rate",
        "Share of the real test tokens that each Skim-LSTM (d'/γ) skims: means over seeds, bars ± one sample standard "
        "deviation.",
        "Bar charts, one for each dataset, of the skim rate of each Skim-LSTM; the tables give the numbers.",
        _skim_rate,
    ),
    FigureKind(
        "training",
        "Course of training",
        "Validation accuracy and skim rate against training steps. Strong lines: means over the seeds, as far as all "
        "of them trained; faint lines: single seeds.",
        "Line charts, two for each dataset, of validation accuracy and skim rate against training steps.",
        lambda results: _training(results, lambda scores: scores.accuracy, "Validation accuracy (%)"),
    ),
)

READING_FIGURES = (
    FigureKind(
        "reading_training",
        "Course of training",
        "F1 on the development set and skim rate against training steps; a skimming reader's count from where it takes "
        "over from the standard one. Strong lines: means over the seeds, as far as all of them trained; faint lines: "
        "single seeds.",
        "Line charts of F1 and skim rate against training steps.",
        lambda results: _training(results, lambda scores: scores.f1, "F1 (%)"),
    ),
)
