"""The figures that need analyses: trade-offs while the threshold moves, confidence, and what is read and skimmed."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from skimrnn.analysis.artefact import TRAINED_FOR, Analysis, CalibrationBin, Confidence, Packed, Sample, SamplePoint
from skimrnn.counts import count_of
from skimrnn.data.registry import get_dataset
from skimrnn.reporting.figure_style import (
    COLOURS,
    DASHES,
    MARKERS,
    PANEL,
    SKIM,
    STANDARD,
    FigureKind,
    legend,
    panels_of,
)
from skimrnn.reporting.records import Measured, Results
from skimrnn.reporting.systems import of_size, skims, system_titles
from skimrnn.reporting.table import NOT_RUN

_FEWEST_DECISIONS = 20  # Of a point of a calibration.
_LEVELS: tuple[Literal[":", "-."], ...] = (":", "-.")  # Lines at what standard models score, by d.
_ROW_TOKENS = 48  # Of a strip in one line.
_PALETTE = (*COLOURS[1:], STANDARD)  # The standard model is a grey line in these figures.


def _skimming(results: Results) -> dict[str, Any]:
    return {name: model for name, model in results.config.models.items() if skims(model)}


def _sizes(results: Results, models: Mapping[str, Any]) -> dict[tuple[int, int], str]:
    """The d and d' of some models, the smallest first, and their labels, with d where the config has more than one."""
    sizes = sorted({(model.hidden_size, model.small_size) for model in models.values()})
    return {(size, small): f"d' = {small}{of_size(results.config, size)}" for size, small in sizes}


def _standards(results: Results) -> list[str]:
    """The models of the config that read everything."""
    return [name for name, model in results.config.models.items() if not skims(model)]


def _not_run() -> Figure:
    """A strip that says so."""
    figure = Figure((2 * PANEL[0], 0.6))
    figure.text(0.5, 0.5, NOT_RUN, ha="center", va="center", color="#666666")
    return figure


def _effects(results: Results) -> Figure:
    """Accuracy and skim rate by gamma, a line for each d and d'."""
    sizes = _sizes(results, _skimming(results))
    # One of each d, beside which a model that skims belongs.
    standards = dict(zip(_standards(results), cycle(_LEVELS)))
    gammas = sorted({model.gamma for model in _skimming(results).values()})

    def draw(axes: Axes, dataset: str, rate: bool) -> None:
        lines: list[tuple[int, list[tuple[int, Measured]]]] = []
        for index, size in enumerate(sizes):
            points = [
                (gammas.index(model.gamma), measured)
                for name, model in _skimming(results).items()
                if (model.hidden_size, model.small_size) == size
                and (
                    measured := results.measured(
                        dataset, name, lambda record: 100 * (record.test.skim_rate if rate else record.test.accuracy)
                    )
                )
            ]
            if points:
                lines.append((index, sorted(points, key=lambda point: point[0])))
        for order, (index, points) in enumerate(lines):
            places, found = zip(*points, strict=True)
            shift = 0.05 * (order - (len(lines) - 1) / 2)
            _line(axes, [place + shift for place in places], found, index)
        for name, linestyle in standards.items() if not rate else ():
            _level(axes, results.measured(dataset, name, lambda record: 100 * record.test.accuracy), linestyle)
        axes.set_xticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
        axes.set(
            xlabel="γ", ylabel="Tokens skimmed (%)" if rate else "Test accuracy (%)", xlim=(-0.4, len(gammas) - 0.6)
        )
        if rate:
            _from_zero(axes)

    figure = panels_of(
        results, lambda axes, dataset: draw(axes, dataset, False), lambda axes, dataset: draw(axes, dataset, True)
    )
    handles, labels = [_handle(index) for index in range(len(sizes))], list(sizes.values())
    for name, linestyle in standards.items():
        handles.append(Line2D([], [], color="#666666", linestyle=linestyle))
        labels.append(f"standard LSTM{of_size(results.config, results.config.models[name].hidden_size)}")
    legend(figure, handles, labels)
    return figure


