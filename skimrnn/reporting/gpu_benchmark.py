"""The GPU's benchmark as a table: the targets, and what they are made of."""

from pathlib import Path

from tabulate import tabulate

from skimrnn.files import write_text
from skimrnn.measures.gpu import HIDDEN, MODELS, SMALL, GPUReport

_HEADINGS = {
    "targets": ["target", "batch", "steps", "limit", "measured", "verdict"],
    "step": ["batch", "steps", "what", "ms", "95 %"],
    "pack": ["batch", "steps", "what", "ms", "95 %"],
}
_NOTES = {
    "targets": "Ratios of medians of this run.",
    "step": f"Forward and backward of one layer, d = {HIDDEN}, d' = {SMALL}: torch's nn.LSTM (cuDNN, with the TF32 "
    "that torch allows it), SkimLSTM on our kernels, and on the readable reference.",
    "pack": f"A training step of each of {MODELS} Skim-LSTM classifiers, one after another and as one batch of models.",
}


def write_gpu_benchmark(report: GPUReport, path: Path) -> None:
    """Write the report as Markdown."""
    write_text(path, markdown(report))


def markdown(report: GPUReport) -> str:
    """The machine, the targets, and one table a benchmark."""
    environment, rounds = report.environment, len(report.measurements[0].seconds.samples)
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    changed = " (changed)" * bool(environment.git_dirty)
    parts = [
        "# How fast training is on a GPU",
        f"{environment.gpu or 'no GPU'}; {environment.cpu}; {packages}; commit "
        f"{(environment.git_commit or 'none')[:8]}{changed}. Medians of {rounds} interleaved rounds, with 95 % "
        "intervals where the rounds are enough for them.",
    ]
    rows: dict[str, list[list[str]]] = {"targets": []}
    for target in report.targets:
        limit = f"at most {target.at_most:g}" if target.at_most is not None else f"at least {target.at_least:g}"
        verdict = "reached" if target.met else "short"
        rows["targets"].append(
            [target.name, str(target.batch), str(target.steps), limit, f"{target.ratio:.2f}", verdict]
        )
    for m in report.measurements:
        median, low, high = (1e3 * value for value in (m.seconds.median, m.seconds.low, m.seconds.high))
        rows.setdefault(m.benchmark, []).append(
            [str(m.batch), str(m.steps), m.name, f"{median:.2f}", f"{low:.2f} to {high:.2f}"]
        )
    for name, cells in rows.items():
        text = tabulate(cells, _HEADINGS[name], tablefmt="github", disable_numparse=True)
        parts += [f"## {name}", _NOTES[name], text]
    return "\n\n".join(parts) + "\n"
