"""The speed benchmark: our LSTM and Skim-LSTM beside each other and beside other libraries' LSTMs.

Skim rates are set, not learned: the first number of each input says whether it is read, and the decision looks at
nothing else, so every rate is exact to a token and the reads fall at random.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skimrnn import SkimLSTM
from skimrnn.benchmarks.competitors import COMPETITORS, UnavailableError, all_weights, numpy_lstm, numpy_skim_lstm
from skimrnn.benchmarks.memory import peak_memory_mib
from skimrnn.benchmarks.peaks import Peaks, best_of, measure_peaks
from skimrnn.benchmarks.timing import Timing, summarise, time_together
from skimrnn.data.questions import Padded, QuestionBatch
from skimrnn.errors import UserError
from skimrnn.files import Closed
from skimrnn.kernels import KERNEL
from skimrnn.layers.plain_lstm import padded_lstm
from skimrnn.models import LSTMAtt
from skimrnn.models.reader import run_recurrent
from skimrnn.provenance import Environment, environment
from skimrnn.training.reading import reading_loss

if KERNEL == "cpu":  # Else measurements can still be read.
    from skimrnn.kernels import cpu

WIDTH = 100  # of the inputs
STEPS = 300
SIZES = (100, 200, 400)
RATES = (0.5, 0.8, 0.9, 0.95)
NUMPY_SMALL_SIZE = 10  # The one small size at which NumPy is timed, too.
READER_SMALL_SIZES = (0, 20)
SWEEPS = 3
"""Times that all tasks are gone through: a machine that others share, too, is faster or slower for minutes."""
_VOCABULARY = 5000


class Cost(Closed):
    """The least that a token asks of the machine: float operations, and bytes of hidden weights that each step reads.

    `weights` is the size of the array that those bytes are of: it decides in which cache it stays. Batches share a
    pass over the weights, so they have no `bytes`.
    """

    flops: float
    bytes: float = 0.0
    weights: int = 0


class Measurement(Closed):
    """One timed function; `tokens` is the number of real tokens in one call, the memory what a call adds at most."""

    benchmark: str
    name: str
    setting: dict[str, float | int | str]
    tokens: int
    timing: Timing
    cost: Cost | None
    peak_memory_mib: float | None

    def microseconds_a_token(self) -> float:
        """The median, a token."""
        return self.timing.median / self.tokens * 1e6


class Report(Closed):
    """A whole run of the benchmark."""

    environment: Environment
    isa: str
    sweeps: int  # times that all tasks were gone through: their samples stand together
    peaks: Peaks
    skipped: dict[str, str]
    measurements: list[Measurement]


class Task(NamedTuple):
    """Functions that are timed together; `skipped` says of others why they are not."""

    setting: Mapping[str, float | int | str]
    tokens: int
    functions: Mapping[str, Callable[[], object]]
    costs: Mapping[str, Cost] = {}
    memory: Mapping[str, Callable[[], float | None]] = {}
    skipped: Mapping[str, str] = {}


def run_benchmarks(names: list[str], rounds: int, tell: Callable[[str], None]) -> Report:
    """Run the named benchmarks (see `BENCHMARKS`); `tell` hears how each task went."""
    if KERNEL != "cpu":
        raise UserError(
            f"the compiled kernels are timed, and {KERNEL} is in use: install again with a C++ compiler, and leave "
            "SKIMRNN_KERNEL unset"
        )
    skipped: dict[str, str] = {}
    tasks: dict[tuple[str, int], Task] = {}
    samples: dict[tuple[str, int, str], list[float]] = {}
    peaks: list[Peaks] = []
    before = torch.get_num_threads()
    try:
        for sweep in range(SWEEPS):
            peaks.append(measure_peaks([_weight_bytes(size) for size in SIZES]))
            torch.manual_seed(0)  # Each sweep makes the same tasks.
            for name in names:
                for place, task in enumerate(BENCHMARKS[name]()):
                    skipped |= task.skipped
                    tasks.setdefault((name, place), task._replace(functions={}))
                    timings = time_together(task.functions, math.ceil(rounds / SWEEPS))
                    for function, timing in timings.items():
                        samples.setdefault((name, place, function), []).extend(timing.samples)
                    times = ", ".join(f"{f} {t.median / task.tokens * 1e6:.2f}" for f, t in timings.items())
                    tell(f"sweep {sweep + 1} of {SWEEPS}: {name} {task.setting}: {times} us a token")
    finally:
        torch.set_num_threads(before)
    measurements = []
    for (name, place, function), values in samples.items():
        task = tasks[name, place]
        memory = task.memory.get(function)
        measurements.append(
            Measurement(
                benchmark=name,
                name=function,
                setting=dict(task.setting),
                tokens=task.tokens,
                timing=summarise(values),
                cost=task.costs.get(function),
                peak_memory_mib=memory() if memory else None,
            )
        )
    return Report(
        environment=environment(),
        isa=cpu.isa(),
        sweeps=SWEEPS,
        peaks=best_of(peaks),
        skipped=skipped,
        measurements=measurements,
    )


def _plain() -> Iterator[Task]:
    """Batch 1, one thread: our standard LSTM and all competitors."""
    torch.set_num_threads(1)
    for size in SIZES:
        lstm = nn.LSTM(WIDTH, size).eval()
        inputs = torch.randn(STEPS, 1, WIDTH)
        functions: dict[str, Callable[[], object]] = {"ours": _ours(lstm, inputs)}
        skipped = {}
        for name, make in COMPETITORS.items():
            try:
                functions[name] = make(lstm, inputs)
            except UnavailableError as reason:
                skipped[name] = str(reason)
        costs = {name: _cost(size, 0, 0.0) for name in functions}
        setting = {"hidden_size": size, "steps": STEPS, "threads": 1}
        yield Task(setting, STEPS, functions, costs, skipped=skipped)


def _skimming() -> Iterator[Task]:
    """Batch 1, one thread: Skim-LSTM at set rates, projected on demand and folded, each beside our LSTM."""
    torch.set_num_threads(1)
    for size in SIZES:
        for small in (5, 10, 20):
            layer = _decided_by_input(SkimLSTM(WIDTH, size, small_size=small))
            lstm = nn.LSTM(WIDTH, size)
            lstm.load_state_dict(layer.state_dict(), strict=False)
            for rate in (0.0, *RATES, 1.0):
                vectors, words = _vectors(), _words(rate, torch.tensor([STEPS]))
                inputs = vectors[words]
                skimmed = float((inputs[..., 0] < 0).double().mean())
                setting = {"hidden_size": size, "small_size": small, "skim_rate": skimmed, "threads": 1}
                functions = {
                    "lstm": _ours(lstm, inputs),
                    "skim": _ours(layer, inputs),
                    "lstm folded": _folded(lstm, vectors, words),
                    "skim folded": _folded(layer, vectors, words),
                }
                if small == NUMPY_SMALL_SIZE:
                    functions |= {"lstm numpy": numpy_lstm(lstm, inputs), "skim numpy": numpy_skim_lstm(layer, inputs)}
                costs = {
                    name: _cost(size, small if "skim" in name else 0, skimmed, folded="folded" in name)
                    for name in functions
                }
                yield Task(setting, STEPS, functions, costs)


def _training() -> Iterator[Task]:
    """One training step, forward and backward, beside `nn.LSTM`'s."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch, steps in ((32, 50), (128, 300)):
            inputs = torch.randn(steps, batch, WIDTH, requires_grad=True)
            setting = {"batch": batch, "steps": steps, "hidden_size": 100, "small_size": 10, "threads": threads}
            functions = {name: _step(name, inputs) for name in ("torch", "lstm", "skim")}
            # Forward, the gradient of the inputs and that of the weights: three products of the same size.
            costs = {
                "torch": Cost(flops=3 * _flops(100)),
                "lstm": Cost(flops=3 * _flops(100)),
                "skim": Cost(flops=3 * (_flops(100) + _flops(10, 100) + 400)),
            }
            memory: dict[str, Callable[[], float | None]] = {}
            if threads == 1:
                memory = {name: partial(peak_memory_mib, _training_step, name, batch, steps) for name in functions}
            yield Task(setting, batch * steps, functions, costs, memory)


