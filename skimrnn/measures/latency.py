"""The speed benchmark: our LSTM and Skim-LSTM beside each other and beside other libraries' LSTMs.

Skim rates are set, not learned: the first number of each input says whether it is read, and the decision looks at
nothing else, so every rate is exact and the reads fall at random.
"""

import resource
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from skimrnn import SkimLSTM
from skimrnn.kernels import CellWeights, DecisionWeights, cpu
from skimrnn.measures.competitors import COMPETITORS, UnavailableError
from skimrnn.measures.flops import flop_reduction
from skimrnn.measures.timing import Timing, time_together
from skimrnn.provenance import Environment, environment

WIDTH = 100  # of the inputs
STEPS = 300
RATES = (0.5, 0.8, 0.9, 0.95)
_VOCABULARY = 5000


class Measurement(BaseModel):
    """One timed function. `tokens` is the number of real tokens in one call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    name: str
    setting: dict[str, float | int | str]
    tokens: int
    timing: Timing

    def microseconds_a_token(self) -> float:
        """The median, a token."""
        return self.timing.median / self.tokens * 1e6


class Report(BaseModel):
    """A whole run of the benchmark."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: Environment
    isa: str
    skipped: dict[str, str]
    measurements: list[Measurement]


class Task(NamedTuple):
    """Functions that are timed together."""

    setting: Mapping[str, float | int | str]
    tokens: int
    functions: Mapping[str, Callable[[], object]]


def run_benchmarks(names: list[str], rounds: int, tell: Callable[[str], None]) -> Report:
    """Run the named benchmarks (see `BENCHMARKS`); `tell` hears how each task went."""
    skipped: dict[str, str] = {}
    measurements = []
    before = torch.get_num_threads()
    try:
        for name in names:
            for task in BENCHMARKS[name](skipped):
                timings = time_together(task.functions, rounds)
                new = [
                    Measurement(
                        benchmark=name, name=function, setting=dict(task.setting), tokens=task.tokens, timing=timing
                    )
                    for function, timing in timings.items()
                ]
                measurements += new
                shown = ", ".join(f"{m.name} {m.microseconds_a_token():.2f}" for m in new)
                tell(f"{name} {task.setting}: {shown} us a token")
    finally:
        torch.set_num_threads(before)
    return Report(environment=environment(), isa=cpu.isa(), skipped=skipped, measurements=measurements)


def _plain(skipped: dict[str, str]) -> Iterator[Task]:
    """Batch 1, one thread: our standard LSTM and all competitors."""
    torch.set_num_threads(1)
    for size in (100, 200, 400):
        lstm = nn.LSTM(WIDTH, size).eval()
        inputs = torch.randn(STEPS, 1, WIDTH)
        functions: dict[str, Callable[[], object]] = {"ours": _our_lstm(lstm, inputs)}
        for name, make in COMPETITORS.items():
            try:
                functions[name] = make(lstm, inputs)
            except UnavailableError as reason:
                skipped[name] = str(reason)
        yield Task({"hidden_size": size, "steps": STEPS, "threads": 1}, STEPS, functions)


def _skimming(skipped: dict[str, str]) -> Iterator[Task]:
    """Batch 1, one thread: Skim-LSTM at set rates, projected on demand and folded, each beside our LSTM."""
    torch.set_num_threads(1)
    for size in (100, 200, 400):
        for small in (5, 10, 20):
            layer = _decided_by_input(SkimLSTM(WIDTH, size, small))
            lstm = nn.LSTM(WIDTH, size)
            lstm.load_state_dict(layer.state_dict(), strict=False)
            for rate in (0.0, *RATES, 1.0):
                vectors = _vectors(rate)
                words = torch.randint(_VOCABULARY, (STEPS, 1))
                inputs = vectors[words]
                skimmed = float((inputs[..., 0] < 0).double().mean())
                setting = {"hidden_size": size, "small_size": small, "skim_rate": skimmed, "threads": 1}
                yield Task(
                    setting,
                    STEPS,
                    {
                        "lstm": _our_lstm(lstm, inputs),
                        "skim": _without_gradient(layer, inputs),
                        "lstm folded": _folded(lstm, vectors, words),
                        "skim folded": _folded(layer, vectors, words),
                    },
                )


