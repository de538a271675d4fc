"""How fast training is on a GPU: a step beside cuDNN's and the reference's, and packs beside one run after another.

And how soon torch's LSTM has read one text there, which claim 11 holds against our kernels on one CPU thread.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from skimrnn.benchmarks.timing import Timing, time_together
from skimrnn.data.batches import Batch
from skimrnn.files import Closed
from skimrnn.kernels import reference, runs_models_together
from skimrnn.layers import SkimLSTM
from skimrnn.models import Classifier
from skimrnn.provenance import Environment, environment
from skimrnn.training.classification import training_loss
from skimrnn.training.optimizer import Adam
from skimrnn.training.task import Task
from skimrnn.training.together import Pack, Randomness
from skimrnn.training.train import Step, take_step

WIDTH, HIDDEN, SMALL = 100, 100, 10
BATCHES, STEPS = (32, 128), (50, 150, 400)
MODELS = 10
LATENCY_STEPS = 300
_VOCABULARY, _CLASSES, _GAMMA = 15_000, 2, 0.02
Kind = Literal["step", "pack", "latency"]
_Functions = dict[str, Callable[[], object]]


class Measurement(Closed):
    """One function in one setting; `seconds` hold every sample."""

    benchmark: Kind
    name: str
    batch: int
    steps: int
    models: int
    seconds: Timing


class Target(Closed):
    """A ratio of medians in one setting, and the bound that it is to keep."""

    name: str
    batch: int
    steps: int
    ratio: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def limit(self) -> str:
        """The bound, in words."""
        return f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"

    @property
    def met(self) -> bool:
        """Whether the ratio keeps its bound."""
        return (self.at_most is None or self.ratio <= self.at_most) and (
            self.at_least is None or self.ratio >= self.at_least
        )


class GPUReport(Closed):
    """All measurements of one run, and what they say of the targets."""

    environment: Environment
    measurements: list[Measurement]
    targets: list[Target]


class ReferenceSkimLSTM(SkimLSTM):
    """A Skim-LSTM on the readable reference, whatever kernel is in use."""

    _run = staticmethod(reference.skim_lstm)
    _takes_models = False


def measure_gpu(
    device: torch.device,
    rounds: int,
    tell: Callable[[str], None],
    batches: Sequence[int] = BATCHES,
    steps: Sequence[int] = STEPS,
    models: int = MODELS,
) -> GPUReport:
    """Time training steps of one layer and of packs of classifiers, and one text; `tell` hears of each target."""
    measurements: list[Measurement] = []

    def measure(benchmark: Kind, batch: int, steps: int, models: int, functions: _Functions) -> None:
        for name, seconds in time_together(functions, rounds).items():
            measurements.append(
                Measurement(benchmark=benchmark, name=name, batch=batch, steps=steps, models=models, seconds=seconds)
            )

    for batch in batches:
        for length in steps:
            measure("step", batch, length, 1, _step_functions(device, batch, length))
            if runs_models_together(torch.empty(0, device=device)):
                measure("pack", batch, length, models, _pack_functions(device, batch, length, models))
    measure("latency", 1, LATENCY_STEPS, 1, {"torch": _reading_function(device)})
    targets = targets_of(measurements)
    for target in targets:
        verdict = "met" if target.met else "missed"
        tell(f"B={target.batch} T={target.steps}: {target.name} {target.ratio:.2f} ({target.limit}: {verdict})")
    return GPUReport(environment=environment(device), measurements=measurements, targets=targets)


def targets_of(measurements: Sequence[Measurement]) -> list[Target]:
    """The ratios that are aimed at, from the medians of each setting."""
    medians: dict[tuple[int, int], dict[str, float]] = {}
    for entry in measurements:
        if entry.benchmark == "latency":
            continue
        medians.setdefault((entry.batch, entry.steps), {})[entry.name] = entry.seconds.median
    targets = []
    for (batch, steps), median in medians.items():
        targets += [
            Target(
                name="a step of SkimLSTM over one of nn.LSTM",
                batch=batch,
                steps=steps,
                ratio=median["skim"] / median["torch"],
                at_most=1.5,
            ),
            Target(
                name="a step of the reference over one of SkimLSTM",
                batch=batch,
                steps=steps,
                ratio=median["reference"] / median["skim"],
                at_least=10.0,
            ),
        ]
        if "packed" in median:
            targets.append(
                Target(
                    name="runs an hour packed over one after another",
                    batch=batch,
                    steps=steps,
                    ratio=median["one after another"] / median["packed"],
                    at_least=5.0,
                )
            )
    return targets


def _step_functions(device: torch.device, batch: int, steps: int) -> _Functions:
    """Forward and backward of one layer: cuDNN's `nn.LSTM`, ours, and the reference."""
    inputs = torch.randn(steps, batch, WIDTH, device=device, requires_grad=True)

    def step(layer: nn.Module) -> Callable[[], object]:
        layer.to(device)

        def run() -> None:
            inputs.grad = None
            layer.zero_grad()
            if isinstance(layer, SkimLSTM):
                output, _, decisions = layer(inputs, return_decisions=True)
                (output.sum() + _GAMMA * decisions.skim_loss()).backward()
            else:
                layer(inputs)[0].sum().backward()
            _wait(device)

        return run

    return {
        "torch": step(nn.LSTM(WIDTH, HIDDEN)),
        "skim": step(SkimLSTM(WIDTH, HIDDEN, small_size=SMALL)),
        "reference": step(ReferenceSkimLSTM(WIDTH, HIDDEN, small_size=SMALL)),
    }


def _reading_function(device: torch.device) -> Callable[[], object]:
    """Torch's LSTM over one text."""
    lstm, inputs = nn.LSTM(WIDTH, HIDDEN).to(device).eval(), torch.randn(LATENCY_STEPS, 1, WIDTH, device=device)

    def read() -> None:
        with torch.no_grad():
            lstm(inputs)
        _wait(device)

    return read


def _pack_functions(device: torch.device, batch: int, steps: int, models: int) -> _Functions:
    """A whole training step of each of several Skim-LSTM classifiers, as `train` and `train_together` take it."""

    def step() -> Step:
        layer = SkimLSTM(WIDTH, HIDDEN, small_size=SMALL)
        model = Classifier(torch.randn(_VOCABULARY, WIDTH), layer, _CLASSES).to(device)
        texts = Batch(
            torch.randint(1, _VOCABULARY, (batch, steps)),
            torch.full((batch,), steps),
            torch.randint(_CLASSES, (batch,)),
        )

        def loss(rows: np.ndarray) -> Tensor:
            return training_loss(model, texts.to(device), _GAMMA)

        def validate(model: nn.Module) -> BaseModel:
            raise NotImplementedError("steps alone are timed")

        task = Task(model, texts, loss, validate, "accuracy", batch=lambda rows: texts, gamma=_GAMMA)
        return Step(task, np.arange(batch), 0, Adam(model.parameters(), 1e-4), 5.0)

    alone, together = ([step() for _ in range(models)] for _ in range(2))
    pack = Pack(together, [Randomness(device) for _ in range(models)])

    def one_after_another() -> None:
        for each in alone:
            take_step(each)

    return {"one after another": one_after_another, "packed": lambda: pack.take_steps(together)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