def _batched() -> Iterator[Task]:
    """Evaluation of ragged batches on two threads."""
    torch.set_num_threads(2)
    lengths = torch.randint(5, 100, (128,))
    for size, small in ((100, 10), (200, 10)):
        layer = _decided_by_input(SkimLSTM(WIDTH, size, small_size=small))
        lstm = nn.LSTM(WIDTH, size)
        lstm.load_state_dict(layer.state_dict(), strict=False)
        for rate in RATES:
            inputs = _vectors()[_words(rate, lengths)]
            packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, enforce_sorted=False)
            setting = {"batch": 128, "hidden_size": size, "small_size": small, "skim_rate": rate, "threads": 2}
            functions = {
                "torch": _without_gradient(lstm, packed),
                "lstm": _ours(lstm, inputs, lengths),
                "skim": _ours(layer, inputs, lengths),
            }
            costs = {name: Cost(flops=_cost(size, small if name == "skim" else 0, rate).flops) for name in functions}
            yield Task(setting, int(lengths.sum()), functions, costs)


def _lengths() -> Iterator[Task]:
    """Batch 1, one thread: time and memory as the text grows."""
    torch.set_num_threads(1)
    for steps in (100, 300, 1000, 3000, 10_000, 100_000):
        functions = {name: _long_text(name, steps) for name in ("lstm", "skim")}
        memory = {name: partial(peak_memory_mib, _long_text, name, steps) for name in functions}
        yield Task({"steps": steps, "hidden_size": 100, "threads": 1}, steps, functions, memory=memory)


