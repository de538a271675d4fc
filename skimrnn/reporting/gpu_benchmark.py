"""The GPU's benchmark as a table: the targets, and what they are made of."""

from pathlib import Path

from skimrnn.benchmarks.gpu import HIDDEN, LATENCY_STEPS, MODELS, SMALL, GPUReport
from skimrnn.files import write_text
from skimrnn.reporting.benchmark import BenchmarkTable, code_of, document

_NOTES = {
    "step": f"Forward and backward of one layer, d = {HIDDEN}, d' = {SMALL}: torch's nn.LSTM (cuDNN, with the TF32 "
    "that torch allows it), SkimLSTM on our kernels, and on the readable reference.",
    "pack": f"A training step of each of {MODELS} Skim-LSTM classifiers, one after another and as one batch of models, "
    "on texts of one length: the most that a pack can gain, which pads to the longest of its models' texts.",
    "latency": f"One text of {LATENCY_STEPS} tokens read by torch's nn.LSTM, d = {HIDDEN}, without gradients.",
}


def write_gpu_benchmark(report: GPUReport, path: Path) -> None:
    """Write the report as Markdown."""
    write_text(path, markdown(report))


def markdown(report: GPUReport) -> str:
    """The machine, the targets, and one table a benchmark."""
    environment, rounds = report.environment, len(report.measurements[0].seconds.samples)
    remark = (
        f"{environment.gpu or 'no GPU'}; {environment.cpu}; {code_of(environment)}. Medians of {rounds} interleaved "
        "rounds, with 95 % intervals where the rounds are enough for them."
    )
    targets = [
        [t.name, str(t.batch), str(t.steps), t.limit, f"{t.ratio:.2f}", "reached" if t.met else "short"]
        for t in report.targets
    ]
    headings = ["target", "batch", "steps", "limit", "measured", "verdict"]
    tables = [BenchmarkTable("targets", "Ratios of medians of this run.", headings, targets)]
    for benchmark in dict.fromkeys(m.benchmark for m in report.measurements):
        rows = []
        for m in report.measurements:
            if m.benchmark == benchmark:
                median, low, high = (1e3 * value for value in (m.seconds.median, m.seconds.low, m.seconds.high))
                rows.append([str(m.batch), str(m.steps), m.name, f"{median:.2f}", f"{low:.2f} to {high:.2f}"])
        tables.append(BenchmarkTable(benchmark, _NOTES[benchmark], ["batch", "steps", "what", "ms", "95 %"], rows))
    return document("How fast training is on a GPU", [remark], tables)
