"""The speed benchmark as a table and figures: what is beside what, and what bounds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib import style
from matplotlib.figure import Figure
from tabulate import tabulate

from skimrnn.benchmarks.latency import NUMPY_SMALL_SIZE, RATES, SIZES, STEPS, Measurement, Report
from skimrnn.benchmarks.peaks import Peaks
from skimrnn.files import read_model, write_text
from skimrnn.measures.flops import flop_reduction
from skimrnn.provenance import Environment
from skimrnn.reporting.figure_style import STYLE, write_figure
from skimrnn.reporting.targets import group_of, possible_speedup, target_rows

_NOTES = {
    "targets": "What was aimed at, in ratios of medians of one run: over all cases the smallest to the largest, and in "
    "how many of them the target is reached. What keeps figures short of theirs: a standard LSTM fetches all its "
    "hidden weights from the second-level cache at every step (the bound in `plain`); with small d and d' a skim step "
    "is mostly the functions of its gates, and the cost of the call counts; ragged batches read their inputs from main "
    "memory and write their outputs there, skimmed or not, and so do readers.",
    "plain": "Batch 1, T = 300: our standard LSTM and other libraries' LSTMs, on the same weights and input.",
    "skimming": "Batch 1, T = 300: Skim-LSTM at set skim rates beside our own standard LSTM in the same setting: inputs"
    " projected on demand, folded (their projections kept per word), or numpy, as the paper did. Sp is the standard "
    "LSTM's time over the Skim-LSTM's, Flop-r the exact count; Sp can exceed it, because what the hidden units that "
    "skimming leaves add to a skim step is summed once in a run of skimmed tokens. The last number is the ratio to the "
    "fastest LSTM of another library in `plain`. A best case: decisions hang on the word alone, so that what the "
    "kernels guess ahead is always right, and one text is read again and again.",
    "training": "One training step, forward and backward, beside torch's nn.LSTM: an LSTM on our kernel (lstm), and "
    "Skim-LSTM; memory is what the step adds.",
    "batched": "Evaluation of 128 ragged texts (5 to 99 tokens) on two threads.",
    "lengths": "Batch 1: one text of T tokens, skim rate 0.9; memory is what the call adds, outputs included.",
    "reader_training": "One training step, forward and backward, of Sk-LSTM+Att beside LSTM+Att (d = 100, two layers "
    "in both directions) on 32 contexts of 60 to 220 tokens.",
    "reader_evaluation": "Evaluation of Sk-LSTM+Att at set skim rates, the same in all four LSTMs, beside LSTM+Att, on "
    "40 contexts of 130 to 150 tokens: whole models, and their layers alone. Flop-r is that of the layers.",
}


def read_runs(path: Path) -> list[Report]:
    """The run at `path`, and those of other machines, which lie beside it as `<its name>-<machine>.json`."""
    return [read_model(each, Report) for each in (path, *sorted(path.parent.glob(f"{path.stem}-*.json")))]


def write_benchmark(folder: Path, report: Report, *others: Report) -> None:
    """Write `benchmark.md`, and the figures as SVG, PDF and PNG, into `folder`: of `report`, and the targets of all."""
    write_text(folder / "benchmark.md", markdown(report, *others))
    with style.context(["default", STYLE]):
        for name, draw in FIGURES.items():
            if figure := draw(report):
                write_figure(figure, folder, name)


@dataclass(frozen=True)
class BenchmarkTable:
    """One benchmark: what was timed, and a row a measurement, as text."""

    name: str
    note: str
    headings: list[str]
    rows: list[list[str]]


def markdown(report: Report, *others: Report) -> str:
    """The targets, and one table a benchmark."""
    remarks, tables = benchmark_remarks(report, *others), benchmark_tables(report, *others)
    return document("How fast the layers are on a CPU", remarks, tables)


def document(title: str, remarks: Sequence[str], tables: Sequence[BenchmarkTable]) -> str:
    """A benchmark as Markdown: what is to be said of all tables, and the tables."""
    parts = [f"# {title}", *remarks]
    for table in tables:
        text = tabulate(table.rows, table.headings, tablefmt="github", disable_numparse=True)
        parts += [f"## {table.name}", table.note, text]
    return "\n\n".join(parts) + "\n"


def code_of(environment: Environment) -> str:
    """The versions and the commit that made a measurement."""
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    return f"{packages}; commit {environment.commit_text(8)}"


def machine_of(report: Report) -> str:
    """The processor that made a measurement, and what its kernels were compiled for."""
    return f"{report.environment.cpu}, {report.isa}"


def benchmark_remarks(report: Report, *others: Report) -> list[str]:
    """The machine, its peaks, and what was skipped; and the machines of `others`."""
    environment, peaks = report.environment, report.peaks
    caches = ", ".join(f"{size >> 10:,} KiB {speed / 1e9:.0f}" for size, speed in peaks.bandwidth.items())
    return [
        f"{machine_of(report)}; {code_of(environment)}. Medians of interleaved rounds, taken in {report.sweeps} sweeps "
        "over everything, with intervals that hold 95 % of the time if rounds are independent. They are not: the "
        f"medians of the sweeps lie {100 * _sweeps_apart(report):.0f} % apart, by the median. A call that is not timed "
        "goes before each sample.",
        f"Peaks of one thread, the best of the same run: {peaks.flops / 1e9:.0f} GFLOP/s; reading an array again and "
        f"again, GB/s by its size: {caches}. The last column says which of the two bounds a figure, and what share of "
        "its time that bound alone would take.",
        *(f"Skipped: {name} ({reason})." for name, reason in report.skipped.items()),
        *(
            f"In the targets, besides: {machine_of(other)}; {code_of(other.environment)}{_drawn_rates(other)}; the "
            f"medians of its sweeps lie {100 * _sweeps_apart(other):.0f} % apart."
            for other in others
        ),
    ]


def _drawn_rates(report: Report) -> str:
    """What is to be said of a run that drew its skim rates around those that the targets name."""
    own = [float(m.setting["skim_rate"]) for m in report.measurements if m.benchmark == "skimming"]
    drawn = sorted(rate for rate in own if 0 < rate < 1 and min(abs(rate - named) for named in RATES) > 1 / STEPS)
    return f"; its skim rates were drawn around those named: {drawn[0]:.2f} to {drawn[-1]:.2f}" if drawn else ""


def _sweeps_apart(report: Report) -> float:
    """How far the medians of the sweeps lie apart, beside that of all rounds: the median over all measurements."""
    spreads = []
    for m in report.measurements:
        rounds = len(m.timing.samples) // report.sweeps
        medians = [median(m.timing.samples[n * rounds : (n + 1) * rounds]) for n in range(report.sweeps)]
        spreads.append((max(medians) - min(medians)) / m.timing.median)
    return median(spreads)


def benchmark_tables(report: Report, *others: Report) -> list[BenchmarkTable]:
    """What was aimed at, and how far each run came; then each benchmark of `report`.

    Its tables hold microseconds a token, what they are beside, and what bounds them.
    """
    runs = (report, *others)
    headings = ["target", "limit", *map(machine_of, runs)]
    tables = [BenchmarkTable("targets", _NOTES["targets"], headings, target_rows([run.measurements for run in runs]))]
    for benchmark in dict.fromkeys(m.benchmark for m in report.measurements):
        own = [m for m in report.measurements if m.benchmark == benchmark]
        remembers = any(m.peak_memory_mib is not None for m in own)
        headings = [*own[0].setting, "what", "µs a token", "95 %", *(["MiB"] if remembers else []), "beside", "bound"]
        rows = []
        for m in own:
            settings = [f"{value:.3g}" if isinstance(value, float) else f"{value}" for value in m.setting.values()]
            low, high = (1e6 * value / m.tokens for value in (m.timing.low, m.timing.high))
            memory = ["" if m.peak_memory_mib is None else f"{m.peak_memory_mib:.1f}"] if remembers else []
            time = f"{m.microseconds_a_token():.2f}"
            beside = _beside(m, report.measurements)
            rows.append([*settings, m.name, time, f"{low:.2f} to {high:.2f}", *memory, beside, _bound(m, report.peaks)])
        tables.append(BenchmarkTable(benchmark, _NOTES[benchmark], headings, rows))
    return tables


def _beside(m: Measurement, measurements: Sequence[Measurement]) -> str:
    """What a figure is beside its rivals: the ratio that matters in its benchmark."""
    group = group_of(m, measurements)
    own = m.timing.median
    if m.benchmark == "plain" and m.name == "ours":
        rivals = {name: other for name, other in group.items() if name != "ours"}
        fastest = min(rivals, key=lambda name: rivals[name].timing.median)
        return f"{own / rivals[fastest].timing.median:.2f}x of {fastest}"
    if m.benchmark == "training" and m.name != "torch":
        text = f"{own / group['torch'].timing.median:.2f}x of torch"
        if m.peak_memory_mib and (torch_memory := group["torch"].peak_memory_mib):
            text += f", memory {m.peak_memory_mib / torch_memory:.2f}x"
        return text
    if m.benchmark == "reader_training" and m.name == "skim":
        return f"{own / group['lstm'].timing.median:.2f}x of lstm"
    rival = group.get(m.name.replace("skim", "lstm"))
    if m.name.startswith("skim") and rival and "skim_rate" in m.setting:
        speedup, possible = rival.timing.median / own, possible_speedup(m)
        text = f"Sp {speedup:.2f}, {speedup / possible:.2f} of Flop-r {possible:.2f}"
        others = [
            o.microseconds_a_token()
            for o in measurements
            if o.benchmark == "plain" and o.name != "ours" and o.setting["hidden_size"] == m.setting["hidden_size"]
        ]
        if m.benchmark == "skimming" and others and "numpy" not in m.name:
            text += f"; {min(others) / m.microseconds_a_token():.1f}"
        return text
    return ""


def _bound(m: Measurement, peaks: Peaks) -> str:
    if m.cost is None:
        return ""
    seconds = {"arithmetic": m.cost.flops / peaks.flops / int(m.setting.get("threads", 1))}
    if m.cost.bytes:
        seconds["cache"] = m.cost.bytes / peaks.bandwidth[m.cost.weights]
    name = max(seconds, key=lambda name: seconds[name])
    return f"{name} {seconds[name] * m.tokens / m.timing.median:.0%}"


def _speedup(report: Report) -> Figure | None:
    """The paper's speed figure: speed-up against skim rate, measured (solid) and Flop-r (dotted), for several d.

    Without a skim rate of 1, at which nothing is read: it would take most of the axis.
    """
    own = [
        m
        for m in report.measurements
        if m.benchmark == "skimming" and m.setting["small_size"] == NUMPY_SMALL_SIZE and m.name.startswith("skim")
        if float(m.setting["skim_rate"]) < 1
    ]
    if not own:
        return None
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    panels = figure.subplots(1, len(SIZES), sharey=True)
    lines = (("skim folded", "ours, folded", "#D55E00", "o"), ("skim", "ours, projected on demand", "#0072B2", "s"))
    for axes, size in zip(panels, SIZES, strict=True):
        shown = [m for m in own if m.setting["hidden_size"] == size]
        for name, label, colour, marker in (*lines, ("skim numpy", "NumPy, as in the paper", "#009E73", "^")):
            points = sorted(
                (float(m.setting["skim_rate"]), rival.timing.median / m.timing.median)
                for m in shown
                if m.name == name
                for rival in report.measurements
                if rival.setting == m.setting and rival.name == name.replace("skim", "lstm")
            )
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=label)
        rates = [index / 200 for index in range(193)]
        flops = [flop_reduction(rate, size, NUMPY_SMALL_SIZE).exact_count for rate in rates]
        axes.plot(rates, flops, ":", color="black", label="Flop-r (exact count)")
        axes.set(title=f"d = {size}", xlabel="Skim rate", yscale="log", ylim=(0.7, 20), xlim=(-0.03, 1.03))
        axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.minorticks_off()
    panels[0].set_ylabel("Speed-up over the standard\nLSTM in the same setting")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _plain(report: Report) -> Figure | None:
    """Time a token of a standard LSTM by library, with the intervals of the medians."""
    own = [m for m in report.measurements if m.benchmark == "plain"]
    if not own:
        return None
    figure = Figure(figsize=(7.2, 2.4), layout="constrained")
    panels = figure.subplots(1, len(SIZES))
    for axes, size in zip(panels, SIZES, strict=True):
        shown = [m for m in own if m.setting["hidden_size"] == size][::-1]
        times = [m.microseconds_a_token() for m in shown]
        errors = [
            [time - 1e6 * m.timing.low / m.tokens for time, m in zip(times, shown, strict=True)],
            [1e6 * m.timing.high / m.tokens - time for time, m in zip(times, shown, strict=True)],
        ]
        colours = ["#D55E00" if m.name == "ours" else "#0072B2" for m in shown]
        axes.barh([m.name for m in shown], times, xerr=errors, color=colours)
        axes.set(title=f"d = {size}", xlabel="µs a token")
        axes.grid(axis="y", visible=False)
        if axes is not panels[0]:
            axes.tick_params(labelleft=False)
    return figure


FIGURES: dict[str, Callable[[Report], Figure | None]] = {"speedup": _speedup, "plain": _plain}
"""What draws each figure; None where nothing was measured for it."""
