"""Several runs of one shape (other seeds, other gammas) trained together: as one model with a dimension of models."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn import kernels
from skimrnn.config import LSTMConfig, RunConfig, SkimLSTMConfig
from skimrnn.data.batches import Batch
from skimrnn.data.prepare import PADDING, Prepared
from skimrnn.errors import UserError
from skimrnn.kernels import CellWeights, DecisionWeights
from skimrnn.layers import SkimLSTM
from skimrnn.models import Classifier, ClozeReader
from skimrnn.training.optimizer import Adam
from skimrnn.training.progress import Reporter
from skimrnn.training.train import Outcome, Step, training_steps


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
) -> list[bool | UserError]:
    """Train runs of one shape as `train` does each, step by step side by side, and give whether each came to its end.

    Every run keeps its own texts, random numbers and checkpoint, and may be resumed alone; a run that ends leaves the
    others, and one that is resumed behind them catches up first. One that fails leaves them, too: its error is given.
    """
    randomness = [Randomness(device) for _ in members]
    runs = [
        training_steps(member.run, prepared, member.folder, member.reporter, device=device, deadline=deadline)
        for member in members
    ]
    asked: dict[int, Step] = {}
    ended: list[bool | UserError] = [False] * len(members)

    def advance(place: int, outcome: Outcome | None) -> None:
        with randomness[place].in_use():
            try:
                asked[place] = next(runs[place]) if outcome is None else runs[place].send(outcome)
            except StopIteration as end:
                asked.pop(place, None)
                ended[place] = bool(end.value)
            except UserError as error:
                asked.pop(place, None)
                ended[place] = error

    try:
        for place in range(len(members)):
            advance(place, None)
        pack, packed = None, None
        while asked:
            first = min(step.taken for step in asked.values())
            places = [place for place, step in asked.items() if step.taken == first]
            if pack is None or places != packed:
                pack, packed = Pack([asked[place] for place in places], [randomness[place] for place in places]), places
            for place, outcome in zip(places, pack.take_steps([asked[place] for place in places]), strict=True):
                advance(place, outcome)
    finally:
        for steps in runs:
            steps.close()  # As `train` does.
    return ended


class Randomness:
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


class Pack:
    """N runs of one shape that have taken equally many steps, as one model: one launch does for all what one needs.

    Parameters, gradients and Adam's moments have a leading dimension of models; the runs' own models and optimisers
    become views of them, which validation and checkpoints go on to read.
    """

    def __init__(self, steps: Sequence[Step], randomness: Sequence[Randomness]) -> None:
        models = [step.task.model for step in steps]
        assert isinstance(models[0], Classifier | ClozeReader)
        self._layer = models[0].layer  # of the sizes, and at the temperature, of all
        self._randomness = randomness
        self._parameters: dict[str, nn.Parameter] = {}
        for name, _ in models[0].named_parameters():
            own = [model.get_parameter(name) for model in models]
            stacked = nn.Parameter(torch.stack([each.detach() for each in own]))
            for each, part in zip(own, stacked.detach(), strict=True):
                each.data = part
            self._parameters[name] = stacked
        self._optimizer = Adam.joined([step.optimizer for step in steps], self._parameters.values())
        self._device = self._parameters["output.bias"].device
        self._gammas = torch.tensor([step.task.gamma for step in steps], device=self._device)

    def take_steps(self, steps: Sequence[Step]) -> list[Outcome]:
        """Take a step of each run, as `take_step` does of one."""
        self._optimizer.zero_grad()
        losses = self._losses([_batch(step) for step in steps])
        losses.sum().backward()  # No model's loss depends on another's parameters.
        norms = self._clip(steps[0].clip_norm)
        self._optimizer.step()
        return [Outcome(*numbers) for numbers in torch.stack([losses.detach(), norms], dim=1).tolist()]

    def _losses(self, batches: Sequence[Batch]) -> Tensor:
        """The loss of each run's batch (N): see `training_loss`."""
        stacked, weights = _stacked(batches)
        tokens, lengths, labels, candidates = stacked.to(self._device)
        lengths, weights = lengths.to(self._device), weights.to(self._device)
        inputs = self._embedded(tokens.transpose(1, 2))  # (N, T, B, E)
        zeros = inputs.new_zeros(*lengths.shape, self._layer.hidden_size)
        skim_losses = None
        if isinstance(self._layer, SkimLSTM):
            sequence = kernels.skim_lstm(
                inputs,
                lengths,
                (zeros, zeros),
                CellWeights(*self._weights("")),
                CellWeights(*self._weights("small_")),
                DecisionWeights(*self._weights("decision_")),
                noise=self._noise(inputs, batches),
                temperature=self._layer.temperature,
            )
            state = sequence.state[0]
            skim_losses = -sequence.log_probabilities[..., 1].sum(dim=1) / lengths
        else:
            _, state = kernels.lstm(inputs, lengths, (zeros, zeros), CellWeights(*self._weights("")))
        logits = self._answers(state, candidates)
        losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        if skim_losses is not None:
            losses = losses + self._gammas[:, None] * skim_losses
        return (losses * weights).sum(dim=1)

    def _weights(self, prefix: str) -> list[Tensor]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [self._parameters[f"layer.{prefix}{name}_l0"] for name in names]

    def _embedded(self, tokens: Tensor) -> Tensor:
        """The vectors (N, ..., E) of tokens (N, ...), each model's from its own table."""
        tables = self._parameters["embedding.weight"]
        first = torch.arange(len(tables), device=tokens.device) * tables.shape[1]
        return functional.embedding(tokens + first.view(-1, *[1] * (tokens.dim() - 1)), tables.flatten(0, 1))

    def _noise(self, inputs: Tensor, batches: Sequence[Batch]) -> Tensor:
        """What `gumbel_noise` draws for each run and the size of its own batch; zeros beyond."""
        noise = inputs.new_ones(*inputs.shape[:-1], 2)
        for own, batch, randomness in zip(noise, batches, self._randomness, strict=True):
            texts, steps = batch.tokens.shape
            with randomness.in_use():
                own[:steps, :texts] = own.new_empty(steps, texts, 2).exponential_()
        return -noise.log()

    def _answers(self, state: Tensor, candidates: Tensor | None) -> Tensor:
        """The models' `answer`: logits (N, B, classes) from the last states (N, B, D)."""
        output = torch.baddbmm(self._parameters["output.bias"][:, None], state, self._parameters["output.weight"].mT)
        if candidates is None:
            return output
        logits: Tensor = torch.einsum("nbce,nbe->nbc", self._embedded(candidates), output)
        return logits.masked_fill(candidates == PADDING, -torch.inf)

    def _clip(self, clip_norm: float) -> Tensor:
        """Scale each model's gradient down to `clip_norm`, and give the norms (N) that they had."""
        gradients = [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]
        norms: Tensor = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        shares = (clip_norm / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(shares.view(-1, *[1] * (gradient.dim() - 1)))
        return norms


def _batch(step: Step) -> Batch:
    assert step.task.batch is not None
    return step.task.batch(step.rows)


def _stacked(batches: Sequence[Batch]) -> tuple[Batch, Tensor]:
    """Batches as one with a leading dimension, and what each text weighs in the loss of its batch (N, B).

    Short texts are padded to the longest of all; a batch of fewer texts repeats its first one at a weight of zero.
    """
    texts = max(len(batch.labels) for batch in batches)

    def stack(values: Sequence[Tensor]) -> Tensor:
        width = max(each.shape[1] for each in values)
        return torch.stack([functional.pad(full(each), (0, width - each.shape[1]), value=PADDING) for each in values])

    def full(values: Tensor) -> Tensor:
        missing = texts - len(values)
        return torch.cat([values, values[:1].expand(missing, *values.shape[1:])]) if missing else values

    tokens, lengths, labels, candidates = zip(*batches, strict=True)
    weights = torch.zeros(len(batches), texts)
    for own, batch in zip(weights, batches, strict=True):
        own[: len(batch.labels)] = 1 / len(batch.labels)
    stacked = Batch(
        stack(tokens),
        torch.stack([full(each) for each in lengths]),
        torch.stack([full(each) for each in labels]),
        None if candidates[0] is None else stack(candidates),
    )
    return stacked, weights