def _reader_training() -> Iterator[Task]:
    """A training step of Sk-LSTM+Att beside one of LSTM+Att: forward and backward, without the optimizer."""
    torch.set_num_threads(1)
    batch = _questions(32, 60, 220)
    tokens = int(batch.contexts.lengths.sum())
    for small in READER_SMALL_SIZES:
        setting = {"batch": 32, "hidden_size": 100, "small_size": small, "threads": 1}
        models = {name: _reader(name, small).train() for name in ("lstm", "skim")}
        functions = {name: _reading_step(model, batch) for name, model in models.items()}
        yield Task(setting, tokens, functions)


def _reader_evaluation() -> Iterator[Task]:
    """Sk-LSTM+Att at set skim rates beside LSTM+Att: the whole model, and its layers alone."""
    torch.set_num_threads(1)
    batch = _questions(40, 130, 150)
    tokens = int(batch.contexts.lengths.sum())
    for small in READER_SMALL_SIZES:
        lstm, skim = (_reader(name, small).eval() for name in ("lstm", "skim"))
        for rate in RATES:
            skimmed = _set_skim_rate(skim, batch, rate)
            setting = {"batch": 40, "hidden_size": 100, "small_size": small, "skim_rate": skimmed, "threads": 1}
            functions = {
                name: _without_gradient(model, batch.questions, batch.contexts)
                for name, model in (("lstm", lstm), ("skim", skim))
            }
            inputs = skim.inputs(batch.questions, batch.contexts).detach()
            functions |= {
                name: _without_gradient(run_recurrent, model.layer, inputs, batch.contexts.lengths)
                for name, model in (("lstm layers", lstm), ("skim layers", skim))
            }
            yield Task(setting, tokens, functions)


BENCHMARKS: dict[str, Callable[[], Iterator[Task]]] = {
    "plain": _plain,
    "skimming": _skimming,
    "training": _training,
    "batched": _batched,
    "lengths": _lengths,
    "reader_training": _reader_training,
    "reader_evaluation": _reader_evaluation,
}


@torch.no_grad()
def _decided_by_input(layer: SkimLSTM) -> SkimLSTM:
    for name, parameter in layer.named_parameters():
        if name.startswith("decision_"):
            parameter.zero_()
    layer.get_parameter("decision_weight_ih_l0")[0, 0] = 1.0
    return layer.eval()


def _flops(rows: int, hidden_size: int | None = None) -> float:
    """Float operations of one LSTM cell with `rows` units on x and all of h."""
    return 8.0 * rows * (WIDTH + (hidden_size or rows))


def _weight_bytes(hidden_size: int) -> int:
    return 4 * 4 * hidden_size * hidden_size


def _cost(hidden_size: int, small_size: int, skim_rate: float, *, folded: bool = False) -> Cost:
    """Of one token of a lone sequence; small_size 0 is the plain LSTM."""
    read = 1 - skim_rate if small_size else 1.0
    share = read + (1 - read) * small_size / hidden_size
    decision = 2.0 if small_size else 0.0
    width = hidden_size + (0 if folded else WIDTH)
    return Cost(
        flops=(8 * hidden_size * share + decision) * width,
        bytes=_weight_bytes(hidden_size) * share,
        weights=_weight_bytes(hidden_size),
    )


