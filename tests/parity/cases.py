"""Random problems for the kernels, and how far two answers are apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from skimrnn.kernels import CellWeights, DecisionWeights, SkimSequence

CELLS = ["lstm", "gru"]
DECISION_WEIGHTS = len(DecisionWeights._fields)  # The last of a case's leaves.
# E, D, S, T, B: whole and broken vectors, skipping, one of everything, a lone sequence, several panels of small units
# and more inputs than are summed at once.
SIZES = [
    (7, 13, 3, 9, 5),
    (16, 32, 16, 7, 4),
    (5, 20, 0, 6, 3),
    (1, 1, 1, 3, 2),
    (6, 40, 21, 12, 1),
    (140, 57, 9, 24, 8),
]


@dataclass
class Case:
    """Random weights, ragged lengths, a nonzero initial state and noise, in float64."""

    cell: str
    inputs: Tensor
    lengths: Tensor
    state: tuple[Tensor, ...]
    weights: list[Tensor]
    noise: Tensor

    def run(self, kernel: ModuleType, **options: object) -> SkimSequence:
        big, small = CellWeights(*self.weights[:4]), CellWeights(*self.weights[4:8])
        function = getattr(kernel, f"skim_{self.cell}")
        return function(
            self.inputs, self.lengths, self.state, big, small, DecisionWeights(*self.weights[8:]), **options
        )

    def to(self, dtype: torch.dtype, requires_grad: bool = False) -> "Case":
        def convert(tensor: Tensor) -> Tensor:
            return tensor.detach().to(dtype, copy=True).requires_grad_(requires_grad)

        return Case(
            self.cell,
            convert(self.inputs),
            self.lengths,
            tuple(map(convert, self.state)),
            list(map(convert, self.weights)),
            self.noise.to(dtype),
        )

    def leaves(self) -> list[Tensor]:
        return [self.inputs, *self.state, *self.weights]


def make_case(cell: str, sizes: tuple[int, int, int, int, int]) -> Case:
    inputs, hidden, small, steps, batch = sizes
    gates = {"lstm": 4, "gru": 3}[cell]

    def weights(rows: int) -> list[Tensor]:
        shapes = [(rows, inputs), (rows, hidden), (rows,), (rows,)]
        return [torch.rand(shape, dtype=torch.float64).sub(0.5) * 3 / hidden**0.5 for shape in shapes]

    lengths = torch.randint(1, steps + 1, (batch,))
    if batch:
        lengths[torch.randint(batch, ())] = steps
    return Case(
        cell,
        torch.randn(steps, batch, inputs, dtype=torch.float64),
        lengths,
        tuple(torch.randn(batch, hidden, dtype=torch.float64) for _ in range(2 if cell == "lstm" else 1)),
        [*weights(gates * hidden), *weights(gates * small), *weights(2)],
        -torch.empty(steps, batch, 2, dtype=torch.float64).exponential_().log(),
    )


def values(sequence: SkimSequence) -> list[Tensor]:
    """All that is differentiable."""
    return [sequence.outputs, *sequence.state, sequence.log_probabilities]


def error(actual: Tensor, expected: Tensor, scale: Tensor | None = None) -> float:
    """Largest difference, relative to the largest value expected (or of `scale`), or to 0.1 where all cancel."""
    if not expected.numel():
        return 0.0
    largest = (expected if scale is None else scale).detach().abs().max().clamp(min=0.1)
    return float((actual.detach().double() - expected.detach().double()).abs().max() / largest)


def assert_gradients_agree(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Gradients of a case's leaves to 1e-5, each seen against its largest value, or against the other gradients.

    A bias sums over all tokens, and may cancel: a tenth of the largest gradient is its scale, too. A decision's
    gradients sum over all units before that: theirs is the largest gradient.
    """
    largest = torch.stack([gradient.abs().max() for gradient in wanted if gradient.numel()]).max()
    for index, (a, e) in enumerate(zip(given, wanted, strict=True)):
        if e.numel():
            share = 1.0 if index >= len(wanted) - DECISION_WEIGHTS else 0.1
            assert error(a.cpu(), e, torch.stack([e.abs().max(), share * largest])) < 1e-5, index