def _line(axes: Axes, places: Sequence[float], found: Sequence[Measured], index: int, *, joined: bool = True) -> None:
    """Means with bars of one standard deviation over seeds."""
    errors = [measured.sd or 0.0 for measured in found]
    look = _look(index) if joined else _look(index) | {"linestyle": "none"}
    axes.errorbar(places, [measured.mean for measured in found], errors, elinewidth=0.9, **look)


def _from_zero(*panels: Axes) -> None:
    """Let the y-axes of some panels run from zero to a little above whatever is drawn in any of them."""
    top = max(axes.dataLim.y1 for axes in panels)
    for axes in panels:
        axes.set_ylim(0, 1.05 * top if top > 0 else 1)


def _handle(index: int) -> Line2D:
    return Line2D([], [], **_look(index))


def _look(index: int) -> dict[str, Any]:
    return {
        "color": _PALETTE[index % len(_PALETTE)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def _level(axes: Axes, measured: Measured | None, linestyle: str = ":") -> None:
    """A broken line at what a standard model scores, with its band."""
    if measured is None:
        return
    axes.axhline(measured.mean, color="#666666", linestyle=linestyle, zorder=1)
    if measured.sd:
        axes.axhspan(measured.mean - measured.sd, measured.mean + measured.sd, color="#666666", alpha=0.1, linewidth=0)


def _threshold(results: Results, score: str, label: str) -> Figure:
    """Scores against Flop-r while the threshold moves: a line a model, the band over seeds."""
    titles, models = system_titles(results.config), _skimming(results)
    standard = next(iter(_standards(results)), None)
    if results.config.tasks == ["question_answering"]:
        standard = next((name for name in results.config.models if name == "lstm_att"), standard)
    shown: list[str] = []

    def draw(axes: Axes, dataset: str) -> None:
        names = [*models, standard] if standard else [*models]
        analysed = {name: runs for name in names if (runs := results.analysed(dataset, name))}
        common = _common_seeds([*analysed.values()])
        analysed = {name: [run for run in each if run.config.seed in common] for name, each in analysed.items()}
        swept: Packed | None = None
        for index, (name, model) in enumerate(models.items()):
            found = [analysis.skim.sweep for analysis in analysed.get(name, ()) if analysis.skim]
            if not found:
                continue
            # Without the ends: between 0.95 and 1 a skipping model's Flop-r jumps from some 5 to 400.
            swept, sweeps = found[0].included, [[p for p in sweep.points if 0 < p.threshold < 1] for sweep in found]
            flops = np.mean([[p.flop_reduction.exact_count for p in points] for points in sweeps], axis=0)
            scores = 100 * np.array([[p.scores[score] for p in points] for points in sweeps])
            mean = scores.mean(axis=0)
            colour, dash = _PALETTE[index % len(_PALETTE)], "--" if model.small_size == 0 else "-"
            axes.plot(flops, mean, color=colour, linestyle=dash, marker=MARKERS[index % len(MARKERS)], markersize=3)
            if len(scores) > 1:
                sd = scores.std(axis=0, ddof=1)
                axes.fill_between(flops, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
            trained = [p.threshold for p in sweeps[0]].index(TRAINED_FOR)
            axes.plot(flops[trained], mean[trained], marker="o", color=colour, markersize=8, markerfacecolor="none")
            shown.append(name)
        if swept is None:
            return
        included = swept.unpack() == 1
        if standard:  # What it scores on the very examples of the sweep, which may be a sample.
            outcomes = [analysis.outcomes[score].unpack() for analysis in analysed.get(standard, ())]
            values = tuple(100 * float(each[included].mean()) for each in outcomes)
            _level(axes, Measured(values) if values else None)
        part = "" if included.all() else f"{included.sum():,} of {len(included):,} examples, "
        axes.set_title(f"{part}{count_of(len(common), 'seed')}", loc="right", fontsize="small", fontweight="normal")
        axes.set(xlabel="Flop-r (exact count)", ylabel=label, xscale="log")
        low, high = axes.get_xlim()
        steps = (1, 1.5, 2, 3, 5, 10, 20) if high < 30 else (1, 2, 5, 10, 20, 50, 100, 200)
        ticks = [tick for tick in steps if low <= tick <= high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()

    figure = panels_of(results, draw)
    if not shown:
        return _not_run()
    handles = [
        Line2D(
            [],
            [],
            color=_PALETTE[index % len(_PALETTE)],
            linestyle="--" if model.small_size == 0 else "-",
            marker=MARKERS[index % len(MARKERS)],
            markersize=3,
        )
        for index, (name, model) in enumerate(models.items())
        if name in shown
    ]
    handles.append(Line2D([], [], color="#666666", linestyle="none", marker="o", markerfacecolor="none"))
    handles.append(Line2D([], [], color="#666666", linestyle=":"))
    names = [titles[name] for name in models if name in shown]
    legend(figure, handles, [*names, "threshold 0.5", "standard"])
    return figure


def _common_seeds(models: Sequence[Sequence[Analysis]]) -> set[int]:
    """The seeds that all of some models have; where there is none, those of any."""
    seeds = [{analysis.config.seed for analysis in analyses} for analyses in models]
    return set.intersection(*seeds) or set.union(*seeds) if seeds else set()


_WAYS = (("position", "Place in the text"), ("kind", "Kind of token"), ("frequency", "Rank by frequency"))
_SHORT = {"100 most frequent": "to 100", "101 to 1,000": "to 1,000", "1,001 to 10,000": "to 10,000"} | {
    "not in training": "unseen"
}


def _skimmed_tokens(results: Results) -> Figure:
    """Skim rate by place, kind and frequency of the tokens: a line of panels for each dataset, a line each model."""
    models = _skimming(results)
    datasets = [d for d in results.config.datasets if any(results.analysed(d, name) for name in models)]
    if not datasets:
        return _not_run()
    figure = Figure((2 * PANEL[0] + 0.4, (PANEL[1] + 0.4) * len(datasets) + 0.5), layout="constrained")
    grid = figure.subplots(len(datasets), len(_WAYS), squeeze=False, sharey="row")
    shown: dict[str, int] = {}
    for line, dataset in zip(grid, datasets, strict=True):
        for axes, (grouping, label) in zip(line, _WAYS, strict=True):
            names: list[str] = []
            for index, name in enumerate(models):
                groups = [
                    {
                        g.name: 100 * np.mean(g.skimmed) / g.tokens
                        for g in analysis.skim.groups
                        if g.grouping == grouping
                    }
                    for analysis in results.analysed(dataset, name)
                    if analysis.skim
                ]
                if not groups:
                    continue
                names = list(groups[0])
                found = [Measured(tuple(float(group[name]) for group in groups)) for name in names]
                _line(axes, range(len(names)), found, index, joined=grouping != "kind")
                shown[name] = index
            short = [n.split(" ")[0] for n in names] if grouping == "position" else [_SHORT.get(n, n) for n in names]
            axes.set_xticks(range(len(short)), short, rotation=0 if grouping == "position" else 40)
            for tick in axes.get_xticklabels():
                tick.set_ha("center" if grouping == "position" else "right")
            axes.set_xlabel(f"{label} (%)" if grouping == "position" else label)
        _from_zero(*line)
        line[0].set_ylabel("Tokens skimmed (%)")
        line[0].set_title(get_dataset(dataset).title, loc="left")
    titles = system_titles(results.config)
    legend(figure, [_handle(index) for index in shown.values()], [titles[name] for name in shown])
    return figure


_LAYERS = ("layer 1", "layer 2", "contextual", "modelling 1", "modelling 2", "output", "question")


def _sequence_look(sequence: str) -> dict[str, Any]:
    """Layer by colour, direction by dash and marker."""
    layer, _, direction = sequence.rpartition(" ")
    return {
        "color": COLOURS[_LAYERS.index(layer) if layer in _LAYERS else 0],
        "linestyle": "--" if direction == "backward" else "-",
        "marker": "s" if direction == "backward" else "o",
    }


def _layer_skim_rate(results: Results) -> Figure:
    """Skim rate of each LSTM by gamma: a panel for each d and d'."""
    datasets = [d for d in results.config.datasets if any(results.of_model(d, name) for name in _skimming(results))]
    models = {n: m for n, m in _skimming(results).items() if any(results.of_model(d, n) for d in datasets)}
    sizes = dict(reversed(_sizes(results, models).items()))
    gammas = sorted({model.gamma for model in models.values()})
    if not datasets:
        return _not_run()
    figure = Figure((PANEL[0] * max(2, len(sizes)), PANEL[1] * len(datasets) + 0.5), layout="constrained")
    grid = figure.subplots(len(datasets), len(sizes), squeeze=False, sharey="row")
    names: dict[str, None] = {}
    for line, dataset in zip(grid, datasets, strict=True):
        for axes, (size, label) in zip(line, sizes.items(), strict=True):
            rates: dict[str, dict[int, Measured]] = {}
            for name, model in models.items():
                runs = results.of_model(dataset, name) if (model.hidden_size, model.small_size) == size else ()
                for sequence in runs[0].record.test.layer_skim_rates if runs else ():
                    values = tuple(100 * run.record.test.layer_skim_rates[sequence] for run in runs)
                    rates.setdefault(sequence, {})[gammas.index(model.gamma)] = Measured(values)
            for sequence, points in rates.items():
                places = sorted(points)
                means, errors = [points[p].mean for p in places], [points[p].sd or 0.0 for p in places]
                axes.errorbar(places, means, errors, elinewidth=0.9, **_sequence_look(sequence))
            names |= dict.fromkeys(rates)
            axes.set_title(f"{get_dataset(dataset).title}, {label}", loc="left")
            axes.set_xticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
            axes.set(xlabel="γ", xlim=(-0.4, len(gammas) - 0.6), ylim=(0, 100))
        line[0].set_ylabel("Tokens skimmed (%)")
    legend(figure, [Line2D([], [], **_sequence_look(name)) for name in names], list(names))
    return figure


def _sorted_by_flops(results: Results) -> Figure:
    """F1 of all configurations, sorted by Flop-r: LSTM+Att's, and above them BiDAF's, which counts from itself."""
    titles, models = system_titles(results.config), _skimming(results)

    def draw(axes: Axes, dataset: str) -> None:
        found = []
        for name in results.config.models:
            f1 = results.measured(dataset, name, lambda record: 100 * record.test.f1)
            reduction = results.measured(dataset, name, lambda record: record.flop_reduction.exact_count)
            if f1 and reduction:
                found.append((results.config.models[name].architecture.endswith("bidaf"), reduction.mean, name, f1))
        found.sort(key=lambda item: item[:2])
        for place, (_, flops, name, f1) in enumerate(found):
            axes.barh(
                place,
                f1.mean,
                0.7,
                xerr=f1.sd,
                color=SKIM if name in models else STANDARD,
                hatch=None if name in models else "//",
                edgecolor="white",
                linewidth=0,
                error_kw={"elinewidth": 0.9},
            )
            text = f"{f1.mean:.1f}" + (f" ± {f1.sd:.1f}" if f1.sd is not None else "")
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            axes.text(1.5, place, text, va="center", fontsize=8, bbox=box)
            axes.text(101, place, f"{flops:.1f}x", va="center", fontsize=8, clip_on=False)
        axes.text(101, len(found) - 0.3, "Flop-r", va="bottom", fontsize=8, clip_on=False)
        labels = [
            titles[name] + "\n(not finished)" * any(r.record.training.stopped == "unfinished" for r in runs)
            for name, runs in ((name, results.of_model(dataset, name)) for _, _, name, _ in found)
        ]
        axes.set_yticks(range(len(found)), labels)
        axes.set(xlabel="F1 (%)", xlim=(0, 100), ylim=(-0.6, max(1, len(found)) - 0.4))
        axes.grid(visible=False, axis="y")

    figure = panels_of(results, draw)
    bars = sum(len(axes.patches) for axes in figure.axes)
    figure.set_size_inches(2 * PANEL[0], 0.3 * bars + 1.5)
    legend(
        figure, [Patch(color=SKIM), Patch(facecolor=STANDARD, hatch="//", edgecolor="white")], ["skimming", "standard"]
    )
    return figure


def _confidence(results: Results) -> Figure:
    """How sure each LSTM is: the distribution of the larger probability."""

    def draw(axes: Axes, found: list[Confidence], look: dict[str, Any]) -> None:
        shares = np.array([np.array(c.histogram) / sum(c.histogram) for c in found])
        edges = np.linspace(50, 100, shares.shape[1] + 1)
        colour, dash = look["color"], look["linestyle"]
        axes.stairs(100 * shares.mean(axis=0), edges, color=colour, linestyle=dash, linewidth=1.4)
        mean = 100 * float(np.mean([c.mean for c in found]))
        fill = colour if dash == "-" else "white"
        axes.plot(mean, 0, clip_on=False, color=colour, markerfacecolor=fill, marker="v", zorder=3)
        axes.set(xlabel="max(p_read, p_skim) (%)", ylabel="Decisions (%)", xlim=(50, 100))
        _from_zero(axes)

    means = {
        f"mean, {direction}": Line2D([], [], color="#666666", markerfacecolor=fill, marker="v", linestyle="none")
        for direction, fill in (("forward", "#666666"), ("backward", "white"))
    }
    return _panel_a_model(results, draw, ("color", "linestyle"), means)


def _calibration(results: Results) -> Figure:
    """What reading gains against p(read), decisions reversed one at a time; fewer than 20 say nothing."""

    def draw(axes: Axes, found: list[Confidence], look: dict[str, Any]) -> None:
        points = []
        for bins in zip(*(c.calibration for c in found), strict=True):
            pooled = CalibrationBin.pooled(bins)
            if pooled.decisions >= _FEWEST_DECISIONS:
                # Where the error is not known, a point has no bar.
                error = np.nan if pooled.reading_gain_error is None else pooled.reading_gain_error
                points.append((50 * (pooled.low + pooled.high), pooled.reading_gain, error))
        if points:
            axes.errorbar(*np.array(points).T, markersize=4, elinewidth=0.9, **look)
        axes.axhline(0, color="#666666", linewidth=0.8, zorder=1)
        axes.axvline(50, color="#666666", linewidth=0.8, linestyle=":", zorder=1)
        axes.set(xlabel="p(read) (%)", ylabel="Loss saved by reading", xlim=(0, 100))

    return _panel_a_model(results, draw, ("color", "linestyle", "marker"))


def _panel_a_model(
    results: Results,
    draw: Callable[[Axes, list[Confidence], dict[str, Any]], None],
    shown: Sequence[str],
    marks: Mapping[str, Line2D] | None = None,
) -> Figure:
    """A panel for each model that was analysed, in which `draw` draws each of its LSTMs, one confidence a seed.

    Those of its looks that are `shown` stand in the legend, and `marks` behind them.
    """
    panels = _analysed_models(results)
    if not panels:
        return _not_run()
    figure, grid = _grid_of(len(panels))
    handles: dict[str, Line2D] = {}
    for axes, (dataset, name, confidences) in zip(grid, panels, strict=False):
        for sequence, found in confidences.items():
            look = _sequence_look(sequence)
            draw(axes, found, look)
            handles[sequence] = Line2D([], [], **{key: look[key] for key in shown})
        axes.set_title(_panel_title(results, dataset, name), loc="left", fontsize=9)
    handles |= marks or {}
    if len(handles) > 1:
        legend(figure, list(handles.values()), list(handles))
    return figure


def _analysed_models(results: Results) -> list[tuple[str, str, dict[str, list[Confidence]]]]:
    """Dataset, model, and the confidences of each of its LSTMs, one a seed."""
    panels = []
    for dataset in results.config.datasets:
        for name in _skimming(results):
            found: dict[str, list[Confidence]] = {}
            for analysis in results.analysed(dataset, name):
                for confidence in analysis.skim.confidence if analysis.skim else []:
                    found.setdefault(confidence.direction, []).append(confidence)
            if found:
                panels.append((dataset, name, found))
    return panels


def _grid_of(count: int) -> tuple[Figure, list[Axes]]:
    columns = 2 if count in (1, 2, 4) else 3
    lines = -(-count // columns)
    figure = Figure((2 * PANEL[0] * columns / 2.4, 2.0 * lines + 0.6), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid


def _panel_title(results: Results, dataset: str, name: str) -> str:
    title = system_titles(results.config)[name]
    return title if len(results.config.datasets) == 1 else f"{get_dataset(dataset).title}\n{title}"


def _strips(results: Results) -> Figure:
    """What each LSTM reads of one paragraph: a strip an LSTM, the words beneath, the answer in bold."""
    shown = _strip_sample(results)
    if shown is None:
        return _not_run()
    name, analysis, sample = shown
    assert analysis.skim is not None
    directions = analysis.skim.directions
    point = _trained(sample)
    lines = -(-len(sample.tokens) // _ROW_TOKENS)
    figure = Figure((2 * PANEL[0], 1.45 * lines + 0.9), layout="constrained")
    grid = figure.subplots(lines, 1, squeeze=False)[:, 0]
    first, last = sample.span or (-1, -1)
    for line, axes in enumerate(grid):
        span = slice(line * _ROW_TOKENS, (line + 1) * _ROW_TOKENS)
        tokens = sample.tokens[span]
        decisions = np.array([[int(read) for read in row[span]] for row in point.read])
        axes.imshow(
            decisions, ListedColormap(["#e4e4e4", STANDARD]), vmin=0, vmax=1, aspect="auto", interpolation="nearest"
        )
        axes.set_xlim(-0.5, _ROW_TOKENS - 0.5)
        axes.set_yticks(range(len(directions)), directions, fontsize=7)
        axes.set_yticks(np.arange(len(directions) + 1) - 0.5, minor=True)
        axes.set_xticks(range(len(tokens)), [_plain(token) for token in tokens], rotation=90, fontsize=6)
        axes.grid(visible=False)
        axes.grid(visible=True, which="minor", axis="y", color="white", linewidth=1.5)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        for place, label in enumerate(axes.get_xticklabels(), span.start):
            if first <= place <= last:
                label.set(fontweight="bold", color=SKIM)
    heading = system_titles(results.config)[name]
    if sample.question:
        heading += f"\n{_plain(sample.question)}  —  {_plain(sample.right_answer)}"
    figure.suptitle(heading, fontsize=9, x=0.01, ha="left")
    handles = [Patch(color=STANDARD), Patch(color="#e4e4e4"), Patch(color=SKIM)]
    legend(figure, handles, ["read", "skimmed", "answer (words in bold)"])
    return figure


def _strip_sample(results: Results) -> tuple[str, Analysis, Sample] | None:
    """The shortest sample of the model (d' > 0) that reads nearest to half of the tokens of its samples."""
    found = [
        (float(np.mean([sample_rate(sample) for sample in analysis.skim.samples])), name, analysis)
        for (_, name, _), analysis in sorted(results.analyses.items())
        if analysis.skim and analysis.skim.samples and _skimming(results)[name].small_size > 0
    ]
    if not found:
        return None
    _, name, analysis = min(found, key=lambda item: abs(item[0] - 0.5))
    assert analysis.skim is not None
    return name, analysis, min(analysis.skim.samples, key=lambda sample: len(sample.tokens))


def _trained(sample: Sample) -> SamplePoint:
    return next(point for point in sample.points if point.threshold == TRAINED_FOR)


def sample_rate(sample: Sample) -> float:
    """The share of a sample's tokens that is read at threshold 0.5, over all LSTMs."""
    point = _trained(sample)
    return sum(row.count("1") for row in point.read) / sum(len(row) for row in point.read)


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


ANALYSIS_FIGURES = (
    FigureKind(
        "effects",
        "Effect of d' and γ",
        "Test accuracy and share of the real test tokens that are skimmed, by γ, for each d' and d: means over "
        "seeds, bars ± one sample standard deviation. Dotted: the standard LSTM, its band ± one standard "
        "deviation.",
        "Line charts, two for each dataset, of accuracy and skim rate against gamma; the tables give the numbers.",
        _effects,
    ),
    FigureKind(
        "accuracy_threshold",
        "Accuracy against Flop-r while the threshold moves",
        "Each line is one trained model (mean over the seeds that all have, band ± one sample standard deviation), its "
        "recurrence run anew at 13 thresholds from 0.05 to 0.95 without retraining; the ring marks 0.5. Dashed: d' "
        "= 0, which skips. Dotted: the standard LSTM on the same examples: where the test split is large, a sample of "
        "it, so that scores differ from the table's. Nothing was chosen by it.",
        "Line charts, one for each dataset, of test accuracy against Flop-r as the threshold rises.",
        lambda results: _threshold(results, "accuracy", "Test accuracy (%)"),
        main_size=True,
    ),
    FigureKind(
        "skimmed_tokens",
        "What is skimmed",
        "Share of the test tokens that is skimmed, by place in the text (tenths), kind and frequency of the "
        "token in the training split: means over seeds, bars ± one sample standard deviation.",
        "Line charts, three for each dataset, of the skim rate by position, kind and frequency of tokens.",
        _skimmed_tokens,
        main_size=True,
    ),
    FigureKind(
        "calibration",
        "What reading is worth",
        "Single decisions of test texts reversed one at a time, the others left to the model: the loss where "
        "the token is skimmed less that where it is read, by p(read) (mean ± standard error; of 20 decisions or more).",
        "Line charts, one for each model, of the loss saved by reading a token against its probability of being read.",
        _calibration,
        main_size=True,
    ),
)

READING_ANALYSIS_FIGURES = (
    FigureKind(
        "layer_skim_rate",
        "Skim rate by layer and γ",
        "Share of the contexts' tokens that each LSTM skims, by γ: means over seeds, bars ± one standard deviation.",
        "Line charts of the skim rate of each layer and direction against gamma.",
        _layer_skim_rate,
    ),
    FigureKind(
        "f1_sorted",
        "All configurations by Flop-r",
        "F1 on the development set of every configuration, sorted by Flop-r of the whole model (exact count, beside "
        "LSTM+Att or BiDAF with d = 100; at the right): means over seeds, bars ± one sample standard deviation.",
        "A bar chart of F1, one bar for each configuration, LSTM+Att's below and BiDAF's above, each in the order of "
        "Flop-r; the table gives the numbers.",
        _sorted_by_flops,
    ),
    FigureKind(
        "f1_threshold",
        "F1 against Flop-r while the threshold moves",
        "Each line is one trained reader (mean over the seeds that all have, band ± one sample standard deviation), "
        "its recurrence run anew at 13 thresholds from 0.05 to 0.95 without retraining, on the development set or, "
        "where it is large, on a sample of it, so that scores differ from the table's; the ring marks 0.5. Dashed: d' "
        "= 0, which skips. Dotted: LSTM+Att on the same examples.",
        "A line chart of F1 against Flop-r as the threshold rises.",
        lambda results: _threshold(results, "f1", "F1 (%)"),
    ),
    FigureKind(
        "strips",
        "What each LSTM reads of a paragraph",
        "One paragraph with its question and answer, read at threshold 0.5: a strip for each layer and direction.",
        "Strips of read and skimmed words for each layer and direction of a reader; the coloured texts say the same.",
        _strips,
    ),
    FigureKind(
        "confidence",
        "Confidence by layer",
        "How sure each LSTM is of its decisions about the contexts' tokens: distribution of the larger of "
        "p_read and p_skim, a panel for each model (all seeds); marks at the foot: means.",
        "Step charts, one for each model, of the distribution of confidence for each layer and direction.",
        _confidence,
    ),
    FigureKind(
        "reading_calibration",
        "What reading is worth",
        "Single decisions reversed one at a time, the others left to the model: the loss where the token is "
        "skimmed less that where it is read, by p(read) (mean ± standard error; of 20 decisions or more).",
        "Line charts, one for each model, of the loss saved by reading a token against its probability of being read.",
        _calibration,
    ),
)