def _vectors() -> Tensor:
    """The vectors of words: those of the first half of the vocabulary are read, the others skimmed."""
    vectors = torch.randn(_VOCABULARY, WIDTH)
    vectors[:, 0] = 1.0
    vectors[_VOCABULARY // 2 :, 0] = -1.0
    return vectors


def _words(rate: float, lengths: Tensor) -> Tensor:
    """Random words (T, B) of texts of `lengths` (B), of which that share is skimmed."""
    tokens = (torch.arange(int(lengths.max()))[:, None] < lengths).nonzero(as_tuple=True)
    chosen = torch.randperm(len(tokens[0]))[: round(rate * len(tokens[0]))]
    words = torch.randint(_VOCABULARY // 2, (int(lengths.max()), len(lengths)))
    words[tokens[0][chosen], tokens[1][chosen]] += _VOCABULARY // 2
    return words


def _ours(layer: nn.LSTM | SkimLSTM, inputs: Tensor, lengths: Tensor | None = None) -> Callable[[], object]:
    """Our kernels on a layer's weights; without `lengths` all sequences are T long."""
    return _run(cpu.Frozen("lstm", all_weights(layer)), layer, inputs, lengths)


def _folded(layer: nn.LSTM | SkimLSTM, vectors: Tensor, words: Tensor) -> Callable[[], object]:
    return _run(cpu.Frozen("lstm", all_weights(layer), vectors), layer, words, None)


def _run(
    frozen: "cpu.Frozen", layer: nn.LSTM | SkimLSTM, inputs: Tensor, lengths: Tensor | None
) -> Callable[[], object]:
    state = torch.zeros(inputs.shape[1], layer.hidden_size)
    lengths = torch.full((inputs.shape[1],), len(inputs)) if lengths is None else lengths
    return lambda: frozen(inputs, lengths, (state, state))


def _without_gradient(function: Callable[..., object], *inputs: Any) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return function(*inputs)

    return run


def _questions(count: int, least: int, most: int) -> QuestionBatch:
    """Questions of 11 random words about contexts of `least` to `most`, and answers of one word."""
    lengths = torch.randint(least, most + 1, (count,))

    def texts(lengths: Tensor) -> Padded:
        words = torch.randint(2, _VOCABULARY, (count, int(lengths.max())))
        return Padded(words, words, lengths)

    place = torch.randint(least, (count,))
    return QuestionBatch(texts(torch.full((count,), 11)), texts(lengths), place, place)


def _reader(name: str, small_size: int) -> LSTMAtt:
    """LSTM+Att or, for `skim`, Sk-LSTM+Att, as in the paper: two layers, d = 100."""
    sizes: dict[str, Any] = {"num_layers": 2, "dropout": 0.2, "bidirectional": True}
    if name == "skim":
        return LSTMAtt(torch.randn(_VOCABULARY, WIDTH), SkimLSTM(3 * WIDTH, 100, small_size=small_size, **sizes), 0.2)
    return LSTMAtt(torch.randn(_VOCABULARY, WIDTH), nn.LSTM(3 * WIDTH, 100, **sizes), 0.2)


def _reading_step(model: LSTMAtt, batch: QuestionBatch) -> Callable[[], object]:
    def run() -> None:
        model.zero_grad()
        reading_loss(model, batch, 0.1).backward()

    return run


@torch.no_grad()
def _set_skim_rate(model: LSTMAtt, batch: QuestionBatch, rate: float) -> float:
    """Let each LSTM of a skimming reader skim that share of a batch, by what it is given; the share that it came to."""
    biases = []
    for name, parameter in model.layer.named_parameters():
        if name.startswith("decision_"):
            parameter.zero_()
        if name.startswith("decision_weight_ih"):
            parameter[0].normal_()
        if name.startswith("decision_bias_ih"):
            biases.append(parameter)
    real = torch.arange(int(batch.contexts.lengths.max()))[:, None] < batch.contexts.lengths  # (T, B)
    for place, bias in enumerate(biases):  # The second layer's inputs hang on the decisions of the first.
        decisions = model(batch.questions, batch.contexts).decisions
        logits = decisions.log_probabilities[place, ..., 0] - decisions.log_probabilities[place, ..., 1]
        bias[0] = -logits[real].quantile(rate)
    read = model(batch.questions, batch.contexts).decisions.read
    return 1 - float(read.sum()) / (len(read) * int(real.sum()))


def _long_text(name: str, steps: int) -> Callable[[], object]:
    layer = _decided_by_input(SkimLSTM(WIDTH, 100, small_size=10))
    inputs = _vectors()[_words(0.9, torch.tensor([steps]))]
    if name == "skim":
        return _ours(layer, inputs)
    lstm = nn.LSTM(WIDTH, 100)
    return _ours(lstm, inputs)


def _training_step(name: str, batch: int, steps: int) -> Callable[[], object]:
    return _step(name, torch.randn(steps, batch, WIDTH, requires_grad=True))


def _step(name: str, inputs: Tensor) -> Callable[[], object]:
    """A training step of torch's LSTM, of the same weights on our kernel, or of Skim-LSTM."""
    lstm, skim = nn.LSTM(WIDTH, 100), SkimLSTM(WIDTH, 100, small_size=10)
    lengths = torch.full((inputs.shape[1],), len(inputs))

    def run() -> None:
        if name == "skim":
            output, _, decisions = skim(inputs, return_decisions=True)
            (output.sum() + decisions.skim_loss()).backward()
        else:
            output = padded_lstm(lstm, inputs, lengths)[0] if name == "lstm" else lstm(inputs)[0]
            output.sum().backward()

    return run