def _training(skipped: dict[str, str]) -> Iterator[Task]:
    """One training step, forward and backward, beside `nn.LSTM`'s."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch, steps in ((32, 50), (128, 300)):
            inputs = torch.randn(steps, batch, WIDTH, requires_grad=True)
            setting = {"batch": batch, "steps": steps, "hidden_size": 100, "small_size": 10, "threads": threads}
            functions = {"torch": _step(nn.LSTM(WIDTH, 100), inputs), "skim": _step(SkimLSTM(WIDTH, 100, 10), inputs)}
            yield Task(setting, batch * steps, functions)


def _batched(skipped: dict[str, str]) -> Iterator[Task]:
    """Evaluation of ragged batches on two threads."""
    torch.set_num_threads(2)
    lengths = torch.randint(5, 100, (128,))
    steps = int(lengths.max())
    for size, small in ((100, 10), (200, 10)):
        layer = _decided_by_input(SkimLSTM(WIDTH, size, small))
        lstm = nn.LSTM(WIDTH, size)
        lstm.load_state_dict(layer.state_dict(), strict=False)
        for rate in RATES:
            inputs = _vectors(rate)[torch.randint(_VOCABULARY, (steps, 128))]
            packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, enforce_sorted=False)
            setting = {"batch": 128, "hidden_size": size, "small_size": small, "skim_rate": rate, "threads": 2}
            functions = {
                "torch": _without_gradient(lstm, packed),
                "lstm": _our_lstm(lstm, inputs, lengths),
                "skim": _our_skim(layer, inputs, lengths),
            }
            yield Task(setting, int(lengths.sum()), functions)


def _lengths(skipped: dict[str, str]) -> Iterator[Task]:
    """Batch 1, one thread: time a token as the text grows, and the peak memory of the process so far."""
    torch.set_num_threads(1)
    layer = _decided_by_input(SkimLSTM(WIDTH, 100, 10))
    lstm = nn.LSTM(WIDTH, 100)
    for steps in (100, 300, 1000, 3000, 10_000):
        inputs = _vectors(0.9)[torch.randint(_VOCABULARY, (steps, 1))]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        functions = {"lstm": _our_lstm(lstm, inputs), "skim": _without_gradient(layer, inputs)}
        yield Task({"steps": steps, "threads": 1, "peak_memory_mib": peak}, steps, functions)


BENCHMARKS: dict[str, Callable[[dict[str, str]], Iterator[Task]]] = {
    "plain": _plain,
    "skimming": _skimming,
    "training": _training,
    "batched": _batched,
    "lengths": _lengths,
}


def markdown(report: Report) -> str:
    """The report as tables: microseconds a token with the interval, and what each is beside its rivals."""
    lines = [
        f"Machine: {report.environment.cpu}; instruction set {report.isa}; medians with 95 % intervals.",
        *(f"Skipped: {name} ({reason})." for name, reason in report.skipped.items()),
    ]
    for benchmark in dict.fromkeys(m.benchmark for m in report.measurements):
        own = [m for m in report.measurements if m.benchmark == benchmark]
        settings = list(own[0].setting)
        lines += ["", f"## {benchmark}", "", _row([*settings, "what", "us a token", "95 %", "beside"])]
        lines += [_row(["---"] * (len(settings) + 4))]
        for m in own:
            group = {o.name: o for o in own if o.setting == m.setting}
            scale = 1e6 / m.tokens
            interval = f"{m.timing.low * scale:.2f} to {m.timing.high * scale:.2f}"
            values = [f"{value:.3g}" if isinstance(value, float) else value for value in m.setting.values()]
            lines.append(_row([*values, m.name, f"{m.microseconds_a_token():.2f}", interval, _beside(m, group)]))
    return "\n".join(lines) + "\n"


def _beside(m: Measurement, group: dict[str, Measurement]) -> str:
    """The ratio that a target speaks of."""
    own = m.timing.median
    if m.benchmark == "plain" and m.name == "ours":
        rivals = {name: other for name, other in group.items() if name != "ours"}
        fastest = min(rivals, key=lambda name: rivals[name].timing.median)
        return f"{own / rivals[fastest].timing.median:.2f}x of {fastest}"
    if m.benchmark == "training" and m.name == "skim":
        return f"{own / group['torch'].timing.median:.2f}x of torch"
    rival = group.get(m.name.replace("skim", "lstm"))
    if m.name.startswith("skim") and rival and "skim_rate" in m.setting:
        rate = float(m.setting["skim_rate"])
        possible = flop_reduction(rate, int(m.setting["hidden_size"]), int(m.setting["small_size"])).exact_count
        speedup = rival.timing.median / own
        return f"Sp {speedup:.2f}, {speedup / possible:.2f} of Flop-r {possible:.2f}"
    return ""


def _row(values: list[Any]) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


@torch.no_grad()
def _decided_by_input(layer: SkimLSTM) -> SkimLSTM:
    for name, parameter in layer.named_parameters():
        if name.startswith("decision_"):
            parameter.zero_()
    layer.get_parameter("decision_weight_ih_l0")[0, 0] = 1.0
    return layer.eval()


def _vectors(rate: float) -> Tensor:
    vectors = torch.randn(_VOCABULARY, WIDTH)
    vectors[:, 0] = 1.0
    vectors[torch.randperm(_VOCABULARY)[: round(rate * _VOCABULARY)], 0] = -1.0
    return vectors


def _weights(module: nn.Module, prefix: str = "") -> list[Tensor]:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [module.get_parameter(prefix + name) for name in names]


def _our_lstm(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor | None = None) -> Callable[[], object]:
    weights, state = CellWeights(*_weights(lstm)), torch.zeros(inputs.shape[1], lstm.hidden_size)
    lengths = torch.full((inputs.shape[1],), len(inputs)) if lengths is None else lengths
    return lambda: cpu.lstm(inputs, lengths, (state, state), weights)


def _our_skim(layer: SkimLSTM, inputs: Tensor, lengths: Tensor) -> Callable[[], object]:
    state = torch.zeros(inputs.shape[1], layer.hidden_size)
    big, small = CellWeights(*_weights(layer)), CellWeights(*_weights(layer, "small_"))
    decision = DecisionWeights(*_weights(layer, "decision_"))

    def run() -> object:
        with torch.no_grad():
            return cpu.skim_lstm(inputs, lengths, (state, state), big, small, decision)

    return run


def _folded(layer: nn.LSTM | SkimLSTM, vectors: Tensor, words: Tensor) -> Callable[[], object]:
    weights = _weights(layer)
    if isinstance(layer, SkimLSTM):
        weights += _weights(layer, "small_") + _weights(layer, "decision_")
    folded, lengths = cpu.Folded("lstm", vectors, weights), torch.full((words.shape[1],), len(words))
    state = torch.zeros(words.shape[1], layer.hidden_size)
    return lambda: folded(words, lengths, (state, state))


def _without_gradient(module: nn.Module, inputs: Any) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return module(inputs)

    return run


def _step(module: nn.Module, inputs: Tensor) -> Callable[[], object]:
    def run() -> None:
        if isinstance(module, SkimLSTM):
            output, _, decisions = module(inputs, return_decisions=True)
            (output.sum() + decisions.skim_loss()).backward()
        else:
            module(inputs)[0].sum().backward()

    return run
