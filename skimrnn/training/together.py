"""Several runs of one shape (other seeds, other gammas) trained together: one launch for the layers of all."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from skimrnn.config import LSTMConfig, RunConfig, SkimLSTMConfig
from skimrnn.data.prepare import Prepared
from skimrnn.layers import SkimLSTM
from skimrnn.layers.skimming import gumbel_noise
from skimrnn.layers.together import last_states_together
from skimrnn.models import Classifier, ClozeReader
from skimrnn.training.classification import batch_loss
from skimrnn.training.progress import Reporter
from skimrnn.training.train import Step, training_steps


@dataclass(frozen=True)
class Member:
    """One run of a pack: what `train` is given."""

    run: RunConfig
    folder: Path
    reporter: Reporter


def shape_of(run: RunConfig) -> str | None:
    """Runs that give the same can be trained together; None for a run that is trained alone."""
    if not isinstance(run.model, LSTMConfig | SkimLSTMConfig):
        return None
    model = run.model.model_copy(update={"gamma": 0.0} if isinstance(run.model, SkimLSTMConfig) else {})
    return run.model_copy(update={"seed": 0, "model_name": "", "model": model}).model_dump_json()


def train_together(
    members: Sequence[Member], prepared: Prepared, device: torch.device, deadline: float = math.inf
) -> list[bool]:
    """Train runs of one shape as `train` does each, step by step side by side, and give whether each came to its end.

    Every run keeps its own texts, random numbers, optimiser and checkpoint, and may be resumed alone; a run that ends
    leaves the others. They share the launches of the recurrent layers, whose cost hardly grows with their number.
    """
    states = [_Randomness(device) for _ in members]
    steps = [
        training_steps(member.run, prepared, member.folder, member.reporter, device=device, deadline=deadline)
        for member in members
    ]
    asked: dict[int, Step] = {}
    ended = [False] * len(members)

    def advance(place: int, loss: Tensor | None) -> None:
        with states[place].in_use():
            try:
                asked[place] = next(steps[place]) if loss is None else steps[place].send(loss)
            except StopIteration as end:
                asked.pop(place, None)
                ended[place] = bool(end.value)

    for place in range(len(members)):
        advance(place, None)
    while asked:
        places = list(asked)
        losses = _losses([asked[place] for place in places], [states[place] for place in places])
        torch.stack(losses).sum().backward()  # No model's loss depends on another's parameters.
        for place, loss in zip(places, losses, strict=True):
            advance(place, loss.detach())
    return ended


def _losses(steps: Sequence[Step], states: Sequence["_Randomness"]) -> list[Tensor]:
    models: list[Classifier | ClozeReader] = []
    batches, inputs, noises = [], [], []
    for step, state in zip(steps, states, strict=True):
        model = step.task.model
        assert isinstance(model, Classifier | ClozeReader) and step.task.batch is not None
        batch = step.task.batch(step.rows)
        models.append(model)
        batches.append(batch)
        inputs.append(model.embedding(batch.tokens.t()))
        if isinstance(model.layer, SkimLSTM):
            with state.in_use():
                noises.append(gumbel_noise(inputs[-1]))
    layers = [model.layer for model in models]
    results = last_states_together(layers, inputs, [batch.lengths for batch in batches], noises)  # type: ignore[arg-type]
    return [
        batch_loss(model.answer(state, *batch.inputs[2:]), decisions, batch, step.task.gamma)
        for model, batch, step, (state, decisions) in zip(models, batches, steps, results, strict=True)
    ]


class _Randomness:
    """The state of torch's random numbers of one run, on the CPU and on its device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._state = self._get()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the run draw its own numbers within the block."""
        outside = self._get()
        self._set(self._state)
        try:
            yield
        finally:
            self._state = self._get()
            self._set(outside)

    def _get(self) -> list[Tensor]:
        on_gpu = [torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else []
        return [torch.get_rng_state(), *on_gpu]

    def _set(self, state: list[Tensor]) -> None:
        torch.set_rng_state(state[0])
        if len(state) > 1:
            torch.cuda.set_rng_state(state[1], self._device)
