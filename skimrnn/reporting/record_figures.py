"""The figures that need records alone: accuracy against Flop-r, skim rates, and the course of training."""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from skimrnn.reporting.figure_style import (
    MARKERS,
    SKIM,
    FigureKind,
    legend,
    line_look,
    panels_of,
)
from skimrnn.reporting.records import Results, Run
from skimrnn.reporting.systems import paper_value, skims, system_titles
from skimrnn.reporting.table import NOT_RUN


def _accuracy_flops(results: Results) -> Figure:
    def draw(axes: Axes, dataset: str) -> None:
        for index, (name, model) in enumerate(results.config.models.items()):
            accuracy = results.measured(dataset, name, lambda record: 100 * record.test.accuracy)
            exact = results.measured(dataset, name, lambda record: record.flop_reduction.exact_count)
            published = results.measured(dataset, name, lambda record: record.flop_reduction.published_convention)
            if accuracy is None or exact is None or published is None:
                continue
            look = _point_look(index)
            if skims(model):
                axes.plot([exact.mean, published.mean], [accuracy.mean] * 2, color="#999999", linewidth=0.7, zorder=1)
                axes.plot(published.mean, accuracy.mean, **look, markerfacecolor="white", linestyle="none")
            axes.errorbar(exact.mean, accuracy.mean, accuracy.sd, exact.sd, **look, linestyle="none", elinewidth=0.9)
        axes.set(xlabel="Flop-r", ylabel="Test accuracy (%)")
        axes.margins(0.12)
        right = max(2.0, axes.get_xlim()[1])  # So that a reduction of a few percent does not look large.
        axes.set_xlim(min(0.8, 1 - 0.04 * (right - 1)), right)  # The standard LSTM, at 1, is no half mark.

    figure = panels_of(results, draw)
    handles = [Line2D([], [], **_point_look(index), linestyle="none") for index in range(len(results.config.models))]
    labels = list(system_titles(results.config).values())
    handles.append(Line2D([], [], color="#666666", marker="o", markerfacecolor="white", linestyle="none"))
    legend(figure, handles, [*labels, "open: published convention"])
    return figure


def _point_look(index: int) -> dict[str, Any]:
    """Colour and marker of the points of the n-th model."""
    return {"color": line_look(index)["color"], "marker": MARKERS[index % len(MARKERS)]}


def _skim_rate(results: Results) -> Figure:
    titles = system_titles(results.config)

    def draw(axes: Axes, dataset: str) -> None:
        models = {n: m for n, m in results.config.models_of(dataset).items() if skims(m)}
        for place, (name, model) in enumerate(models.items()):
            ours = results.measured(dataset, name, lambda record: 100 * record.test.skim_rate)
            if ours is None:
                axes.text(place - 0.08, 3, NOT_RUN, rotation=90, ha="center", va="bottom", color="#666666")
            else:
                axes.bar(place - 0.08, ours.mean, 0.5, yerr=ours.sd, color=SKIM, error_kw={"elinewidth": 0.9})
            printed = None if results.synthetic else paper_value(dataset, model, "skim_rate")
            if printed is not None:
                axes.plot(place + 0.3, printed, "D", color="black", markerfacecolor="white", linestyle="none")
        axes.set(ylabel="Tokens skimmed (%)", ylim=(0, 100), xlim=(-0.6, len(models) - 0.4))
        axes.set_xticks(range(len(models)), [titles[name].removeprefix("Skim ").replace("/", "/\n") for name in models])
        axes.set_xlabel("d'/γ")
        axes.grid(visible=False, axis="x")

    figure = panels_of(results, draw)
    handles = [Line2D([], [], color=SKIM, marker="s", markersize=9, linestyle="none")]
    labels = ["ours (bar: sd over seeds)"]
    if not results.synthetic:
        handles.append(Line2D([], [], color="black", marker="D", markerfacecolor="white", linestyle="none"))
        labels.append("paper (one run)")
    legend(figure, handles, labels)
    return figure


def _training(results: Results, quality: Callable[[Any], float], label: str) -> Figure:
    def draw(axes: Axes, dataset: str, value: Callable[[Any], float], label: str, standard: bool) -> None:
        for index, (name, model) in enumerate(results.config.models.items()):
            runs = results.of_model(dataset, name)
            if not runs or not (standard or skims(model)):
                continue
            look = line_look(index)
            curves = [_curve(run, value) for run in runs]
            for curve in curves:
                axes.plot(list(curve), list(curve.values()), color=look["color"], linewidth=0.6, alpha=0.35)
            common = sorted(set.intersection(*map(set, curves)))
            axes.plot(common, [fmean(curve[step] for curve in curves) for step in common], **look)
        axes.set(xlabel="Training step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    figure = panels_of(
        results,
        lambda axes, dataset: draw(axes, dataset, quality, label, True),
        lambda axes, dataset: draw(axes, dataset, lambda scores: scores.skim_rate, "Tokens skimmed (%)", False),
    )
    titles = system_titles(results.config)
    shown = {
        titles[name]: Line2D([], [], **line_look(index))
        for index, name in enumerate(results.config.models)
        if any(results.of_model(dataset, name) for dataset in results.config.datasets)
    }
    legend(figure, list(shown.values()), list(shown))
    return figure


def _curve(run: Run, value: Callable[[Any], float]) -> dict[int, float]:
    """The percentage `value` at each validation, by step."""
    return {point.step: 100 * value(point.validation) for point in run.record.training.history}


RECORD_FIGURES = (
    FigureKind(
        "accuracy_flops",
        "Accuracy against float operations",
        "Test accuracy against Flop-r, how many times fewer float operations than the standard LSTM. Filled markers: "
        "the exact count; open markers: the same runs in the paper's published convention. Means over seeds, bars ± "
        "one sample standard deviation.",
        "Scatter plots, one for each dataset, of test accuracy against Flop-r; the tables give the numbers.",
        _accuracy_flops,
        main_size=True,
    ),
    FigureKind(
        "skim_rate",
        "Skim rate",
        "Share of the real test tokens that each Skim-LSTM (d'/γ) skims: means over seeds, bars ± one sample standard "
        "deviation.",
        "Bar charts, one for each dataset, of the skim rate of each Skim-LSTM; the tables give the numbers.",
        _skim_rate,
        main_size=True,
    ),
    FigureKind(
        "training",
        "Course of training",
        "Validation accuracy and skim rate against training steps. Strong lines: means over the seeds, as far as all "
        "of them trained; faint lines: single seeds.",
        "Line charts, two for each dataset, of validation accuracy and skim rate against training steps.",
        lambda results: _training(results, lambda scores: scores.accuracy, "Validation accuracy (%)"),
        main_size=True,
    ),
)

READING_RECORD_FIGURES = (
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
